"""Decoded pictures on disk, memory-mapped: made once, whole or not at all."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from secrets import token_hex

import numpy as np
from filelock import FileLock, Timeout

from ..config import BenchmarkError
from .rows import PictureArray, PictureRows

CACHE_VARIABLE = "MASTERKEY_CACHE"

_VERSION = 1
_META, _IMAGES, _LABELS, _ROWS, _LAYOUT = "meta.json", "images.u8", "labels.i64", "rows.i64", "layout.json"
_READ_AT_ONCE = 256  # pictures


@dataclass(frozen=True)
class Layout:
    """What a data set consists of: class names, and how many pictures a split has."""

    classes: tuple[str, ...]
    splits: dict[str, int]


@dataclass(frozen=True, eq=False)
class Entry:
    """A decoded split, or a selection of one or several: uint8 (n, s, s, 3), memory-mapped, and int64 (n,).

    ``sha256`` is over the bytes of both, wherever they lie. ``skipped`` holds name and reason of each picture of the
    split's ``total`` that could not be decoded and is not in here.
    """

    images: PictureArray
    labels: np.ndarray
    sha256: str
    total: int
    skipped: tuple[tuple[str, str], ...]


@dataclass
class Writer:
    """Writes an entry picture by picture; ``skipped`` is the caller's to fill."""

    folder: Path
    size: int
    skipped: list[tuple[str, str]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._file = (self.folder / _IMAGES).open("xb")
        self._digest = hashlib.sha256()

    def append(self, image: np.ndarray, label: int) -> None:
        """Add one picture, uint8 (size, size, 3)."""
        data = np.ascontiguousarray(image).tobytes()
        self._file.write(data)  # not through a mapping, where a full disk ends the process with a signal
        self._digest.update(data)
        self.labels.append(label)

    def finish(self, meta: dict[str, object]) -> None:
        """Write labels and description; everything is on disk when this returns."""
        labels = np.array(self.labels, dtype="<i8").tobytes()
        self._digest.update(labels)
        found = {"count": len(self.labels), "size": self.size, "skipped": self.skipped}
        text = json.dumps({**meta, **found, "sha256": self._digest.hexdigest()}, indent=1)
        _to_disk(self._file)
        _write_all(self.folder, {_LABELS: labels, _META: text.encode()})

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Store:
    """The decoded pictures of one source, in a folder of their own under the cache folder."""

    def __init__(self, cache: Path, name: str, fingerprint: str) -> None:
        safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)[-40:]
        self.folder = cache / f"{safe}-{fingerprint[:16]}"
        self._identity = {"version": _VERSION, "fingerprint": fingerprint}

    def layout(self) -> Layout | None:
        """Return what the source consists of, or None where nobody has looked yet."""
        try:
            raw = json.loads((self.folder / _LAYOUT).read_bytes())
            return Layout(tuple(raw["classes"]), dict(raw["splits"])) if self._is_ours(raw) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_layout(self, layout: Layout) -> None:
        """Record what the source consists of."""
        with self._building(_LAYOUT) as partial:
            raw = {**self._identity, "classes": layout.classes, "splits": layout.splits}
            partial.write_text(json.dumps(raw, indent=1), encoding="ascii")

    def entry(self, key: str) -> Entry | None:
        """Return an entry, or None where there is none, or one that is not what its description says."""
        folder = self.folder / key
        try:
            meta = json.loads((folder / _META).read_bytes())
            count, size = int(meta["count"]), int(meta["size"])
            pictures = {_ROWS: count * 8} if "of" in meta else {_IMAGES: count * size * size * 3}
            sizes = {**pictures, _LABELS: count * 8}
            whole = all((folder / name).stat().st_size == expected for name, expected in sizes.items())
            if not (whole and self._is_ours(meta) and meta["key"] == key):
                return None
            images: PictureArray | None
            if "of" in meta:
                images = self._rows(str(meta["of"]), str(meta["of_sha256"]), _numbers(folder / _ROWS))
            else:
                images = np.memmap(folder / _IMAGES, dtype=np.uint8, mode="r", shape=(count, size, size, 3))
            if images is None:
                return None
            skipped = tuple((str(name), str(reason)) for name, reason in meta["skipped"])
            return Entry(images, _numbers(folder / _LABELS), str(meta["sha256"]), int(meta["total"]), skipped)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _rows(self, of: str, sha256: str, rows: np.ndarray) -> PictureRows | None:
        """Return rows of another entry, None where it is not the one that they were chosen from."""
        whole = self.entry(of)
        if whole is None or whole.sha256 != sha256 or not isinstance(whole.images, np.ndarray):
            return None
        fits = not len(rows) or (rows.min() >= 0 and rows.max() < len(whole.images))
        return PictureRows(whole.images, rows) if fits else None

    def select(self, key: str, of: str, rows: np.ndarray, labels: np.ndarray) -> None:
        """Make an entry of some rows of a decoded split, int64 (n,), without a copy of them; lock before.

        Raises:
            BenchmarkError: the split is not there, or not whole.
            OSError: it cannot be written.
        """
        whole = self.made(of)
        digest = hashlib.sha256()
        for first in range(0, len(rows), _READ_AT_ONCE):
            digest.update(whole.images[rows[first : first + _READ_AT_ONCE]].tobytes())
        data = {_ROWS: rows.astype("<i8").tobytes(), _LABELS: labels.astype("<i8").tobytes()}
        digest.update(data[_LABELS])
        found = {"count": len(rows), "size": whole.images.shape[1], "skipped": (), "sha256": digest.hexdigest()}
        meta = {**self._identity, "key": key, "total": len(rows), "of": of, "of_sha256": whole.sha256, **found}
        with self._building(key) as partial:
            partial.mkdir()
            _write_all(partial, {**data, _META: json.dumps(meta, indent=1).encode()})

    def made(self, key: str) -> Entry:
        """Return an entry that was just written.

        Raises:
            BenchmarkError: it is not there, or not whole.
        """
        entry = self.entry(key)
        if entry is None:
            raise BenchmarkError(f"{self.folder / key} was changed while it was made; nothing else may write in there")
        return entry

    @contextmanager
    def writing(self, key: str, size: int, total: int) -> Iterator[Writer]:
        """Give a writer for an entry, which is in place when the block ends and was never there if it fails.

        Raises:
            OSError: it cannot be written.
        """
        with self._building(key) as partial:
            partial.mkdir()
            writer = Writer(partial, size)
            try:
                yield writer
                writer.finish({**self._identity, "key": key, "total": total})
            finally:
                writer.close()

    @contextmanager
    def locked(self) -> Iterator[Path]:
        """Keep all other processes from building here; give a folder for scratch, which is empty and removed after.

        Raises:
            BenchmarkError: the cache folder cannot be written, or is full; what was in it is intact.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                # the lock is free, so whoever made these was killed
                for leftover in self.folder.glob(".*.partial"):
                    _remove(leftover)
                scratch = self.folder / f".{token_hex(4)}.partial"
                scratch.mkdir()
                try:
                    yield scratch
                finally:
                    _remove(scratch)
        except (OSError, NotImplementedError) as error:  # the second: a file system without locks
            reason = getattr(error, "strerror", None) or error
            raise BenchmarkError(
                f"the decoded pictures cannot be written under {self.folder}: {reason}; nothing half "
                f"is left. Free space there, or name another folder in ${CACHE_VARIABLE}"
            ) from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that decodes into {self.folder}", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _building(self, name: str) -> Iterator[Path]:
        target, partial = self.folder / name, self.folder / f".{name}.{token_hex(4)}.partial"
        try:
            yield partial
            _remove(target)  # only ever one that did not pass its check
            partial.rename(target)
        finally:
            _remove(partial)

    def _is_ours(self, raw: dict[str, object]) -> bool:
        return all(raw[key] == value for key, value in self._identity.items())


def cache_folder() -> Path:
    """Return ``$MASTERKEY_CACHE``, or ``~/.cache/masterkey/bench``."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/masterkey/bench").expanduser()


def _numbers(path: Path) -> np.ndarray:
    return np.fromfile(path, dtype="<i8").astype(np.int64, copy=False)


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write new files; they, and their names, are on disk when this returns."""
    for name, data in files.items():
        with (folder / name).open("xb") as file:
            file.write(data)
            _to_disk(file)
    _folder_to_disk(folder)


def _to_disk(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    """Put the names of its files on disk."""
    held = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot do that of a folder
            os.fsync(held)
    finally:
        os.close(held)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
