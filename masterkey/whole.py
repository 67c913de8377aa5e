"""Whole numbers as callers have them: Python's or numpy's, within bounds."""

import operator
from typing import Any

from .errors import MasterkeyError

LARGEST = 2**63 - 1  # that every reader of a bank file can hold


def whole_number(value: Any, what: str, least: int, most: int = LARGEST) -> int:
    """Return ``value``, a whole number of any type but bool, as an int; ``what`` names it in the message.

    Raises:
        MasterkeyError: it is none, or not from ``least`` to ``most``.
    """
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        number = None if is_bool else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        given = f"{value!r:.80}" if number is None or abs(number) < 10**80 else "one of more than 80 digits"
        raise MasterkeyError(f"{what} is a whole number from {_spelt(least)} to {_spelt(most)}, not {given}")
    return number


def several(value: Any) -> list[Any]:
    """Return what can be iterated over as a list, and all else, an array of no dimension too, as a list of itself."""
    try:
        return list(value)
    except TypeError:
        return [value]


def as_seed(seed: Any) -> int:
    """Return a seed as a number that torch draws from and a bank can remember.

    Raises:
        MasterkeyError: no whole number from -2**63 + 1 to 2**63 - 1.
    """
    return whole_number(seed, "a seed", least=-LARGEST)


def _spelt(bound: int) -> str:
    return {LARGEST: "2**63 - 1", -LARGEST: "-2**63 + 1"}.get(bound, f"{bound:,}")
