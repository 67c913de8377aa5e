"""Data to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from masterkey.table import format_table

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(value: Any) -> None:
    """Print ``value`` as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    typer.echo(format_table(header, rows))


def print_facts(facts: Mapping[str, str | None]) -> None:
    """Print ``name  value`` lines, leaving out what has no value."""
    known = {name: value for name, value in facts.items() if value is not None}
    width = max(map(len, known))
    for name, value in known.items():
        typer.echo(f"{name:<{width}}  {value}")


def tell(sentence: str) -> None:
    """Say something to the person, not to the pipe."""
    typer.echo(sentence, err=True)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show what takes a while, where a person is looking; gone when it is done."""
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    with tqdm(total=0, desc=f"{what} …", bar_format="{desc} {elapsed}", leave=False, file=sys.stderr) as line:
        line.refresh()
        yield
