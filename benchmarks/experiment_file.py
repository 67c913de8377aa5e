"""The TOML file of an experiment: read, checked, laid out for one size, its paths made absolute."""

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from masterkey.names import expanded, holds_bank

from .data_name import place_of_data
from .errors import BenchmarkError
from .typed import near

SIZES = ("smoke", "small", "paper")
_NAMED = ("models", "targets")
LAYOUTS = ("arms", "matrix", "curve", "bars")  # of its report
REFERENCES = ("selffer", "scratch")  # what the cells of a matrix are compared with
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
    """Return the name of a bank with its path made absolute, seen from ``folder``; one without a path as it is.

    A path begins with ``.`` or ``~``, or is a bank's folder or file there; a rule may stand before it, as in
    ``shuffled-pixels:./mine``. Run ids are made of names. A relative one would mean other filters elsewhere, and find
    their results.
    """
    rule, colon, path = name.rpartition(":")
    if rule == "scratch" or not path:
        return name
    beside = folder / expanded(path)
    if not path.startswith((".", "~")):
        is_bank = holds_bank(str(beside)) or (path.endswith(".safetensors") and beside.is_file())
        if not is_bank:
            return name
    return f"{rule}{colon}{beside.resolve()}"


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


def sizes_of_file(path: Path) -> list[str]:
    """Return the sizes that a file has, all where it says none.

    Raises:
        BenchmarkError: no such file, no TOML, or sizes that mean nothing.
    """
    return list(_sizes(_parsed(path, str(path)), str(path)))


def size_groups(by_size: Sequence[Any]) -> list[list[Any]]:
    """Return what ``by_size`` says as lists of data sets of one size, the largest first."""
    return [group if isinstance(group, list) else [group] for group in by_size]


def _parsed(path: Traversable, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # what is no TOML or UTF-8 is a ValueError
        raise BenchmarkError(f"experiment {name} cannot be read: {' '.join(str(error).split()):.300}") from error


def _read(path: Traversable, name: str, size: str) -> dict[str, Any]:
    raw = _parsed(path, name)
    sizes = _sizes(raw, name)
    raw.pop("sizes", None)
    if size not in SIZES or size not in sizes:
        raise BenchmarkError(f"experiment {name} has no size {size!r}; it has {', '.join(sizes)}")
    merged = _merge(raw, sizes[size])
    lists = {key: [table.get(key) for table in (raw, *sizes.values())] for key in _NAMED}
    named = {key: [str(one) for found in of if isinstance(found, list) for one in found] for key, of in lists.items()}
    _check(name, merged, named)
    return merged


def _sizes(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the tables of the sizes that an experiment has, in the order of ``SIZES``."""
    sizes = raw.get("sizes", {key: {} for key in SIZES})
    _check_table(f"experiment {name}: sizes", sizes, dict.fromkeys(SIZES, dict))
    if not sizes:
        raise BenchmarkError(f"experiment {name}: sizes is empty; it may have {', '.join(SIZES)}")
    return {size: sizes[size] for size in SIZES if size in sizes}


def _check_plain(where: str, value: Any) -> None:
    """Refuse what TOML can say and a result cannot: dates, times, and numbers that are none."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_plain(f"{where}: {key}", entry)
    elif isinstance(value, list):
        for entry in value:
            _check_plain(where, entry)
    elif not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise BenchmarkError(f"{where} is {value!s:.80}, which is no text, number or truth value")


def _check(name: str, raw: Mapping[str, Any], named: Mapping[str, Sequence[str]]) -> None:
    """Refuse what cannot be an experiment before anything of it is used; values inside runs are ``run_config``'s.

    ``named``: its models and targets at any size.
    """
    where = f"experiment {name}"
    missing = [key for key in _LISTS if not raw.get(key)]
    if missing:
        raise BenchmarkError(f"{where} does not say {', '.join(missing)}")
    _check_table(where, raw, {**dict.fromkeys(_LISTS, list), **_REST})
    for key in ("targets", "models", "controls"):
        _check_list(f"{where}: {key}", raw.get(key, []), str, "text")
    _check_list(f"{where}: seeds", raw["seeds"], int, "whole number")
    _check_lrs(where, raw["lrs"])
    _check_list(
        f"{where}: by_size", [name for group in size_groups(raw.get("by_size", [])) for name in group], str, "text"
    )
    for key in ("pictures", "train"):
        _check_unsaid(f"{where}: [{key}]", raw.get(key, {}))
    for key, data in raw.get("data", {}).items():
        _check_data(f"{where}: [data.{key}]", data)
    _check_tuned_on(where, raw)
    for key, network in raw.get("networks", {}).items():
        _check_table(f"{where}: [networks.{key}]", network, {"name": str, "kwargs": dict, "initial": str})
        for name in ("num_classes", "pretrained", "checkpoint_path"):
            if name in network.get("kwargs", {}):
                raise BenchmarkError(
                    f"{where}: [networks.{key}]: kwargs has {name}, which is the data's or an arm's to say"
                )
    for number, arm in enumerate(raw["arms"], 1):
        _check_arm(where, f"arm {number}", arm, named)
    for key, known in {"layout": LAYOUTS, "evaluate": ("test", "validation"), "reference": REFERENCES}.items():
        if raw.get(key, known[0]) not in known:
            raise BenchmarkError(f"{where}: {key} is {raw[key]!r:.80}; {near(raw[key], known)}")
    _check_plain(where, raw)


def _check_data(where: str, data: Any) -> None:
    _check_table(where, data)
    if data.get("seeds") == []:
        raise BenchmarkError(f"{where}: seeds is empty; without the key it has the experiment's")
    _check_list(f"{where}: seeds", data.get("seeds", []), int, "whole number")
    if "lrs" in data:
        _check_table(where, {"lrs": data["lrs"]}, {"lrs": list})
        _check_lrs(where, data["lrs"])
    _check_table(f"{where}: train", data.get("train", {}))
    _check_unsaid(where, data)
    _check_unsaid(where, data.get("train", {}))


def _check_tuned_on(where: str, raw: Mapping[str, Any]) -> None:
    data = raw.get("data", {})
    for key, table in data.items():
        if "tuned_on" not in table:
            continue
        other, at = table["tuned_on"], f"{where}: [data.{key}]"
        if not isinstance(other, str) or other not in {*data, *raw["targets"]} - {key}:
            known = sorted({*data, *raw["targets"]} - {key})
            raise BenchmarkError(f"{at}: tuned_on is {other!r:.80}; {near(str(other), known)}")
        if "lrs" in table or "tuned_on" in data.get(other, {}):
            raise BenchmarkError(f"{at}: tuned_on takes the rates that {other} chooses, so neither may say otherwise")


def _check_lrs(where: str, lrs: list[Any]) -> None:
    if not lrs:
        raise BenchmarkError(f"{where}: lrs is empty; a run has a learning rate")
    _check_list(f"{where}: lrs", [float(lr) if type(lr) is int else lr for lr in lrs], float, "number")


def _check_arm(where: str, arm_name: str, arm: Any, named: Mapping[str, Sequence[str]]) -> None:
    _check_table(f"{where}: {arm_name}", arm)
    if not isinstance(arm.get("name"), str):
        raise BenchmarkError(f"{where}: {arm_name} has no name, or one that is no text")
    where = f"{where}: arm {arm['name']!r:.80}"
    banks = [arm.get("bank", ""), arm.get("teacher", "")]
    for key in ("inject", "train", "vary"):
        _check_table(f"{where}: {key}", arm.get(key, {}))
    for path, values in arm.get("vary", {}).items():
        if path.partition(".")[0] in ("name", *_NAMED):
            raise BenchmarkError(f"{where} varies {path!r:.80}, which is no part of what an arm does")
        if not isinstance(values, list) or not values:
            raise BenchmarkError(f"{where}: vary {path!r:.80} is {values!r:.80}, which is no list of values")
        if any(value == other for value, other in itertools.combinations(values, 2)):
            raise BenchmarkError(f"{where}: vary {path!r:.80} has a value twice: {', '.join(map(str, values)):.200}")
        banks += values if path == "bank" else []
    for bank in banks:
        if not isinstance(bank, str):
            raise BenchmarkError(f"{where} takes its filters from {bank!r:.80}, which is no text")
    for key in _NAMED:  # a name that is none would drop the arm without a word
        chosen = arm.get(key, [])
        _check_list(f"{where}: {key}", chosen, str, "text")
        unknown = [name for name in chosen if name not in named[key]]
        if unknown:
            raise BenchmarkError(
                f"{where} is for {unknown[0]!r:.80}, which is none of the {key}; {near(unknown[0], named[key])}"
            )


def _check_unsaid(where: str, table: Mapping[str, Any]) -> None:
    """Refuse what would be overruled: the experiment says it for all of its runs."""
    for key, instead in {"lr": "lrs", "evaluate": "evaluate"}.items():
        if key in table:
            raise BenchmarkError(f"{where} says {key}; say {instead} for the whole experiment instead")


def _check_table(where: str, table: Any, kinds: Mapping[str, Any] | None = None) -> None:
    """See that something is a table; with ``kinds``, with these keys only and values of these types."""
    if not isinstance(table, Mapping):
        raise BenchmarkError(f"{where} is {table!r:.80}, which is no table")
    if kinds is None:
        return
    for key, value in table.items():
        if key not in kinds:
            raise BenchmarkError(f"{where} says {key!r:.80}, which means nothing; {near(key, kinds)}")
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise BenchmarkError(f"{where}: {key} is {value!r:.80}, which is no {_called(kinds[key])}")


def _check_list(where: str, values: Any, kind: type, called: str) -> None:
    """See that something is a list of different values of a type."""
    if not isinstance(values, list):
        raise BenchmarkError(f"{where} is {values!r:.80}, which is no list")
    for value in values:
        if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
            raise BenchmarkError(f"{where} has {value!r:.80}, which is no {called}")
    if len(set(values)) < len(values):
        raise BenchmarkError(f"{where} has a value twice: {', '.join(map(str, values)):.200}")


def _called(kind: type) -> str:
    return {list: "list", dict: "table", str: "text", int: "whole number"}[kind]


def _placed(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths absolute: of data sets (targets, and what arms take filters from) and of banks."""
    data = raw.setdefault("data", {})
    for key in {*raw["targets"], *data, *_sources(raw["arms"])}:
        named = data.get(key, {}).get("name", key)
        if named != (place := place_of_data(str(named), folder)):
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
