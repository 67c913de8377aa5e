"""T_H(n): the variance entropy above which a layer of n filters cannot be told from random numbers (eq. 8).

The constants of 3x3 are the paper's; those of 5x5 and 7x7 were fitted here the same way, to the least entropy of
many layers drawn from a standard normal distribution (``python -m masterkey.benchmarks.scripts.thresholds``, which
records them with their error in ``benchmarks/results/thresholds.json``).

Any other kernel takes the constants of the fitted kernel whose number of weights K is nearest (as a ratio), moved:
x0 by log2(K / its K), b by log10(K / its K). The spectrum of random filters depends on n / K, and its entropy is
log10(K) less a loss that depends on n / K, so the curve only shifts.
"""

from math import exp, log, log2, log10
from typing import NamedTuple

from ..metadata import Kernel


class Sigmoid(NamedTuple):
    """The constants of eq. 8: height L, middle x0 and steepness k over log2(n), base b."""

    height: float
    middle: float
    steepness: float
    base: float

    def at(self, n: float) -> float:
        """The threshold for a layer of ``n`` filters."""
        return self.height / (1 + exp(-self.steepness * (log2(n) - self.middle))) + self.base


FITTED: dict[int, Sigmoid] = {
    9: Sigmoid(1.26, 2.30, 0.89, -0.31),
    25: Sigmoid(1.4839, 2.7865, 0.8072, -0.0999),
    49: Sigmoid(1.4686, 3.5448, 0.7836, 0.2139),
}


def constants(kernel: Kernel) -> Sigmoid:
    """Return the constants for a kernel of more than one weight, by the rule above."""
    area = kernel[0] * kernel[1]
    nearest = min(FITTED, key=lambda fitted: abs(log(area / fitted)))
    fitted = FITTED[nearest]
    return fitted._replace(middle=fitted.middle + log2(area / nearest), base=fitted.base + log10(area / nearest))


def randomness_threshold(n: int, kernel: Kernel) -> float:
    """Return T_H(n) for a layer of ``n`` filters of ``kernel``."""
    return constants(kernel).at(n)
