"""What the scripts share: their arguments, and the file in which a script records its figures."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masterkey.atomic import write_atomically

RESULTS = Path("benchmarks/results")


def arguments(about: str | None, output: str) -> argparse.ArgumentParser:
    """Return a parser for a script: its docstring as help, and ``-o`` for what it records.

    Args:
        about: the script's docstring.
        output: name of the file or folder under ``RESULTS``.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / output)
    return parser


def recorded(path: Path) -> dict[str, Any]:
    """Return the figures of an earlier run, from which a script goes on; none where there was none."""
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return figures


def record(path: Path, figures: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write figures as JSON, all of them or none.

    Raises:
        SaveError: the file cannot be written; what stood there stays.
    """
    write_atomically(path, (json.dumps(figures, indent=indent) + "\n").encode())
