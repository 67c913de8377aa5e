"""What is known beforehand of the banks of trained weights: ``index.json`` beside the recipes, shipped in the wheel."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from .atomic import write_atomically
from .metadata import Kernel, Layer, canonical_json

INDEX_NAME = "index.json"


@dataclass(frozen=True)
class IndexEntry:
    """One bank: its source's layers in forward order, and what was computed when it was built.

    ``sha256`` is the hash over the bank's filters and ``revision`` the source's commit that they came from. Both
    are None until somebody built the bank and locked it: not pinned.
    """

    layers: tuple[Layer, ...]
    sha256: str | None = None
    revision: str | None = None

    def counts(self) -> dict[Kernel, int]:
        """Number of filters by kernel size, smallest kernel first."""
        counts: dict[Kernel, int] = {}
        for layer in self.layers:
            counts[layer.kernel] = counts.get(layer.kernel, 0) + layer.filters
        return dict(sorted(counts.items()))


@cache
def index() -> dict[str, IndexEntry]:
    """Return the entries by the bank's name."""
    return parse_index(_own().read_text(encoding="utf-8"))


def parse_index(text: str) -> dict[str, IndexEntry]:
    """Read an index."""
    return {name: _entry(raw) for name, raw in json.loads(text).items()}


def format_index(entries: Mapping[str, IndexEntry]) -> str:
    """Return an index in its one spelling: a bank a line, sorted by name; what nobody computed is left out."""
    lines = [f"{canonical_json(name)}:{canonical_json(_raw(entries[name]))}" for name in sorted(entries)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_index(entries: Mapping[str, IndexEntry], path: Path | None = None) -> Path:
    """Write an index, by default the package's own, and return where it is.

    Raises:
        SaveError: it cannot be written; the former one is intact.
    """
    if path is None:
        with as_file(_own()) as own:
            path = own
    write_atomically(path, format_index(entries).encode())
    index.cache_clear()
    return path


def _own() -> Traversable:
    return files("masterkey.banks").joinpath(INDEX_NAME)


def _raw(entry: IndexEntry) -> dict[str, Any]:
    layers = [
        {
            "filters": layer.filters,
            "groups": layer.groups,
            "kernel": layer.kernel,
            "name": layer.name,
            "stage": layer.stage,
            "stride": layer.stride,
        }
        for layer in entry.layers
    ]
    computed = {"sha256": entry.sha256, "revision": entry.revision}
    return {"layers": layers, **{key: value for key, value in computed.items() if value is not None}}


def _entry(raw: Mapping[str, Any]) -> IndexEntry:
    layers = tuple(
        Layer(
            name=layer["name"],
            kernel=(layer["kernel"][0], layer["kernel"][1]),
            filters=layer["filters"],
            groups=layer["groups"],
            stride=None if layer["stride"] is None else (layer["stride"][0], layer["stride"][1]),
            stage=layer["stage"],
        )
        for layer in raw["layers"]
    )
    return IndexEntry(layers, raw.get("sha256"), raw.get("revision"))
