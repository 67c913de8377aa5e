"""Whole numbers as callers have them: Python's or numpy's, within bounds."""

import operator
from typing import Any

from .errors import MasterkeyError

LARGEST = 2**63 - 1  # that a bank file and the metadata of many readers can hold


def whole_number(value: Any, what: str, least: int, most: int = LARGEST) -> int:
    """Return ``value``, a whole number of any type but bool, as an int; ``what`` names it in the message.

    Raises:
        MasterkeyError: it is none, or not from ``least`` to ``most``.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise MasterkeyError(f"{what} is a whole number from {_spelt(least)} to {_spelt(most)}, not {value!r:.80}")
    return number


def as_seed(seed: Any) -> int:
    """Return a seed as a number that torch draws from and a bank can remember.

    Raises:
        MasterkeyError: no whole number from -2**63 + 1 to 2**63 - 1.
    """
    return whole_number(seed, "a seed", least=-LARGEST)


def _spelt(bound: int) -> str:
    return {LARGEST: "2**63 - 1", -LARGEST: "-2**63 + 1"}.get(bound, f"{bound:,}")
