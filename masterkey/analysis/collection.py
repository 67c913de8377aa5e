"""Many banks at once: a folder of them is a collection, and ``collection.csv`` beside them says what they are.

    bank,model,family,task,dataset
    mcunet,mcunet-320kb,MCUNet,classification,imagenet-1k

``bank`` is a bank's folder, or its file without .safetensors or .onnx; the other columns may be left out or empty. What
is not said comes from the bank itself, or is "unknown". Of a network in an ONNX file all filters larger than 1x1 are
taken, depthwise, grouped and dense.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from ..errors import MasterkeyError
from ..format import WEIGHTS_NAME
from ..metadata import Metadata
from ..names import expanded, is_there, load_bank
from ..onnx_source import SUFFIX as ONNX_SUFFIX
from .onnx_filters import OnnxFilters
from .quality import DEGENERATE, LayerQuality
from .stream import BankFilters, FileFilters, Filters, LayerInfo
from .structure import Surveyed
from .survey import survey
from .workers import workers

TAGS_NAME = "collection.csv"
_SUFFIXES = (".safetensors", ONNX_SUFFIX)
Grouping = Literal["bank", "model", "family", "task", "dataset", "layer", "decile"]


@dataclass(frozen=True)
class Tags:
    """What groups a bank belongs to."""

    model: str
    family: str = "unknown"
    task: str = "unknown"
    dataset: str = "unknown"


@dataclass
class Collection:
    """Banks by label, their tags, and for every bank that could not be read the sentence that says why."""

    banks: list[Filters] = field(default_factory=list)
    tags: dict[str, Tags] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    _read: list[Surveyed] | None = field(default=None, repr=False)

    def survey(self) -> list[Surveyed]:
        """Read every bank, once and for all; those that turn out to be broken leave ``banks`` for ``broken``."""
        if self._read is None:
            self._read = self._survey()
        return self._read

    def _survey(self) -> list[Surveyed]:
        with workers() as pool:
            outcomes = list(pool.map(_read_whole, self.banks))
        for filters, outcome in zip(tuple(self.banks), outcomes, strict=True):
            if isinstance(outcome, MasterkeyError):
                self.broken[filters.label] = str(outcome)
                self.banks.remove(filters)
        return [outcome for outcome in outcomes if isinstance(outcome, Surveyed)]

    def groups(self, layers: Sequence[LayerInfo], by: Grouping) -> dict[str, list[int]]:
        """Sort layers, given in any order, into groups: label -> indices."""
        found: dict[str, list[int]] = {}
        for index, layer in enumerate(layers):
            found.setdefault(self._group(layer, by), []).append(index)
        return dict(sorted(found.items())) if by == "decile" else found

    def _group(self, layer: LayerInfo, by: Grouping) -> str:
        if by == "bank":
            return layer.bank
        if by == "layer":
            return f"{layer.bank}: {layer.name}"
        if by == "decile":
            return f"decile {layer.decile + 1:2d}"
        group: str = getattr(self.tags[layer.bank], by)
        return group


def open_collection(names: Sequence[str | Path]) -> Collection:
    """Open banks by name or path, ONNX files, and every bank and ONNX file inside a folder that is no bank itself.

    Files of banks are only opened here and read in ``survey``; an ONNX file is parsed to know what it holds.

    Raises:
        UnknownNameError: a name that is no bank.
        MasterkeyError: a folder without a bank, two banks of one label, or a collection.csv that is malformed.
    """
    collection = Collection()
    for name in names:
        path = expanded(name)
        if is_there(str(path), folder=True) and not (path / WEIGHTS_NAME).is_file():
            _open_folder(collection, path)
        elif is_there(str(path)):
            _add(collection, path, path.stem if path.suffix.lower() in _SUFFIXES else path.name or str(name), {})
        else:
            bank = load_bank(name)
            _place(collection, BankFilters(bank, bank.name), {})
    return collection


def without_degenerate(read: Sequence[Surveyed], layers: Sequence[LayerQuality]) -> list[Surveyed]:
    """Leave degenerate layers out: the ablation of the paper's limitations."""
    dropped = {(layer.bank, layer.layer) for layer in layers if layer.verdict in DEGENERATE}
    return [
        Surveyed(of.filters, [each for each in of.sums if (each.info.bank, each.info.name) not in dropped])
        for of in read
    ]


def _read_whole(filters: Filters) -> Surveyed | MasterkeyError:
    try:
        return Surveyed(filters, survey(filters))
    except MasterkeyError as refusal:
        return refusal


def _open_folder(collection: Collection, folder: Path) -> None:
    tags = _read_tags(folder / TAGS_NAME)
    files = sorted(_files_in(folder, collection.broken))
    if not files and not collection.broken:
        raise MasterkeyError(f"{folder} holds neither {WEIGHTS_NAME} nor any bank or ONNX file")
    for file in files:
        inside = file.relative_to(folder)
        label = (inside.parent if file.name == WEIGHTS_NAME else inside.with_suffix("")).as_posix()
        _add(collection, file, label, tags.pop(label, {}))
    if tags:
        raise MasterkeyError(f"{folder / TAGS_NAME} describes {', '.join(tags)}, but there is no such bank beside it")


def _files_in(folder: Path, broken: dict[str, str]) -> Iterator[Path]:
    """Every bank and ONNX file below a folder; one that may not be read is broken, and not passed over as by rglob."""

    def note(error: OSError) -> None:
        broken[str(error.filename)] = f"{error.filename} cannot be read: {error.strerror}"

    for parent, _, names in os.walk(folder, onerror=note):
        yield from (Path(parent, name) for name in names if name.lower().endswith(_SUFFIXES))


def _read_tags(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    known = [item.name for item in fields(Tags)]
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True)
        rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise MasterkeyError(f"{path} cannot be read as CSV: {error}") from error
    columns = list(reader.fieldnames or [])
    if "bank" not in columns or not set(columns) <= {"bank", *known}:
        raise MasterkeyError(
            f"{path}: its first line must name the column bank and any of {', '.join(known)}, "
            f"found {', '.join(columns) or 'nothing'}"
        )
    labels = [row["bank"] for row in rows]
    if len(set(labels)) != len(labels):
        raise MasterkeyError(f"{path} describes {max(labels, key=labels.count)} more than once")
    return {row["bank"]: {key: row[key] for key in known if row.get(key)} for row in rows}


def _add(collection: Collection, path: Path, label: str, given: dict[str, str]) -> None:
    try:
        is_onnx = path.suffix.lower() == ONNX_SUFFIX and path.is_file()
        filters = OnnxFilters(path, label) if is_onnx else FileFilters(path, label)
    except MasterkeyError as refusal:
        collection.broken[label] = str(refusal)
        return
    _place(collection, filters, given)


def _place(collection: Collection, filters: Filters, given: dict[str, str]) -> None:
    if filters.label in collection.tags:
        raise MasterkeyError(f"two banks are called {filters.label}; put them in folders of different names")
    collection.banks.append(filters)
    collection.tags[filters.label] = Tags(**(_known(filters.metadata) | given))


def _known(about: Metadata) -> dict[str, str]:
    known = {"model": about.base_model or about.name}
    return known | ({"dataset": ", ".join(about.datasets)} if about.datasets else {})
