"""Near copies among the filters of a layer, found without comparing every two of them."""

import torch
from torch import Tensor

COPY = 0.99  # |cosine| with another filter of the layer: what is left differs by 14 % of the norm
_REACH = (2 - 2 * COPY) ** 0.5 + 1e-4  # how far apart near copies of unit norm can lie; the rest is rounding
_LEAF = 256  # filters that are compared with all that can reach them
_TOGETHER = 16_384  # filters whose distances are in memory at a time


def first_alike(unit: Tensor) -> Tensor:
    """For each filter, the first that it is a near copy of: |cosine| of at least 0.99; itself where none is earlier.

    The filters are split in two at the middle of their widest axis, again and again, and only those that lie within
    reach of a part's box are compared with that part. Near copies cannot be missed, and random 3x3 filters take time
    that grows about as n^1.4.

    Args:
        unit: filters (n, k) of unit norm, float64; one that is all zeros is a copy of none.

    Returns:
        (n,) int64.
    """
    first = torch.arange(len(unit))
    alive = unit.any(dim=1).nonzero()[:, 0]
    if unit.shape[1] == 1 or len(alive) < 2:  # a single weight has no shape that could be copied
        return first
    # along principal axes the parts differ most
    at = unit @ torch.linalg.eigh(unit.T @ unit)[1]
    # what is asked for are rows and their negatives: number q stands for row q % n, turned if q is n or more
    parts = [(alive, torch.cat([alive, alive + len(unit)]))]
    while parts:
        targets, asked = parts.pop()
        places = at[targets]
        low, high = places.amin(dim=0), places.amax(dim=0)
        asked = torch.cat([part[_within(_rows(at, part), low, high)] for part in asked.split(_TOGETHER)])
        width, axis = (high - low).max(dim=0)
        left = places[:, axis] <= places[:, axis].median()
        # narrower than that, nearly all that reach one half reach the other
        if len(targets) > _LEAF and width > 2 * _REACH and not left.all():
            parts += [(targets[left], asked), (targets[~left], asked)]
        else:
            _compare(at, targets.sort().values, asked, first)
    return first


def _rows(at: Tensor, asked: Tensor) -> Tensor:
    signs = torch.where(asked < len(at), 1.0, -1.0)[:, None]
    turned: Tensor = at[asked % len(at)] * signs.to(at)
    return turned


def _within(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Mask of the rows within reach of a box."""
    reached: Tensor = (rows - rows.clamp(low, high)).square().sum(dim=1) <= _REACH**2
    return reached


def _compare(at: Tensor, targets: Tensor, asked: Tensor, first: Tensor) -> None:
    """Lower ``first`` to the first of ``targets``, in ascending order, that each row asked for resembles."""
    for part in asked.split(_TOGETHER):
        for block in targets.split(_LEAF):
            # among many alike most rows have found their first in the first block
            part = part[first[part % len(at)] > block[0]]
            if not len(part):
                break
            alike = _rows(at, part) @ at[block].T >= COPY
            found = alike.any(dim=1)
            # argmax gives the first of equals
            earliest = block[alike[found].to(torch.uint8).argmax(dim=1)]
            first.scatter_reduce_(0, part[found] % len(at), earliest, "amin")
