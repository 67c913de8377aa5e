"""k-means on the sphere and medoids: lines through the origin, so that a filter and its negative are the same."""

from collections.abc import Callable

import torch
from torch import Tensor

RESTARTS = 3
_ROUNDS = 100

Centre = Callable[[Tensor], Tensor]


def kmeans(unit: Tensor, seed: int) -> Callable[[int], Tensor]:
    """Keys are the directions that explain most of their cluster: first eigenvectors of its second moments."""
    return lambda keys: _best(unit, keys, seed, _direction)


def medoids(unit: Tensor, seed: int) -> Callable[[int], Tensor]:
    """Keys are filters of the bank: of each cluster the one that explains most of it."""
    return lambda keys: _best(unit, keys, seed, _medoid)


def _best(unit: Tensor, keys: int, seed: int, centre: Centre) -> Tensor:
    """The best of a few runs from different beginnings, by the share of variance explained."""
    generator = torch.Generator().manual_seed(seed)
    runs = [_run(unit, _spread(unit, keys, generator), centre) for _ in range(RESTARTS)]
    return max(runs, key=lambda run: run[0])[1]


def _spread(unit: Tensor, keys: int, generator: torch.Generator) -> Tensor:
    """Draw filters, each with a chance in proportion to what those before leave unexplained (k-means++)."""
    left = torch.ones(len(unit), dtype=torch.float64)
    drawn = []
    for _ in range(keys):
        if not bool((left > 0).any()):  # fewer different filters than keys: all are explained
            left = torch.ones_like(left)
        steps = left.cumsum(0)
        point = torch.rand((), generator=generator, dtype=torch.float64) * steps[-1]
        one = unit[int(torch.searchsorted(steps, point, right=True).clamp(max=len(unit) - 1))]
        drawn.append(one)
        left = torch.minimum(left, (1 - (unit @ one).double().square()).clamp(min=1e-6) - 1e-6)
    return torch.stack(drawn)


def _run(unit: Tensor, keys: Tensor, centre: Centre) -> tuple[float, Tensor]:
    """Lloyd's rounds: assign each filter to its key, move each key to its cluster's centre; never gets worse."""
    best, found = -1.0, keys
    for _ in range(_ROUNDS):
        share, nearest = (unit @ keys.T).square().max(1)
        total = float(share.double().mean())
        if total <= best + 1e-7:
            break
        best, found = total, keys
        members = [unit[nearest == number] for number in range(len(keys))]
        moved = [centre(cluster) if len(cluster) else keys[number] for number, cluster in enumerate(members)]
        keys = torch.stack(moved)
    return best, found


def _direction(cluster: Tensor) -> Tensor:
    wide = cluster.double()
    axis: Tensor = torch.linalg.eigh(wide.T @ wide).eigenvectors[:, -1]
    axis = axis - axis.mean()
    axis = axis / axis.norm()
    return axis.float()


def _medoid(cluster: Tensor) -> Tensor:
    # the sum of squared cosines of y with its cluster is y' M y, M the cluster's second moments
    return cluster[int(((cluster @ (cluster.T @ cluster)) * cluster).sum(1).argmax())]
