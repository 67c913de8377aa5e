"""The four phenotypes of coefficient distributions (001, Fig. 4), decided by stated rules on histograms.

The paper describes them; the limits are this project's. For two components of one group, in this order:

- point: in both, at least half of the coefficients lie in the two fullest neighbouring bins;
- spikes: in either, at least a tenth of the coefficients stand above their surroundings, the median of the eleven
  bins around, by more than twice that and four deviations of chance;
- sun: in both, the distribution function stays within 0.08 of the normal one of equal mean and deviation;
- symbols: everything else.
"""

from math import erf, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .moments import Array

Phenotype = Literal["sun", "spikes", "symbols", "point"]

_POINT_SHARE, _SPIKE_SHARE, _NORMAL = 0.5, 0.1, 0.08
_AROUND = 11


def phenotype(first: NDArray[np.int64], second: NDArray[np.int64]) -> Phenotype:
    """Name the phenotype of two components' histograms (bins,), each the counts of one group's filters."""
    both = (first, second)
    if all(_fullest_pair(counts) >= _POINT_SHARE for counts in both):
        return "point"
    if any(_standing_out(counts) >= _SPIKE_SHARE for counts in both):
        return "spikes"
    return "sun" if all(_from_normal(counts) <= _NORMAL for counts in both) else "symbols"


def _fullest_pair(counts: NDArray[np.int64]) -> float:
    return float((counts[:-1] + counts[1:]).max() / counts.sum())


def _standing_out(counts: NDArray[np.int64]) -> float:
    around = np.lib.stride_tricks.sliding_window_view(np.pad(counts, _AROUND // 2, mode="edge"), _AROUND)
    level = np.median(around, axis=1)
    excess = counts - 3 * level - 4 * np.sqrt(level + 1)
    return float(counts[excess > 0].sum() / counts.sum())


def _from_normal(counts: NDArray[np.int64]) -> float:
    """Kolmogorov-Smirnov distance to the normal distribution, at the bins' edges."""
    shares: Array = counts / counts.sum()
    at = np.arange(len(counts)) + 0.5
    mean = float(shares @ at)
    deviation = sqrt(float(shares @ (at - mean) ** 2) + 1e-12)
    normal = np.array([0.5 * (1 + erf((edge - mean) / deviation / sqrt(2))) for edge in at + 0.5])
    return float(np.abs(np.cumsum(shares) - normal).max())
