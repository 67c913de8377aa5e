"""Write a file whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import SaveError


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, creating its folder; what stood there stays until the new file is complete.

    Raises:
        SaveError: the folder or file cannot be written (permissions, a full disk); ``path`` is untouched.
    """
    write_all_atomically({path: data})


def write_all_atomically(files: Mapping[Path, bytes]) -> None:
    """Write several files, each atomically, and put none in place before all are safely on disk.

    The files are put in place in the mapping's order, so the last one can serve as the sign of completeness.

    Raises:
        SaveError: a folder or file cannot be written; no file has been touched.
    """
    staged: list[tuple[str, Path]] = []
    try:
        for path, data in files.items():
            current = path
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(21, "a folder of that name is in the way", str(path))
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
            staged.append((name, path))
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), 0o666 & ~_umask())  # mkstemp's 0600 would make a shared bank unreadable
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        while staged:
            name, current = staged[0]
            Path(name).replace(current)
            staged.pop(0)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SaveError(f"cannot write {current}: {reason}; nothing was changed") from error
    finally:
        for name, _ in staged:
            Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
