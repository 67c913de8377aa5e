"""Plain image folders: ``train/<class>/<picture>`` and ``test/<class>/<picture>``, or ``<class>/<picture>`` alone."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from ..config import BenchmarkError
from .catalogue import HubSet
from .source import (
    LAYOUTS,
    SPLITS,
    Opened,
    Pictures,
    Source,
    misspelt_parts,
    roles,
    stat_fingerprint,
    visible_files,
    what_is_in,
)

# also those that Pillow cannot read everywhere: a picture that is left out has to be named
_SUFFIXES = {
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png"),
    *(".ppm", ".tif", ".tiff", ".webp"),
}

_BROWSERS = {"thumbs.db", "desktop.ini"}

# split -> class -> pictures, in one order on every file system
Listing = dict[str, dict[str, list[Path]]]


def find_image_folder(folder: Path) -> Source | None:
    """Return the data set that ``folder`` is, or None where it is none.

    It has a ``train/`` with a folder for every class, or nothing but such folders, two or more. Other files than
    pictures, and hidden ones, are passed over; pictures may lie deeper inside a class's folder.

    Raises:
        BenchmarkError: a part for validation or test without class folders, classes beside empty folders, one class
            alone, folders of pictures that are no part, too many parts, or a link back to a folder that it lies in.
    """
    listing: Listing = {split: _classes(folder / split) for split in SPLITS if (folder / split).is_dir()}
    if not listing and (classes := _classes_of(folder)):
        listing = {"train": classes}
    if not any(listing.get("train", {}).values()):
        return None
    for split, classes in listing.items():
        if not any(classes.values()):
            raise BenchmarkError(f"{folder / split} holds {what_is_in(folder / split)}; {LAYOUTS}")
    found = {name for classes in listing.values() for name in classes}
    if len(found) == 1:
        raise BenchmarkError(
            f"{folder} has one class, {min(found)!r:.80}, so there is nothing to tell apart; {LAYOUTS}"
        )
    if (folder / "train").is_dir():
        _refuse_unknown_parts(folder, listing["train"])
    files = [path for classes in listing.values() for paths in classes.values() for path in paths]
    names = "\0".join(f"{split}/{name}" for split, classes in listing.items() for name in classes)
    fingerprint = hashlib.sha256(f"{stat_fingerprint(folder, files)}\0{names}".encode(errors="surrogateescape"))

    @contextmanager
    def open_listing(_scratch: Path) -> Iterator[Opened]:
        yield _opened(folder, listing)

    source = Source(folder.name, str(folder), fingerprint.hexdigest(), HubSet(str(folder)), open_listing)
    roles(source, listing)  # what cannot be used is said now, not by every run
    return source


def passed_over(folder: Path) -> list[str]:
    """Name, relative to ``folder``, the visible files of an image folder that are no picture of a class.

    Pictures that lie beside the class folders, and files whose names are no picture's; what file browsers leave is
    not among them.
    """
    parts = [folder / split for split in SPLITS if (folder / split).is_dir()] or [folder]
    beside = [path for place in {folder, *parts} for path in place.iterdir() if path.suffix.lower() in _SUFFIXES]
    within = [
        path
        for part in parts
        for entry in part.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
        for path in visible_files(entry, follow_links=True)
        if path.suffix.lower() not in _SUFFIXES and path.name.lower() not in _BROWSERS
    ]
    loose = [path for path in beside if path.is_file() and not path.name.startswith(".")]
    return sorted(_relative(folder, path) for path in (*loose, *within))


def _refuse_unknown_parts(folder: Path, train: Mapping[str, object]) -> None:
    """Refuse what looks like a part beside ``train/`` and would be passed over: ``Test/``, or classes of ``train/``.

    Raises:
        BenchmarkError: there is one.
    """
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith(".") or entry.name in SPLITS:
            continue
        filled = {name for name, files in _classes(entry).items() if files}
        if entry.name.lower() in SPLITS or not filled.isdisjoint(train):
            raise BenchmarkError(
                f"{folder} has {entry.name!r:.80} beside train, which looks like a part of the data set and is none: "
                f"the parts are {', '.join(SPLITS)}; rename it to one of them, or put it elsewhere"
            )


def _classes(folder: Path) -> dict[str, list[Path]]:
    return {
        entry.name: [path for path in visible_files(entry, follow_links=True) if path.suffix.lower() in _SUFFIXES]
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }


def _classes_of(folder: Path) -> dict[str, list[Path]]:
    """Return the classes beside each other, nothing if the folders are none: in a part's lie no pictures.

    Raises:
        BenchmarkError: some are, and others are empty, or one is called like a part.
    """
    found = _classes(folder)
    classes = [name for name, files in found.items() if any(path.parent == folder / name for path in files)]
    empty = [name for name, files in found.items() if not files]
    if len(classes) > 1 and empty:
        named = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
        raise BenchmarkError(f"{folder} has {len(classes)} folders of pictures, and none in {named}: fill or remove it")
    if len(classes) > 1 and (hint := misspelt_parts(folder)):
        raise BenchmarkError(f"{folder} holds {what_is_in(folder)}; {LAYOUTS}{hint}")
    return found if 1 < len(classes) == len(found) else {}


def _opened(folder: Path, listing: Listing) -> Opened:
    classes = sorted({name for split in listing.values() for name in split})
    splits = {}
    for split, found in listing.items():
        paths = [path for files in found.values() for path in files]
        labels = [classes.index(name) for name, files in found.items() for _ in files]
        splits[split] = Pictures(
            np.array(labels, dtype=np.int64), partial(_bytes, paths), partial(_name, folder, paths)
        )
    return Opened(tuple(classes), splits)


def _bytes(paths: list[Path], index: int) -> bytes:
    return paths[index].read_bytes()


def _name(folder: Path, paths: list[Path], index: int) -> str:
    return _relative(folder, paths[index])


def _relative(folder: Path, path: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return name.encode(errors="surrogateescape").decode(errors="replace")  # names need not be text
