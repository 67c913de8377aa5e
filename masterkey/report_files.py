"""The files of a report in a folder. The page says which are its own, so that nobody else's are replaced."""

import re
from collections.abc import Iterable, Mapping
from html import escape, unescape
from pathlib import Path

from .atomic import write_all_atomically
from .errors import SaveError

PAGE_NAME = "report.html"

_HEAD = 65_536  # bytes of a page that are searched for its mark
_MARK = re.compile(r'<meta name="masterkey-files" content="([^"]*)">')


def files_mark(names: Iterable[str]) -> str:
    """Return the element of the page's head that names the files which belong to it."""
    return f'<meta name="masterkey-files" content="{escape("/".join(sorted(names)))}">'


def write_report_files(folder: Path, files: Mapping[str, bytes | Iterable[bytes]]) -> list[Path]:
    """Write a report's files, the marked page last, and remove those that only an earlier report in the folder had.

    Returns the files in the mapping's order.

    Raises:
        SaveError: the folder cannot be written, or holds files of these names that no report there has written; what
            it held before is intact.
    """
    own = _named_by(folder / PAGE_NAME)
    foreign = [name for name in files if name not in own and (folder / name).is_file()]
    if foreign:
        raise SaveError(
            f"cannot write a report into {str(folder)!r:.300}: it holds {' and '.join(foreign[:3])}"
            f"{f' and {len(foreign) - 3} more' * (len(foreign) > 3)}, which no report there has written; give a folder "
            "of its own; nothing was changed"
        )
    write_all_atomically({folder / name: data for name, data in files.items()})
    for name in own - files.keys():
        (folder / name).unlink(missing_ok=True)
    return [folder / name for name in files]


def _named_by(page: Path) -> set[str]:
    """Return the files that a page says are its report's, itself among them; of another page, none."""
    if not page.is_file():
        return set()
    try:
        with page.open("rb") as file:
            found = _MARK.search(file.read(_HEAD).decode("utf-8", "replace"))
    except OSError as error:
        raise SaveError(f"cannot read {str(page)!r:.300}, which would be replaced: {error.strerror}") from error
    # of the kinds that reports have, so that a page from elsewhere has nothing else removed
    names = unescape(found[1]).split("/") if found else []
    return {PAGE_NAME, *(name for name in names if name.endswith((".csv", ".png", ".md")))} if found else set()
