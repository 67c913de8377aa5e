"""Figures of many filters as values of a table."""

import math

from torch import Tensor

from .page import Value

_DIGITS = 6


def rounded(values: Tensor) -> list[Value]:
    """Return figures (n,) to six decimals, None where there is none (NaN)."""
    return [None if math.isnan(value) else round(value, _DIGITS) for value in values.tolist()]
