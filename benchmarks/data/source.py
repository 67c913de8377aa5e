"""A data set before it is decoded: which pictures there are, which class each is of, and how to read one."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import BenchmarkError
from .catalogue import HubSet

LAYOUTS = (
    "expected a folder of pictures for every class, beside each other or in train/ and test/ (or validation/), or a "
    "data set as it lies on the Hub (parquet files with an image and a label column)"
)

SPLITS = ("train", "validation", "valid", "val", "test")  # the folders' names
_NAMED = 3  # classes, in a message


@dataclass(frozen=True)
class Pictures:
    """One split, still encoded.

    ``labels`` is int64 (n,), -1 where there is none; ``read(i)`` gives a file's bytes, ``name(i)`` says which it is.
    """

    labels: np.ndarray
    read: Callable[[int], bytes]
    name: Callable[[int], str]


@dataclass(frozen=True)
class Opened:
    """A data set that can be read from."""

    classes: tuple[str, ...]
    splits: dict[str, Pictures]


@dataclass(frozen=True)
class Source:
    """A data set that was found, and not yet read.

    ``fingerprint`` changes when the pictures do: on the Hub it is the revision, of a folder its place and every file's
    path, size and time of last change (not its content, so that looking twice costs nothing). ``open`` may use the
    folder it is given until it is left. ``wanted`` says what the catalogue knows about the set.
    """

    name: str
    place: str
    fingerprint: str
    wanted: HubSet
    open: Callable[[Path], AbstractContextManager[Opened]]


@dataclass(frozen=True)
class Roles:
    """Which split is used for what; None stands for a share of ``train`` that is set aside, class by class."""

    train: str
    validation: str | None
    test: str | None


def roles(source: Source, splits: Iterable[str]) -> Roles:
    """Say which of ``splits`` is used for what.

    The split ``test`` is for the test; where there is none, ``validation`` is, as in ImageNet and Food 101; where there
    is ``train`` alone, a share of it.

    Raises:
        BenchmarkError: nothing to learn from, or more than one part for validation.
    """
    found = list(splits)
    train, test = source.wanted.train, source.wanted.test
    if train is None or test is None:
        held_out = [name for name in SPLITS[1:] if name in found]
        if found == ["train"]:
            return Roles("train", None, None)
        if "train" not in found or not held_out:
            raise BenchmarkError(f"{source.place} holds the splits {', '.join(found) or 'none'}; {LAYOUTS}")
        several = [name for name in held_out if name != "test"]
        if len(several) > 1:  # without a test part one of them would be it, and which is not said
            raise BenchmarkError(f"{source.place} has more than one validation split: {', '.join(several)}; keep one")
        train, test = ("train", *held_out[:-1]), held_out[-1]
    absent = [name for name in (*train, test) if name not in found]
    if absent:
        raise BenchmarkError(f"{source.place} has no split {' or '.join(absent)}; it has {', '.join(found)}")
    return Roles(train[0], train[1] if len(train) == 2 else None, test)


def check_taught(place: str, classes: Mapping[int, str], labels: np.ndarray) -> None:
    """See that every class, by its number, is among the labels of what is learnt from.

    Raises:
        BenchmarkError: some are not.
    """
    missing = [classes[number] for number in np.setdiff1d(list(classes), labels)]
    if missing:
        named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
        raise BenchmarkError(
            f"{place}: {len(missing)} of {len(classes)} classes have no picture in train, so they cannot be learnt: "
            f"{named}"
        )


def stat_fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """Return a hash of the paths, sizes and times of ``files``, and of where the folder lies.

    An archive gives files of two folders the same times, and pictures of like shape have the same sizes.

    Raises:
        BenchmarkError: one of them is not there.
    """
    digest = hashlib.sha256(f"{folder.resolve()}\0".encode(errors="surrogateescape"))
    for path in files:
        try:
            stat = path.stat()
        except OSError as error:  # a link to nothing, as other tools leave where their files are elsewhere
            raise BenchmarkError(f"{path} cannot be read ({error.strerror}); bring it back or remove it") from error
        line = f"{path.relative_to(folder).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def visible_files(folder: Path, follow_links: bool = False) -> Iterator[Path]:
    """Yield every file below ``folder`` but the hidden ones, in one order on every file system.

    Raises:
        BenchmarkError: links are followed, and one leads back to a folder on the way to it, so there is no end; or a
            folder cannot be read.
    """
    # of each folder that is still to be looked into, the real places of those on the way to it and its own
    ways = {folder: _way((Path(os.path.realpath(folder.parent)),), folder)} if follow_links else {}
    for root, folders, files in os.walk(folder, followlinks=follow_links, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if follow_links:
            way = ways.pop(Path(root))
            ways |= {path: _way(way, path) for path in (Path(root, name) for name in folders)}
        yield from (Path(root, name) for name in sorted(files) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    """Refuse a folder that cannot be read: its pictures would be missing without a word."""
    raise BenchmarkError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _way(way: tuple[Path, ...], folder: Path) -> tuple[Path, ...]:
    if not folder.is_symlink():
        return (*way, way[-1] / folder.name)
    place = Path(os.path.realpath(folder))
    if any(passed.is_relative_to(place) for passed in way):
        raise BenchmarkError(f"{folder} is a link back to {place}, which it lies in: its pictures never end; remove it")
    return (*way, place)


def misspelt_parts(folder: Path) -> str:
    """Say which folders are parts but for their capitals, ``Train/`` and ``Test/``; nothing where there are none."""
    named = [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir() and entry.name.lower() in SPLITS]
    named = [name for name in named if name not in SPLITS]
    return f"; rename {' and '.join(f'{name} to {name.lower()}' for name in named)}" if named else ""


def what_is_in(folder: Path) -> str:
    """Describe a folder's content, for a message about a layout that is not understood."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = [entry.name for entry in entries if entry.is_dir()]
    suffixes = Counter(entry.suffix or entry.name for entry in entries if not entry.is_dir())
    named = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
    found = [f"{len(folders)} folders ({named})"] if folders else []
    found += [f"{count} {suffix} files" for suffix, count in suffixes.most_common(3)]
    return " and ".join(found) or "nothing"
