"""From a description to the pictures and labels that a network learns from and is judged on."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from masterkey.metadata import canonical_json

from ..config import BenchmarkError, DataConfig, problem_of_data
from .decode import decode_all
from .hub import find_source
from .rows import PictureArray
from .source import Opened, Roles, Source, check_taught, roles
from .splits import carve, limit, set_test_aside
from .store import Entry, Layout, Store, cache_folder
from .views import classes_in_view

_NAMED = 10  # pictures, in a message


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures and labels: ``images`` is uint8 (n, s, s, 3), RGB, memory-mapped, read-only; ``labels`` int64 (n,)."""

    images: PictureArray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Data:
    """A data set ready for use; s is ``config.learnt_size`` in ``train`` and ``config.judged_size`` in ``evaluate``.

    ``sha256`` is over all pixels, labels and class names: equal where the same was learnt and judged, whatever the
    data set's name, and different where another version of Pillow decodes differently. ``skipped`` names what could not
    be decoded, and so is in neither part.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    evaluate: Part
    pixels: int
    sha256: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Selection:
    """Rows of one or more splits laid end to end, with the labels they get."""

    splits: tuple[str, ...]
    rows: np.ndarray
    labels: np.ndarray

    def take(self, chosen: np.ndarray) -> "_Selection":
        return _Selection(self.splits, self.rows[chosen], self.labels[chosen])


def load_data(config: DataConfig, cache_dir: Path | None = None, *, skip_corrupt: bool = False) -> Data:
    """Return the pictures of a data set, decoded when it is first used and memory-mapped ever after.

    ``config.evaluate == "test"`` judges on the split ``test``, or ``validation`` where that is the set's test part
    (ImageNet, Food 101), and learns from all others: train, and the official validation split of a set with three
    (Flowers 102 and 17). ``"validation"`` never judges on the test part: it judges on the official validation split
    where there are three, and else on a share of train. Of a set with no test part, a fifth of each class is one, the
    same whatever the experiment's seeds are.

    Args:
        config: which pictures, at which size.
        cache_dir: where decoded pictures are kept; by default ``$MASTERKEY_CACHE`` or ``~/.cache/masterkey/bench``.
            It can be removed at any time. A part of a split is kept as its rows, one of several splits as a copy.
        skip_corrupt: leave out, and say so, what cannot be decoded.

    Raises:
        BenchmarkError: an unknown name, a wrong layout, a picture without label or that cannot be decoded, a class
            without pictures in train, a description that makes no sense, or a cache folder that cannot be written.
    """
    if problem := problem_of_data(config):
        raise BenchmarkError(problem)
    source = find_source(config.name, config.columns)
    store = Store(cache_dir or cache_folder(), source.name, source.fingerprint)
    layout, part_of, entries = _decoded(source, store, config.judged_size, partial(_needed, config.evaluate))
    _report_corrupt(source.place, entries, skip_corrupt)
    train, evaluate = _parts(config, part_of, entries)
    classes = layout.classes
    if config.view:
        kept = classes_in_view(classes, config.view)
        train, evaluate = _only_classes(train, kept, len(classes)), _only_classes(evaluate, kept, len(classes))
        classes = tuple(classes[number] for number in kept)
    if config.per_class:
        train, evaluate = (_limited(part, config.per_class, config.split_seed) for part in (train, evaluate))
    _check_parts(source, classes, train, evaluate)
    judged = _materialised(store, evaluate, entries)
    learnt = _materialised(store, train, _at_learnt_size(config, source, store, entries, train.splits))
    sha256 = hashlib.sha256(canonical_json([list(classes), learnt.sha256, judged.sha256]).encode()).hexdigest()
    train_part, evaluate_part = (Part(entry.images, entry.labels) for entry in (learnt, judged))
    skipped = tuple(name for entry in entries.values() for name, _ in entry.skipped)
    return Data(config.name, classes, train_part, evaluate_part, config.pixels, sha256, skipped)


def _at_learnt_size(
    config: DataConfig, source: Source, store: Store, entries: dict[str, Entry], splits: tuple[str, ...]
) -> dict[str, Entry]:
    """Return the splits that are learnt from at their own size; what is judged on stays as it is."""
    if config.learnt_size == config.judged_size:
        return entries
    _, _, found = _decoded(source, store, config.learnt_size, lambda _: splits)
    for split, entry in found.items():
        if not np.array_equal(entry.labels, entries[split].labels):
            raise BenchmarkError(
                f"{source.place}, split {split}: not the same pictures could be decoded at {config.learnt_size} and at "
                f"{config.judged_size} pixels; remove {store.folder} and begin again"
            )
    return found


def _decoded(
    source: Source, store: Store, size: int, needed: Callable[[Roles], Sequence[str]]
) -> tuple[Layout, Roles, dict[str, Entry]]:
    """Return the layout, the roles, and the splits that are needed; the source is only opened for what is missing."""
    layout = store.layout()
    if layout is not None:
        part_of = _roles(source, layout)
        found = {split: store.entry(f"{split}-{size}") for split in needed(part_of)}
        entries = {split: entry for split, entry in found.items() if entry is not None}
        if len(entries) == len(found):
            return layout, part_of, entries
    with store.locked() as scratch, source.open(scratch) as opened:
        layout = Layout(opened.classes, {split: len(pictures.labels) for split, pictures in opened.splits.items()})
        part_of = _roles(source, layout)
        if store.layout() != layout:
            store.write_layout(layout)
        entries = {split: _decode_split(source, store, opened, split, size) for split in needed(part_of)}
    return layout, part_of, entries


def _roles(source: Source, layout: Layout) -> Roles:
    found = roles(source, layout.splits)
    if source.wanted.size:
        learnt = sum(layout.splits[split] for split in (found.train, found.validation) if split)
        size = (len(layout.classes), learnt, layout.splits[found.test] if found.test else 0)
        if size != source.wanted.size:
            raise BenchmarkError(
                f"{source.place} is not the {source.name} expected: (classes, train, test) is {size}, not "
                f"{source.wanted.size}; to use it as it is, name it {source.wanted.repo}"
            )
    return found


def _needed(evaluate: str, part_of: Roles) -> list[str]:
    test = part_of.test if evaluate == "test" else None
    return [split for split in (part_of.train, part_of.validation, test) if split]


def _decode_split(source: Source, store: Store, opened: Opened, split: str, size: int) -> Entry:
    key, pictures = f"{split}-{size}", opened.splits[split]
    if found := store.entry(key):  # made by another process while this one waited
        return found
    unlabelled = int((~np.isin(pictures.labels, np.arange(len(opened.classes)))).sum())
    if unlabelled:
        raise BenchmarkError(
            f"{source.place}, split {split}: {unlabelled:,} of {len(pictures.labels):,} pictures have no label"
        )
    with store.writing(key, size, len(pictures.labels)) as writer:
        for index, picture in decode_all(pictures, size, f"{source.name} {split} at {size} pixels"):
            if isinstance(picture, str):
                writer.skipped.append((pictures.name(index), picture))
            else:
                writer.append(picture, int(pictures.labels[index]))
        if not writer.labels:
            first = _named(writer.skipped[:1]) if writer.skipped else "it is empty"
            raise BenchmarkError(f"{source.place}, split {split}: not one picture can be decoded; {first}")
    return store.made(key)


def _report_corrupt(place: str, entries: dict[str, Entry], skip: bool) -> None:
    """Refuse what could not be decoded, or say that it is left out, each time the data are used."""
    told = []
    for split, entry in entries.items():
        if entry.skipped:
            more = f"; and {len(entry.skipped) - _NAMED} more" if len(entry.skipped) > _NAMED else ""
            named = _named(entry.skipped[:_NAMED]) + more
            count = f"{len(entry.skipped):,} of {entry.total:,} pictures"
            told.append(f"split {split}: {count} cannot be decoded: {named}")
    if not told:
        return
    text = f"{place}, {'; '.join(told)}"
    if not skip:
        options = "--skip-corrupt, with --retry-failed for runs that failed on them"
        raise BenchmarkError(f"{text}. Repair or remove them, or leave them out: bench run {options}")
    print(f"{text}. They are left out", file=sys.stderr)


def _named(skipped: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in skipped)


def _parts(config: DataConfig, part_of: Roles, entries: dict[str, Entry]) -> tuple[_Selection, _Selection]:
    def whole(*splits: str) -> _Selection:
        labels = np.concatenate([entries[split].labels for split in splits])
        return _Selection(splits, np.arange(len(labels)), labels)

    everything = whole(part_of.train)
    if part_of.test is None:
        rows, test = set_test_aside(everything.labels)
        print(f"{config.name} has no test part: a fifth of each class is set aside, always the same", file=sys.stderr)
        if config.evaluate == "test":
            return everything.take(rows), everything.take(test)
        everything = everything.take(rows)
    elif config.evaluate == "test":
        learnt_from = (part_of.train, part_of.validation) if part_of.validation else (part_of.train,)
        return whole(*learnt_from), whole(part_of.test)
    elif part_of.validation:
        return everything, whole(part_of.validation)
    learnt, held_out = carve(everything.labels, config.validation, config.split_seed)
    single = len(np.setdiff1d(everything.labels, everything.labels[held_out]))
    if single:
        print(f"{config.name}: {single} classes have a single picture, which stays in train", file=sys.stderr)
    return everything.take(learnt), everything.take(held_out)


def _only_classes(part: _Selection, kept: list[int], classes: int) -> _Selection:
    number = np.full(classes, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    relabelled = _Selection(part.splits, part.rows, number[part.labels])
    return relabelled.take(np.flatnonzero(relabelled.labels >= 0))


def _limited(part: _Selection, per_class: int, seed: int) -> _Selection:
    return part.take(limit(part.labels, per_class, seed))


def _check_parts(source: Source, classes: tuple[str, ...], train: _Selection, evaluate: _Selection) -> None:
    check_taught(source.place, dict(enumerate(classes)), train.labels)
    if not len(evaluate.labels):
        raise BenchmarkError(f"{source.place}: there is no picture to judge on; every class has a single one")


def _materialised(store: Store, part: _Selection, entries: dict[str, Entry]) -> Entry:
    """Return a selection as an entry: a whole split is one already; anything else is made one, once."""
    first, *more = parents = [entries[split] for split in part.splits]
    if not more and len(part.rows) == len(first.labels) and np.array_equal(part.labels, first.labels):
        return first  # rows are distinct and ascending, so as many as there are, are all
    size = first.images.shape[1]
    digest = hashlib.sha256(canonical_json([parent.sha256 for parent in parents]).encode())
    digest.update(part.rows.tobytes() + part.labels.tobytes())
    key = f"part-{digest.hexdigest()[:16]}"
    if found := store.entry(key):
        return found
    with store.locked():
        if found := store.entry(key):
            return found
        if more:
            _copy(store, key, size, part, parents)
        else:
            store.select(key, f"{part.splits[0]}-{size}", part.rows, part.labels)
    return store.made(key)


def _copy(store: Store, key: str, size: int, part: _Selection, parents: Sequence[Entry]) -> None:
    ends = np.cumsum([len(parent.labels) for parent in parents])
    with store.writing(key, size, len(part.rows)) as writer:
        for row, label in zip(part.rows, part.labels, strict=True):
            which = int(np.searchsorted(ends, row, side="right"))
            inside = row - (ends[which] - len(parents[which].labels))
            writer.append(parents[which].images[inside], int(label))
