"""Distributions of coefficients over a sequence of checkpoints, as histograms on common ranges (001, Fig. 7)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .moments import Array
from .structure import Structure


@dataclass(frozen=True)
class Ridges:
    """How the coefficients of all filters lie along each component of a common basis, checkpoint by checkpoint.

    Attributes:
        low, high: the range of each component's coefficients over all checkpoints, (K,).
        counts: filters of each checkpoint in equal bins of that range, (T, K, bins).
    """

    low: Array
    high: Array
    counts: NDArray[np.int64]

    @property
    def centres(self) -> Array:
        """Middles of the bins, (K, bins)."""
        bins = self.counts.shape[2]
        middles: Array = self.low[:, None] + self.width[:, None] * (np.arange(bins) + 0.5)
        return middles

    @property
    def width(self) -> Array:
        """Width of a bin, (K,)."""
        width: Array = (self.high - self.low) / self.counts.shape[2]
        return width

    @property
    def shares(self) -> Array:
        """Share of a checkpoint's filters in each bin, (T, K, bins)."""
        shares: Array = self.counts / self.counts.sum(axis=2, keepdims=True)
        return shares

    @property
    def density(self) -> Array:
        """The shares over the bins' widths, (T, K, bins); 0 along a component without a range."""
        density: Array = self.shares / np.where(self.width > 0, self.width, np.inf)[:, None]
        return density

    @property
    def deviations(self) -> Array:
        """Deviation of the coefficients along each component, (T, K)."""
        mean = (self.shares * self.centres).sum(axis=2, keepdims=True)
        deviations: Array = np.sqrt((self.shares * (self.centres - mean) ** 2).sum(axis=2))
        return deviations


def ridges_of(structure: Structure, checkpoints: Sequence[Sequence[int]]) -> Ridges:
    """Return the distributions of checkpoints, each given by its layers' numbers in ``structure.layers``."""
    counts = np.stack([structure.counts[list(layers)].sum(axis=0) for layers in checkpoints])
    return Ridges(structure.low, structure.high, counts)
