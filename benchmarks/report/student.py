"""Means, deviations and Student's t intervals of a handful of seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

CONFIDENCE = 0.95
_ROUNDING = 1e-9  # in points: far below what one picture of the largest test part makes


@dataclass(frozen=True)
class Sample:
    """What is known of ``n`` values.

    ``deviation`` (the sample's, n - 1) and the interval of the mean, ``low`` to ``high``, are None below two values.
    Values that are all equal, but for rounding, have no interval: on a small test part seeds agree to the picture now
    and then, and an interval of no width would make that a proof.
    """

    n: int
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def beyond_two_errors(self) -> bool | None:
        """Whether the mean lies more than two standard errors, 2 sd / sqrt(n), from zero."""
        if self.mean is None or not self.deviation:
            return None
        return abs(self.mean) > 2 * self.deviation / math.sqrt(self.n)

    @property
    def sign(self) -> int | None:
        """1 if the whole interval lies above zero, -1 if below, 0 if it holds zero; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return int(self.low > 0) - int(self.high < 0)


def summarize(values: Sequence[float]) -> Sample:
    """Return mean, deviation, and the 95 % interval of the mean."""
    n = len(values)
    if n < 2:
        return Sample(n, values[0] if n else None)
    mean, deviation = fmean(values), stdev(values)
    if deviation < _ROUNDING:
        return Sample(n, mean, 0.0)
    half = t_quantile((1 + CONFIDENCE) / 2, n - 1) * deviation / math.sqrt(n)
    return Sample(n, mean, deviation, mean - half, mean + half)


def t_probability(t: float, freedom: int) -> float:
    """Return P(T <= t) of Student's t with ``freedom`` degrees of freedom.

    The finite sums of Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for i in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (i - 1) / i
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + inside) / 2


def t_quantile(probability: float, freedom: int) -> float:
    """Return the t with P(T <= t) = ``probability``, at least one half, by bisection to the last bit."""
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < probability:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_probability(middle, freedom) < probability else (low, middle)
    return high
