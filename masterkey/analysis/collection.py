"""Many banks at once: a folder of them is a collection, and ``collection.csv`` beside them says what they are.

    bank,model,family,task,dataset
    mcunet,mcunet-320kb,MCUNet,classification,imagenet-1k

``bank`` is a bank's folder, or its file without .safetensors or .onnx; the other columns may be left out or empty. What
is not said comes from the bank itself, or is "unknown". Of a network in an ONNX file all filters larger than 1x1 are
taken, depthwise, grouped and dense.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from ..bank import Bank
from ..errors import MasterkeyError
from ..format import WEIGHTS_NAME
from ..metadata import Metadata
from ..names import PathName, expanded, is_there, load_bank, parse_name
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


@dataclass(frozen=True)
class _Found:
    """A bank or file, what to call it, by ``place`` where another is called the same, and the tags given."""

    what: Bank | Path
    label: str
    place: str
    given: dict[str, str] = field(default_factory=dict)


def open_collection(names: Sequence[str | Path]) -> Collection:
    """Open banks by name or path, ONNX files, and every bank and ONNX file inside a folder that is no bank itself.

    A bank's label is its name, or that of its folder or file; of several that are called the same, the whole path.
    Files of banks are only opened here and read in ``survey``; an ONNX file is parsed to know what it holds.

    Raises:
        UnknownNameError: a name that is no bank.
        MasterkeyError: a folder without a bank, a bank that is given twice, or a collection.csv that is malformed.
    """
    collection = Collection()
    found = [each for name in names for each in _meant_by(name, collection.broken)]
    called = Counter(each.label for each in found)
    for each in found:
        _add(collection, each, each.label if called[each.label] == 1 else each.place)
    return collection


def _meant_by(name: str | Path, broken: dict[str, str]) -> list[_Found]:
    is_path, path = isinstance(parse_name(name), PathName), expanded(name)
    # a folder that is called like a built-in bank, and in which there is none, is not meant
    if is_there(str(path), folder=True) and not (path / WEIGHTS_NAME).is_file() and (is_path or _has_files(path)):
        return _in_folder(path, broken)
    if is_path and is_there(str(path)):
        label = path.stem if path.suffix.lower() in _SUFFIXES else path.name or str(name)
        return [_Found(path, label, _place_of(path))]
    bank = load_bank(name)
    return [_Found(bank, bank.name, str(name))]


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


def _in_folder(folder: Path, broken: dict[str, str]) -> list[_Found]:
    tags = _read_tags(folder / TAGS_NAME)
    files = sorted(_files_in(folder, broken))
    if not files and not broken:
        raise MasterkeyError(f"{folder} holds neither {WEIGHTS_NAME} nor any bank or ONNX file")
    found = []
    for file in files:
        inside = file.relative_to(folder)
        label = (inside.parent if file.name == WEIGHTS_NAME else inside.with_suffix("")).as_posix()
        found.append(_Found(file, label, _place_of(file), tags.get(label, {})))
    if missing := tags.keys() - {each.label for each in found}:
        raise MasterkeyError(
            f"{folder / TAGS_NAME} describes {', '.join(sorted(missing))}, but there is no such bank beside it"
        )
    return found


def _place_of(path: Path) -> str:
    return (path.parent if path.name == WEIGHTS_NAME else path).as_posix()


def _has_files(folder: Path) -> bool:
    return any(_files_in(folder, {}))


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
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise MasterkeyError(f"{path} cannot be read as CSV: {error}") from error
    columns = list(reader.fieldnames or [])
    if "bank" not in columns or not set(columns) <= {"bank", *known}:
        raise MasterkeyError(
            f"{path}: its first line must name the column bank and any of {', '.join(known)}, "
            f"found {', '.join(columns) or 'nothing'}"
        )
    if len(set(columns)) != len(columns):
        raise MasterkeyError(f"{path}: its first line names {max(columns, key=columns.count)} more than once")
    if longer := next((line for line, row in rows if row.get(None)), None):
        raise MasterkeyError(f"{path}: line {longer} has more cells than the first line; quote what holds a comma")
    if unnamed := next((line for line, row in rows if not row["bank"]), None):
        raise MasterkeyError(f"{path}: line {unnamed} names no bank")
    labels = [row["bank"] for _, row in rows]
    if len(set(labels)) != len(labels):
        raise MasterkeyError(f"{path} describes {max(labels, key=labels.count)} more than once")
    return {row["bank"]: {key: row[key] for key in known if row.get(key)} for _, row in rows}


def _add(collection: Collection, found: _Found, label: str) -> None:
    if label in collection.tags or label in collection.broken:
        raise MasterkeyError(f"the bank {label} is given twice")
    try:
        filters = _opened(found.what, label)
    except MasterkeyError as refusal:
        collection.broken[label] = str(refusal)
        return
    collection.banks.append(filters)
    collection.tags[label] = Tags(**(_known(filters.metadata) | found.given))


def _opened(what: Bank | Path, label: str) -> Filters:
    if isinstance(what, Bank):
        return BankFilters(what, label)
    is_onnx = what.suffix.lower() == ONNX_SUFFIX and what.is_file()
    return OnnxFilters(what, label) if is_onnx else FileFilters(what, label)


def _known(about: Metadata) -> dict[str, str]:
    known = {"model": about.base_model or about.name}
    return known | ({"dataset": ", ".join(about.datasets)} if about.datasets else {})
