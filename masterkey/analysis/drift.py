"""How far the coefficient distributions of filters lie apart: the drift D (eq. 4 and 5)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..errors import MasterkeyError
from ..host import on_host
from ..metadata import Kernel
from ..rules import KernelRule
from .moments import Array
from .sources import FilterSource, as_filters
from .stream import ResizedFilters
from .structure import Structure, Surveyed, kernels, measure
from .survey import survey
from .workers import workers

EPSILON = 1e-12

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Drift:
    """The drift between every two of G groups of filters.

    ``components`` (G, G, K) holds the symmetric Kullback-Leibler divergence along each component, ``explained``
    (K,) the weights, ``total`` (G, G) the weighted sum D. Both are symmetric, with zeros on the diagonal. ``counts``
    (G, K, bins), ``epsilon`` and ``renormalise`` are what they come from. Groups drawn from one distribution have a D
    above 0 as well, the more the smaller they are: ``masterkey.analysis.chance`` says how much.
    """

    kernel: Kernel
    labels: tuple[str, ...]
    components: Array
    explained: Array
    total: Array
    counts: Counts
    epsilon: float
    renormalise: bool

    def pairs(self) -> Iterator[tuple[str, str, float, Array]]:
        """Every two different groups, once each, with D and the divergence along each component."""
        for a, b in combinations(range(len(self.labels)), 2):
            yield self.labels[a], self.labels[b], float(self.total[a, b]), self.components[a, b]


@on_host()
def drift(
    structure: Structure,
    groups: Mapping[str, Sequence[int]],
    *,
    epsilon: float = EPSILON,
    renormalise: bool = True,
) -> Drift:
    """Measure the drift between groups of layers, given as indices into ``structure.layers``.

    Args:
        structure: the histograms, on ranges that all groups have in common.
        groups: label -> layers; no group may be empty.
        epsilon: the least probability of a bin.
        renormalise: divide by the sum again once ``epsilon`` is in place.

    Raises:
        MasterkeyError: no group, an empty one, or an epsilon that is no probability above 0.
    """
    check_epsilon(epsilon)
    counts = _counts(structure, groups)
    probabilities = histograms(counts, epsilon, renormalise)
    logarithms = np.log(probabilities)
    components = np.stack([divergences(mine, probabilities, logarithms) for mine in probabilities])
    total = components @ structure.explained
    return Drift(structure.kernel, tuple(groups), components, structure.explained, total, counts, epsilon, renormalise)


def _counts(structure: Structure, groups: Mapping[str, Sequence[int]]) -> Counts:
    """How many coefficients of each group of layers are in each bin: (groups, K, bins)."""
    empty = [label for label, layers in groups.items() if not len(layers)]
    if empty or not groups:
        raise MasterkeyError(f"a drift needs groups with at least one layer each; empty: {', '.join(empty) or 'all'}")
    return np.stack([structure.counts[list(layers)].sum(axis=0) for layers in groups.values()])


def divergences(p: Array, q: Array, log_q: Array) -> Array:
    """Return the symmetric Kullback-Leibler divergence (...) of distributions (..., bins), given log q too (eq. 4)."""
    # every term of the sum is positive: P and log P rise together
    divergence: Array = ((p - q) * (np.log(p) - log_q)).sum(axis=-1)
    return divergence


def histograms(counts: Counts, epsilon: float = EPSILON, renormalise: bool = True) -> Array:
    """Return counts (..., bins) as distributions, each bin at least ``epsilon``."""
    probabilities: Array = np.maximum(counts / counts.sum(axis=-1, keepdims=True), epsilon)
    return probabilities / probabilities.sum(axis=-1, keepdims=True) if renormalise else probabilities


def check_epsilon(epsilon: float) -> None:
    """Refuse what cannot be the least probability of a bin.

    Raises:
        MasterkeyError: not between 0 and 1.
    """
    if not 0 < epsilon < 1:
        raise MasterkeyError(f"epsilon is the least probability of a bin, between 0 and 1, not {epsilon:g}")


def drift_between(
    first: FilterSource,
    second: FilterSource,
    *,
    resize: int | Kernel | None = None,
    how: KernelRule = "resample",
    epsilon: float = EPSILON,
    renormalise: bool = True,
) -> dict[Kernel, Drift]:
    """Measure the drift between two banks: one figure for each kernel that both have.

    Args:
        first, second: banks, paths or names of banks, or arrays of filters.
        resize: fit all filters to this kernel first, by the rule ``how``.
        epsilon, renormalise: as for ``drift``.

    Raises:
        MasterkeyError: they have no kernel in common, and ``resize`` is not given; or that is no kernel, or one of
            more than 1,024 weights.
    """
    sources = [as_filters(first), as_filters(second)]
    labels = [source.label for source in sources]
    if labels[0] == labels[1]:
        labels = [f"{labels[0]} (first)", f"{labels[1]} (second)"]
    if resize is not None:
        sources = [ResizedFilters(source, resize, how) for source in sources]
    with workers() as pool:
        read = [Surveyed(source, sums) for source, sums in zip(sources, pool.map(survey, sources), strict=True)]
    common = [kernel for kernel in kernels(read) if all(kernel in kernels([source]) for source in read)]
    if not common:
        found = [" and ".join(f"{kh}x{kw}" for kh, kw in kernels([source])) or "none" for source in read]
        raise MasterkeyError(
            f"{labels[0]} has filters of {found[0]}, {labels[1]} of {found[1]}: drift compares filters "
            "of one kernel; resize them to one (resize=)"
        )
    result = {}
    for kernel in common:
        structure = measure(read, kernel)
        half = sum(info.kernel == kernel for info in read[0].filters.layers)
        groups = {labels[0]: range(half), labels[1]: range(half, len(structure.layers))}
        result[kernel] = drift(structure, groups, epsilon=epsilon, renormalise=renormalise)
    return result
