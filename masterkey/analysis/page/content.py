"""What an analysis has to show: sections of tables and pictures. Page and CSV files are two forms of the same."""

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Value = str | int | float | None
Kind = Literal["text", "count", "share", "number"]
Row = Mapping[str, Value]

SHOWN = 1_000  # rows of a table on the page: a browser needs a second for ten thousand
_TOGETHER = 4_096  # rows of a CSV file that are in memory at a time


@dataclass(frozen=True)
class Column:
    """A column: its key in the rows and in the CSV file, its heading on the page, and how its values are shown."""

    key: str
    label: str
    kind: Kind = "number"


@dataclass(frozen=True)
class LazyRows(Collection[Row]):
    """Rows that are made anew each time they are gone through, so that they need not be in memory together.

    ``make`` yields them, ``count`` in all.
    """

    count: int
    make: Callable[[], Iterator[Row]]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Row]:
        return self.make()

    def __contains__(self, row: object) -> bool:
        return any(row == each for each in self)


@dataclass(frozen=True)
class Table:
    """A table; ``name`` is its CSV file's, without the suffix.

    The file has every row, the page the first 1,000 and the number of all. ``folded`` tables are shown on demand; of
    those that are not ``on_page`` the page only names the file.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Collection[Row]
    note: str = ""
    folded: bool = False
    on_page: bool = True


@dataclass(frozen=True)
class Picture:
    """A picture as PNG; ``name`` is its file's, without the suffix. ``wide`` pictures scroll instead of shrinking."""

    name: str
    alt: str
    png: bytes
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page: what it is, said in sentences, and what it shows, in order."""

    id: str
    title: str
    sentences: Sequence[str]
    content: Sequence[Table | Picture]


def plain(value: Value) -> str:
    """Return a value in full, as the CSV files and the page's data elements hold it."""
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def shown(value: Value, kind: Kind) -> str:
    """Return a value as a reader wants it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if kind == "share":
        return f"{value:.1%}"
    if kind == "count":
        return f"{value:,}"
    if value and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.2e}"
    return f"{value:.3f}"


def csv_bytes(table: Table) -> bytes:
    """Return a table as CSV, every value in full."""
    return b"".join(csv_parts(table))


def csv_parts(table: Table) -> Iterator[bytes]:
    """Yield a table as CSV, some thousand rows at a time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [column.key for column in table.columns]
    writer.writerow(keys)
    for number, row in enumerate(table.rows, 1):
        writer.writerow([plain(row[key]) for key in keys])
        if number % _TOGETHER == 0:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()
