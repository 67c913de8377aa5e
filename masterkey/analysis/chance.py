"""The level of chance of the drift D: what D two groups have once labels are dealt out anew among their filters.

D is biased upwards by small groups: two samples of one normal distribution, of n = 100 each, have a D of about 9. With
labels permuted, the smaller group is a draw without replacement out of the filters of both, so its histogram along a
component is a draw from the multivariate hypergeometric distribution of their histograms' sum. That needs no filter.
Components are drawn one by one where a permutation moves each filter along all of them at once, which leaves the mean
of D as it is, since D is a sum over components.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .drift import Counts, Drift, divergences, histograms
from .moments import Array

DRAWS = 20  # a D larger than all of them is one of twenty-one by chance
SEED = 0
_LARGEST = 10**9  # counts from which numpy draws with replacement alone


@dataclass(frozen=True)
class Chance:
    """What D is by chance between every two of G groups; (G, G) each, symmetric.

    ``mean`` and ``largest`` are those of the draws, 0 on the diagonal; ``above`` says where D exceeds every draw.
    """

    mean: Array
    largest: Array
    above: NDArray[np.bool_]


def chance(found: Drift) -> Chance:
    """Draw the level of chance of every pair of groups, twenty times each, by seed 0."""
    groups = len(found.labels)
    mean, largest = np.zeros((2, groups, groups))
    for a, b in combinations(range(groups), 2):
        drawn = drawn_by_chance(found, a, b)
        mean[a, b] = mean[b, a] = drawn.mean()
        largest[a, b] = largest[b, a] = drawn.max()
    return Chance(mean, largest, found.total > largest)


def drawn_by_chance(found: Drift, first: int, second: int, draws: int = DRAWS) -> Array:
    """Return D (draws,) between two groups, by number, with their labels permuted."""
    random = np.random.default_rng(SEED)  # a pair's figure does not depend on the other groups
    smaller, larger = sorted((found.counts[first], found.counts[second]), key=lambda counts: int(counts[0].sum()))
    together, size = smaller + larger, int(smaller[0].sum())
    one = np.stack([_permuted(random, counts, size, draws) for counts in together], axis=1)
    p, q = (histograms(counts, found.epsilon, found.renormalise) for counts in (one, together - one))
    drifts: Array = divergences(p, q, np.log(q)) @ found.explained
    return drifts


def _permuted(random: np.random.Generator, counts: Counts, size: int, draws: int) -> Counts:
    """Draw ``size`` filters out of bins' ``counts`` (bins,), not more than half of all: (draws, bins)."""
    total = int(counts.sum())
    if total < _LARGEST:
        return random.multivariate_hypergeometric(counts, size, draws, method="marginals")
    # with replacement the variance is at most twice as large, where chance is next to nothing
    return np.minimum(random.multinomial(size, counts / total, draws), counts)
