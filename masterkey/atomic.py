"""Write files whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from .errors import SaveError


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, creating its folder; what stood there stays until the new file is complete.

    A link stays one, and the file that it leads to is written.

    Raises:
        SaveError: the folder or file cannot be written (permissions, a full disk, a device or pipe in its place);
            ``path`` is untouched.
    """
    write_all_atomically({path: data})


def write_all_atomically(files: Mapping[Path, bytes | Iterable[bytes]]) -> None:
    """Write several files, each atomically, and put none in place before all are safely on disk.

    What is too large for memory can be given as parts. The files are put in place in the mapping's order, so the last
    one can serve as the sign of completeness.

    Raises:
        SaveError: a folder or file cannot be written; every file and folder is as it was before.
    """
    made: list[Path] = []
    staged: dict[Path, Path] = {}
    current = Path()
    try:
        for named, data in files.items():
            current = named
            path = _followed(named)
            _make_folders(path.parent, made)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder of that name is in the way")
            if path.exists() and not path.is_file():
                raise FileExistsError(errno.EEXIST, "it is a device or a pipe, which would be replaced by a file")
            staged[path] = _beside(path, "partial")
            with staged[path].open("xb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                file.flush()
                os.fsync(file.fileno())
        _put_in_place(staged)
    except BaseException as error:
        # what cannot be removed was never made, or the first error says why
        for leftover in staged.values():
            with suppress(OSError, ValueError):
                leftover.unlink()
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        if not isinstance(error, OSError | ValueError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error  # ValueError: a NUL
        where = str(getattr(error, "filename2", None) or current)
        raise SaveError(f"cannot write {where!r:.300}: {reason}; nothing was changed") from error


def _followed(path: Path) -> Path:
    """Return the file that a link leads to, there or not."""
    if not path.is_symlink():
        return path
    with suppress(RuntimeError):  # so Python says it of a loop up to 3.12; later ones stop somewhere in it
        end = path.resolve()
        if not end.is_symlink():
            return end
    raise OSError(errno.ELOOP, "a link leads to itself", str(path))


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Create a folder and its parents, and note in ``made`` each one that was not there."""
    for part in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
        part.mkdir(exist_ok=True)
        made.append(part)


def _put_in_place(staged: Mapping[Path, Path]) -> None:
    """Move every staged file to its place; if one cannot be moved, put back what the others replaced."""
    previous: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path in list(staged)[:-1]:  # once the last is in place, nothing is left that could fail
            if path.exists():
                previous[path] = _beside(path, "previous")
                _keep(path, previous[path])
        for path, partial in staged.items():
            partial.replace(path)
            placed.append(path)
    except BaseException:
        for path in placed:
            previous[path].replace(path) if path in previous else path.unlink()
        raise
    finally:
        for kept in previous.values():
            kept.unlink(missing_ok=True)


def _keep(path: Path, kept: Path) -> None:
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links, or a file of somebody else
        shutil.copy2(path, kept)


def _beside(path: Path, suffix: str) -> Path:
    """Return a new hidden name in the same folder: only within a file system is a move one step."""
    return path.with_name(f".{path.name}.{token_hex(4)}.{suffix}")
