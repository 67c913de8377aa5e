"""Candidates along the code line of an autoencoder, then greedy removal, after arXiv:2509.11711.

The paper removes the candidate whose loss costs the network least accuracy. A bank has no network: here it is the one
whose loss costs least of the share of variance explained.
"""

import torch
from torch import Tensor

from .autoencoder import CodeLine, train

CANDIDATES = 50
BEST = 10
AROUND = 5  # candidates of the second round about each of the best
MOST = 50


class GreedyKeys:
    """From K to K keys: 50 even codes, greedily down to ten, five codes around each, greedily down to K.

    Above ten keys the second round is around the best K. ``line`` is the autoencoder, ``losses`` its loss curve.
    """

    def __init__(self, unit: Tensor, line: CodeLine) -> None:
        self.losses = line.losses
        self._unit, self.line = unit, line
        self._codes = torch.linspace(0, 1, CANDIDATES)
        self._first = removal_order(self._shares(self._codes)[1])
        self._second: dict[int, tuple[Tensor, list[int]]] = {}

    def __call__(self, keys: int) -> Tensor:
        """The best ``keys`` keys, (keys, d), of 1 to 50."""
        best = max(BEST, keys)
        if best not in self._second:
            steps = (torch.arange(AROUND) - AROUND // 2) / (AROUND * (CANDIDATES - 1))
            around = (self._codes[self._first[-best:]][:, None] + steps).flatten().clamp(0, 1)
            candidates, shares = self._shares(around)
            self._second[best] = candidates, removal_order(shares)
        candidates, order = self._second[best]
        return candidates[order[-keys:]]

    def _shares(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded candidates, and what each alone explains of each filter."""
        candidates = self.line.decode(codes)
        return candidates, (self._unit @ candidates.T).square()


def keys_of(unit: Tensor, seed: int) -> GreedyKeys:
    """Train the autoencoder on shapes (n, d)."""
    return GreedyKeys(unit, train(unit, seed))


def removal_order(shares: Tensor) -> list[int]:
    """Order candidates by greedy removal, the first to go first.

    Each step removes the candidate whose loss lowers the sum over filters of the best share least.

    Args:
        shares: (filters, candidates), what each candidate alone explains of each filter.
    """
    shares = shares.clone()
    size = shares.shape[1]
    best, which = shares.topk(min(2, size), dim=1)
    left = set(range(size))
    order: list[int] = []
    while len(left) > 1:
        loss = torch.zeros(size, dtype=torch.float64)
        loss.index_add_(0, which[:, 0], (best[:, 0] - best[:, 1]).double())
        loss[order] = torch.inf
        goes = int(loss.argmin())
        order.append(goes)
        left.remove(goes)
        shares[:, goes] = -1  # below any share
        touched = (which == goes).any(1).nonzero()[:, 0]
        best[touched], which[touched] = shares[touched].topk(2, dim=1)
    return [*order, *left]
