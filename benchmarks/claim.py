"""Which process does a run, and whether it still has to be done: several sweeps may share a folder of results."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from masterkey.errors import SaveError

from .config import RunConfig
from .store import ResultStore

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def claim(store: ResultStore, run_id: str) -> Iterator[bool]:
    """Hold the run for as long as the block takes; yields False, at once, where another process holds it.

    The kernel takes back the lock of a process that dies, whatever it dies of, so no claim outlives its holder. What
    a killed holder left half written beside the run's files is removed.

    Raises:
        SaveError: the lock cannot be made (a full disk, no permission, a file system without locks).
    """
    path = store.partial_path(run_id).with_suffix(".lock")
    held = _lock(path)
    if held is None:
        yield False
        return
    try:
        _remove_leftovers(store, run_id)
        yield True
    finally:
        path.unlink(missing_ok=True)  # before the lock is let go: afterwards it may be another's
        os.close(held)


def is_claimed(store: ResultStore, run_id: str) -> bool:
    """Whether another process holds the run just now."""
    path = store.partial_path(run_id).with_suffix(".lock")
    if not path.exists():
        return False
    with claim(store, run_id) as mine:
        return not mine


def settled(store: ResultStore, config: RunConfig, retry_before: float | None) -> Literal["done", "failed"] | None:
    """Return how a run ended, None if it is to be done: with its weights, if it is one that keeps them.

    Args:
        store: the results.
        config: the run.
        retry_before: a failure that was recorded before this time (seconds since 1970) does not count.

    Raises:
        BenchmarkError: its result is there but cannot be used.
    """
    if store.read(config.id) is not None and (not config.is_source or store.is_usable(config.id)):
        return "done"
    try:
        recorded = store.failed_path(config.id).stat().st_mtime
    except FileNotFoundError:
        return None
    return None if retry_before is not None and recorded < retry_before else "failed"


def has_no_room(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that a file cannot be written: no fault of the run."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SaveError) or (isinstance(cause, OSError) and cause.errno in _NO_ROOM):
            return True
        cause = cause.__cause__ or cause.__context__  # torch's writer turns the one into the other
    return False


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None if another process does."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise SaveError(f"cannot write '{path}': {error.strerror}") from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return None
        except OSError as error:
            os.close(held)
            raise SaveError(f"cannot lock '{path}': {error.strerror}; runs need a file system with locks") from error
        if _is_at(held, path):
            return held
        os.close(held)  # its last holder removed the file between our two calls


def _is_at(held: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False


def _remove_leftovers(store: ResultStore, run_id: str) -> None:
    for path in (store.run_path(run_id), store.failed_path(run_id), store.partial_path(run_id)):
        for leftover in path.parent.glob(f"*{path.name}*.partial"):
            leftover.unlink(missing_ok=True)
    for leftover in store.kept_path(run_id).glob("*.partial"):
        leftover.unlink(missing_ok=True)
