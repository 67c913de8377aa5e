"""The four phenotypes of coefficient distributions (001, Fig. 4), decided by stated rules on histograms.

The paper describes them by eye; the limits are this project's. For two components of one group, in this order:

- point: in both, at least half of the coefficients lie in the two fullest neighbouring bins;
- spikes: in either, at least 3 % of the coefficients are in excess of what is expected in hotspots, one or two bins
  wide, which hold more than twice that;
- sun: in both, the distribution function stays within 0.08 of the normal one of equal mean and deviation, and the
  excess kurtosis between -0.8 and 1.5, where a uniform distribution has -1.2 and a Laplace distribution 3;
- symbols: everything else.
"""

from math import erf, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .moments import Array

Phenotype = Literal["sun", "spikes", "symbols", "point"]

_POINT_SHARE, _SPIKE_SHARE, _NORMAL = 0.5, 0.03, 0.08
_FLATTEST, _MOST_PEAKED = -0.8, 1.5
_RATIO, _DEVIATIONS = 2.0, 5.0  # of a hotspot to what is expected there, and of chance
_REACH = 4


def phenotype(first: NDArray[np.int64], second: NDArray[np.int64]) -> Phenotype:
    """Name the phenotype of two components' histograms (bins,), each the counts of one group's filters."""
    both = (first, second)
    if all(_fullest_pair(counts) >= _POINT_SHARE for counts in both):
        return "point"
    if any(_in_hotspots(counts) >= _SPIKE_SHARE for counts in both):
        return "spikes"
    return "sun" if all(_is_normal(counts) for counts in both) else "symbols"


def _fullest_pair(counts: NDArray[np.int64]) -> float:
    return float((counts[:-1] + counts[1:]).max() / counts.sum())


def _in_hotspots(counts: NDArray[np.int64]) -> float:
    """Share of the coefficients in excess of what the bins two and four away, which no hotspot reaches, let expect."""
    padded = np.pad(counts.astype(np.float64), _REACH)
    left4, left2, _, right2, right4 = (padded[at : at + len(counts)] for at in range(0, 2 * _REACH + 1, 2))
    # log density as a parabola through these bins: the top of any smooth peak, however narrow the range makes it
    logarithm = (4 * (np.log1p(left2) + np.log1p(right2)) - np.log1p(left4) - np.log1p(right4)) / 6
    # beside an edge, as a uniform distribution and the range itself have, one side alone says what is expected
    expected = np.maximum.reduce([left2, right2, np.expm1(logarithm)])
    excess = counts - expected
    hot = (counts > _RATIO * expected) & (excess > _DEVIATIONS * np.sqrt(expected + 1))
    return float(excess[hot].sum() / counts.sum())


def _is_normal(counts: NDArray[np.int64]) -> bool:
    """By the Kolmogorov-Smirnov distance to a normal distribution, at the bins' edges, and the excess kurtosis."""
    shares: Array = counts / counts.sum()
    at = np.arange(len(counts)) + 0.5
    mean = float(shares @ at)
    deviation = sqrt(float(shares @ (at - mean) ** 2) + 1e-12)
    normal = np.array([0.5 * (1 + erf((edge - mean) / deviation / sqrt(2))) for edge in at + 0.5])
    kurtosis = float(shares @ ((at - mean) / deviation) ** 4) - 3
    return float(np.abs(np.cumsum(shares) - normal).max()) <= _NORMAL and _FLATTEST <= kurtosis <= _MOST_PEAKED
