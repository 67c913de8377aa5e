"""What an analysis has to show: sections of tables and pictures. Page and CSV files are two forms of the same."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Value = str | int | float | None
Kind = Literal["text", "count", "share", "number"]


@dataclass(frozen=True)
class Column:
    """A column: its key in the rows and in the CSV file, its heading on the page, and how its values are shown."""

    key: str
    label: str
    kind: Kind = "number"


@dataclass(frozen=True)
class Table:
    """A table; ``name`` is its CSV file's, without the suffix. ``folded`` tables are shown on demand."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Value]]
    note: str = ""
    folded: bool = False


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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows([plain(row[column.key]) for column in table.columns] for row in table.rows)
    return text.getvalue().encode()
