"""Degenerate filters by name: near zero, near copies of another, or in a layer that cannot be told from chance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .quality import LayerQuality, Verdict
from .stream import Filters
from .survey import NEAR_ZERO

COPY = 0.99  # |cosine| with another filter of the layer: what is left differs by 14 % of the norm
SEARCHED = 20_000  # filters of a layer in which copies are looked for; their number grows with the square
_BLOCK = 1_000


@dataclass(frozen=True)
class Finding:
    """One degenerate filter: ``index`` within its layer, and for a near copy the first filter it resembles."""

    bank: str
    layer: str
    index: int
    kind: Verdict
    copy_of: int | None = None


def degenerate_filters(filters: Filters, layers: Sequence[LayerQuality]) -> Iterator[Finding]:
    """Yield degenerate filters in order; layers of more than 20,000 are not searched.

    Sparse: eq. 6. Low diversity: |cosine| of at least 0.99 with an earlier filter that is not near zero itself.
    Random: every other filter of a random layer.

    Raises:
        BankFormatError: a file can no longer be read.
    """
    for info, quality in zip(filters.layers, layers, strict=True):
        if info.filters > SEARCHED:
            continue
        weights = torch.cat([chunk.double() for chunk in filters.read(info.position)])
        largest = weights.abs().amax(dim=1)
        sparse = largest <= NEAR_ZERO * largest.max()
        first = _first_alike(weights, sparse)
        for index in range(len(weights)):
            kind: Verdict | None = None
            if sparse[index]:
                kind = "sparse"
            elif first[index] < index:
                kind = "low diversity"
            elif quality.verdict == "random":
                kind = "random"
            if kind:
                copy_of = int(first[index]) if kind == "low diversity" else None
                yield Finding(filters.label, info.name, index, kind, copy_of)


def _first_alike(weights: Tensor, sparse: Tensor) -> Tensor:
    """For each filter, the first that it is a near copy of: itself where there is no earlier one."""
    unit = weights / weights.norm(dim=1, keepdim=True).clamp_min(1e-300)
    unit[sparse] = 0.0
    own = torch.arange(len(weights))
    if weights.shape[1] == 1:  # a single weight has no shape that could be copied
        return own
    # argmax gives the first of equals
    first = torch.cat([((block @ unit.T).abs() >= COPY).to(torch.uint8).argmax(dim=1) for block in unit.split(_BLOCK)])
    return torch.where(sparse, own, first)
