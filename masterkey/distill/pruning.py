"""Which filters to leave out before keys are sought, and why: dead, constant, random, not drawn, near duplicates."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..shapes import FilterTable, Shapes, near_dead
from ..whole import as_seed, whole_number
from .randomness import CHUNK, is_random

REASONS = ("", "dead", "constant", "random", "duplicate", "undrawn")
KEPT, DEAD, CONSTANT, RANDOM, DUPLICATE, UNDRAWN = range(len(REASONS))
_BLOCK = 2048

RandomRule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pruning:
    """What pruning decided: for every filter a number in ``REASONS``, of which 0 is "kept"."""

    verdict: Tensor

    @property
    def kept(self) -> Tensor:
        """Mask of the filters that are left."""
        return self.verdict == KEPT

    @property
    def living(self) -> Tensor:
        """Mask of the filters that have a shape: neither dead nor constant."""
        return (self.verdict != DEAD) & (self.verdict != CONSTANT)

    def counts(self) -> dict[str, int]:
        """How many filters were left out for each reason, and how many are kept; ``undrawn`` only where some are."""
        counts = torch.bincount(self.verdict, minlength=len(REASONS)).tolist()
        left_out = dict(zip(REASONS[1:], counts[1:], strict=True))
        if not left_out["undrawn"]:
            del left_out["undrawn"]
        return {**left_out, "kept": counts[KEPT]}


def prune(
    table: FilterTable,
    shapes: Shapes,
    *,
    dead: float = 0.1,
    duplicates: float = 0.99,
    sign: bool = True,
    random: RandomRule | None = is_random,
    sample: int | None = None,
    seed: int = 0,
) -> Pruning:
    """Judge every filter; a filter gets the first reason that holds, in this order.

    Args:
        table: the filters.
        shapes: the same filters taken apart.
        dead: a filter is dead whose L2 norm is zero or below ``dead`` times the median norm of its layer
            (``Bank.pruned``'s rule).
        duplicates: of filters whose shapes have a cosine above this, only the first stays; 1 keeps all.
        sign: whether a filter counts as a duplicate of its negative too.
        random: tells which of (n, kh, kw) filters are without structure; None keeps them.
        sample: of the filters that are neither dead nor constant nor random at most so many are drawn, each as likely
            as any other; the rest count as ``undrawn``, and only those drawn are compared with each other.
        seed: of the sample.

    Raises:
        MasterkeyError: a sample of no filter.
    """
    sample = None if sample is None else whole_number(sample, "a sample of filters", least=1)
    verdict = torch.full((len(table.filters),), KEPT)
    norms = torch.cat([part.double().flatten(1).norm(dim=1) for part in table.filters.split(CHUNK)])
    for number in range(len(table.names)):
        members = table.layer == number
        verdict[members.nonzero()[near_dead(norms[members], dead), 0]] = DEAD
    verdict[(verdict == KEPT) & (shapes.norm == 0)] = CONSTANT
    if random is not None:
        left = (verdict == KEPT).nonzero()[:, 0]
        verdict[left[random(table.filters[left])]] = RANDOM
    if sample is not None:
        left = (verdict == KEPT).nonzero()[:, 0]
        order = torch.randperm(len(left), generator=torch.Generator().manual_seed(as_seed(seed)))
        verdict[left[order[sample:]]] = UNDRAWN
    if duplicates < 1:
        left = (verdict == KEPT).nonzero()[:, 0]
        verdict[left[near_duplicates(shapes.unit[left], duplicates, sign)]] = DUPLICATE
    return Pruning(verdict)


def near_duplicates(unit: Tensor, threshold: float, sign: bool = True) -> Tensor:
    """Mask of the rows of ``unit`` (n, d) that have a cosine above ``threshold`` with an earlier row that stays."""
    found = torch.zeros(len(unit), dtype=torch.bool)
    leaders = unit[:0]
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        doubled = torch.zeros(len(block), dtype=torch.bool)
        for other in leaders.split(_BLOCK):
            doubled |= _above(block @ other.T, threshold, sign).any(1)
        fresh = block[~doubled]
        again = torch.zeros(len(fresh), dtype=torch.bool)
        pairs = _above(fresh @ fresh.T, threshold, sign).triu(1)
        for row in pairs.any(1).nonzero()[:, 0].tolist():
            if not again[row]:
                again |= pairs[row]
        doubled[(~doubled).nonzero()[:, 0][again]] = True
        found[start : start + len(block)] = doubled
        leaders = torch.cat((leaders, fresh[~again]))
    return found


def _above(cosines: Tensor, threshold: float, sign: bool) -> Tensor:
    return (cosines.abs() if sign else cosines) > threshold
