"""Count, mean and scatter of vectors, summed over parts that never are in memory together."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# filters are single precision: what differs by its rounding has a variance of this share of the mean square at most
ROUNDING = float(np.finfo(np.float32).eps) ** 2


@dataclass(frozen=True)
class Moments:
    """Of ``count`` vectors: ``mean`` (k,), and ``scatter`` (k, k), the sum of their centred outer products."""

    count: int
    mean: Array
    scatter: Array

    @staticmethod
    def of(columns: Tensor) -> "Moments":
        """Measure vectors that stand side by side: (k, n), n at least 1."""
        wide = columns.double()
        mean = wide.mean(dim=1, keepdim=True)
        centred = wide - mean
        return Moments(wide.shape[1], mean[:, 0].numpy(), (centred @ centred.T).numpy())

    def __add__(self, other: "Moments") -> "Moments":
        """Pool two sets (Chan, Golub and LeVeque's update, which loses no digits to a large mean)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), scatter)

    def principal(self) -> tuple[Array, Array]:
        """Return explained variance ratios (k,), largest first, and the components as rows (k, k) (eq. 1 and 2).

        The entry of largest size in each component is positive, so equal filters give equal components.
        Variance that single precision's rounding accounts for is none; without any, the ratios are all zero.
        """
        values, vectors = np.linalg.eigh(self.scatter)
        components = vectors[:, ::-1].T
        largest = np.abs(components).argmax(axis=1)
        signs = np.where(components[np.arange(len(components)), largest] < 0, -1.0, 1.0)
        return _ratios(self._without_rounding(values[::-1])), components * signs[:, None]

    def entropy(self) -> float:
        """The variance entropy H (eq. 7) of the centred vectors."""
        return variance_entropy(self._without_rounding(np.linalg.eigvalsh(self.scatter)))

    def entropy_about_zero(self) -> float:
        """The same of the vectors as they are, about zero instead of about their mean."""
        return variance_entropy(np.linalg.eigvalsh(self.scatter + np.outer(self.mean, self.mean) * self.count))

    def _without_rounding(self, variances: NDArray[np.floating[Any]]) -> Array:
        """Variances (k,), with zero for those that rounding accounts for."""
        squares = float(np.trace(self.scatter)) + self.count * float(self.mean @ self.mean)
        return np.where(variances > ROUNDING * squares, variances, 0.0)


def pooled(parts: Iterable[Moments]) -> Moments:
    """Pool several sets, at least one."""
    return reduce(Moments.__add__, parts)


def variance_entropy(variances: NDArray[np.floating[Any]]) -> float:
    """Shannon entropy, base 10, of variances (k,) as shares of their sum (eq. 7); 0 where there is no variance."""
    shares = _ratios(variances)
    shares = shares[shares > 0]
    return float(-(shares * np.log10(shares)).sum()) + 0.0  # never -0.0


def _ratios(variances: NDArray[np.floating[Any]]) -> Array:
    positive: Array = np.maximum(variances, 0.0)  # rounding gives a variance of zero either sign
    total = positive.sum()
    return positive / total if total > 0 else positive
