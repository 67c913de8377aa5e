"""Tables whose every number is kept in full and shown rounded, and their form as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Measure = Literal["accuracy", "difference", "deviation", "count", "seconds", "megabytes", "rate", "epochs", "load"]
Kind = Literal["text", "flag"] | Measure
Value = str | float | int | bool | None
NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Figure:
    """A number and how it is shown."""

    value: Value
    kind: Kind

    def __str__(self) -> str:
        return show(self.value, self.kind)


Sentence = Sequence[str | Figure]


@dataclass(frozen=True)
class Column:
    """A column: its ``name`` in CSV and JSON, its ``label`` for people; key columns say what a row is about."""

    name: str
    label: str
    kind: Kind = "text"
    key: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of values by column name; numbers are rounded to six decimals, far below what is shown."""

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Value], ...]

    def shown_columns(self, rows: Sequence[Mapping[str, Value]]) -> list[Column]:
        """Columns worth showing for ``rows``: a key that is the same in each of several goes without saying."""
        if len(rows) == 1:
            return list(self.columns)
        return [
            column for column in self.columns if not column.key or len({row[column.name] for row in rows}) != 1
        ] or list(self.columns)

    def to_csv(self, experiment: str, size: str) -> list[list[str]]:
        """Return long lines: experiment, size, the keys, the name of a measure and its value (empty if missing)."""
        keys = [column.name for column in self.columns if column.key]
        return [
            [experiment, size, *(plain(row[key]) for key in keys), column.name, plain(row[column.name])]
            for row in self.rows
            for column in self.columns
            if not column.key
        ]

    def csv_header(self) -> list[str]:
        """The header of :meth:`to_csv`."""
        return ["experiment", "size", *(column.name for column in self.columns if column.key), "measure", "value"]


def make_table(name: str, title: str, note: str, columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> Table:
    """Return a table of rows given in the order of ``columns``."""
    named = [
        {
            column.name: round(value, 6) if isinstance(value, float) else value
            for column, value in zip(columns, row, strict=True)
        }
        for row in rows
    ]
    return Table(name, title, note, tuple(columns), tuple(named))


def write_csv(lines: Sequence[Sequence[str]]) -> bytes:
    """Return lines as CSV (RFC 4180, but with line feeds)."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def plain(value: Value) -> str:
    """Return a value in full, as in CSV; what is missing is empty."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def show(value: Value, kind: Kind) -> str:
    """Return a value as people read it: accuracies and differences to a tenth, with a true minus sign."""
    if value is None or isinstance(value, str):
        return value or NONE
    if kind == "flag":
        return "yes" if value else "no"
    if kind == "difference":
        return f"{value:+.1f}".replace("-", MINUS) if abs(round(value, 1)) > 0 else "0.0"
    if kind in ("accuracy", "deviation", "epochs", "load"):
        return f"{value:.0f}" if kind == "epochs" else f"{value:.1f}"
    if kind == "rate":
        return f"{value:g}"
    if kind == "seconds" and value < 100:
        return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
    return f"{value:,.0f}"
