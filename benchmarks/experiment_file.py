"""The TOML file of an experiment: read, checked, laid out for one size, its paths made absolute."""

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from masterkey.names import expanded

from .config import BenchmarkError

SIZES = ("smoke", "small", "paper")
_LISTS = ("targets", "models", "arms", "seeds", "lrs")  # every experiment says these
_REST = {
    **{"title": str, "shows": str, "layout": str, "evaluate": str, "reference": str, "source_seed": int},
    **{"data": dict, "networks": dict, "pictures": dict, "train": dict, "sizes": dict, "controls": list},
    "by_size": list,
}


def is_path(name: str) -> bool:
    """Whether a name means a file or folder: it begins with ``.``, ``/`` or ``~``, or ends with ``.toml``."""
    return name.startswith((".", "/", "~")) or name.endswith(".toml")


def absolute(name: str, folder: Path) -> str:
    """Return a path that begins with ``.`` or ``~`` as an absolute one, seen from ``folder``; any other name as it is.

    Run ids are made of names. A relative one would mean other pictures elsewhere, and find their results.
    """
    return str((folder / expanded(name)).resolve()) if name.startswith((".", "~")) else name


def built_in_names() -> list[str]:
    """Return the names of the experiments that come with masterkey, sorted."""
    entries = (files("masterkey.benchmarks") / "experiments").iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml"))


def read_built_in(name: str, size: str) -> dict[str, Any]:
    """Return what a built-in experiment says at one of ``SIZES``.

    Raises:
        BenchmarkError: it has no such size, or its file lacks something.
    """
    return _read(files("masterkey.benchmarks") / "experiments" / f"{name}.toml", name, size)


def read_own(path: Path, size: str) -> dict[str, Any]:
    """Return what a file says at one of ``SIZES``; the paths in it are seen from its folder.

    A file without ``[sizes]`` is the same at every size; one without ``title``, ``layout`` or ``shows`` gets the
    file's name, ``arms`` and nothing.

    Raises:
        BenchmarkError: no such file, no TOML, no such size, or something that it lacks or that has no meaning.
    """
    raw = {"title": path.stem, "shows": "", "layout": "arms", **_read(path, str(path), size)}
    return _placed(raw, path.resolve().parent)


def _read(path: Traversable, name: str, size: str) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # what is no TOML or UTF-8 is a ValueError
        raise BenchmarkError(f"experiment {name} cannot be read: {' '.join(str(error).split()):.300}") from error
    sizes = raw.pop("sizes", {key: {} for key in SIZES})
    if size not in SIZES or size not in sizes:
        raise BenchmarkError(f"experiment {name} has no size {size!r}; it has {', '.join(sizes)}")
    merged = _merge(raw, sizes[size])
    _check(name, merged)
    return merged


def _check(name: str, raw: Mapping[str, Any]) -> None:
    missing = [key for key in _LISTS if not raw.get(key)]
    if missing:
        raise BenchmarkError(f"experiment {name} does not say {', '.join(missing)}")
    unknown = sorted(raw.keys() - {*_LISTS, *_REST})
    if unknown:
        raise BenchmarkError(
            f"experiment {name} says {', '.join(unknown)}, which mean nothing; there are {', '.join([*_LISTS, *_REST])}"
        )
    kinds = {**dict.fromkeys(_LISTS, list), **_REST}
    wrong = [f"{key} is no {_called(kinds[key])}" for key, value in raw.items() if not isinstance(value, kinds[key])]
    if not wrong:
        wrong += [f"arm {i + 1} has no name" for i, arm in enumerate(raw["arms"]) if "name" not in dict(arm)]
    if wrong:
        raise BenchmarkError(f"experiment {name}: {'; '.join(wrong)}")


def _called(kind: type) -> str:
    return {list: "list", dict: "table", str: "text", int: "number"}[kind]


def _placed(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths absolute: of data sets (targets, and what arms take filters from) and of banks."""
    data = raw.setdefault("data", {})
    for key in {*raw["targets"], *data, *_sources(raw["arms"])}:
        named = data.get(key, {}).get("name", key)
        if named != (place := absolute(str(named), folder)):
            data[key] = {**data.get(key, {}), "name": place}
    for arm in raw["arms"]:
        for table, key in ((arm, "bank"), (arm.get("vary", {}), "bank")):
            if isinstance(table.get(key), str):
                table[key] = absolute(table[key], folder)
            elif key in table:
                table[key] = [absolute(str(bank), folder) for bank in table[key]]
    return raw


def _sources(arms: list[dict[str, Any]]) -> set[str]:
    """Return the data sets of ``scratch:DATA[@MODEL]`` in arms."""
    named = [
        str(bank)
        for arm in arms
        for bank in (arm.get("bank"), arm.get("teacher"), *arm.get("vary", {}).get("bank", ()))
    ]
    return {bank.removeprefix("scratch:").partition("@")[0] for bank in named if bank.startswith("scratch:")} - {""}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``over`` over ``base``: tables are merged, everything else is replaced."""
    merged = deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else deepcopy(value)
    return merged
