"""The first reading of filters: per layer all the sums that quality and structure are computed from."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MasterkeyError
from .moments import Moments
from .stream import Filters, LayerInfo

# epsilon of eq. 6, as a share of the layer's largest |weight|; set on planted banks of seeds 5000 to 5009, where 1 %
# missed three quarters of the dead layers under noise of a tenth of the layer's size and 5 % called nothing else dead
NEAR_ZERO = 0.05


@dataclass(frozen=True)
class LayerSums:
    """Sums over one layer: moments of its filters as they are and scaled by eq. 9, and how many are near zero.

    ``near_zero`` is the share of the layer's largest |weight| that those do not exceed.
    """

    info: LayerInfo
    raw: Moments
    scaled: Moments
    sparse: int
    near_zero: float


def survey(filters: Filters, near_zero: float = NEAR_ZERO) -> list[LayerSums]:
    """Read filters once, in order, verifying them; keeps one number a filter of the layer being read.

    Raises:
        BankFormatError: they are not what their file promises.
        MasterkeyError: ``near_zero`` is no share.
    """
    if not 0 <= near_zero < 1:
        raise MasterkeyError(f"near_zero is a share of a layer's largest weight, from 0 to below 1, not {near_zero:g}")
    return [_layer_sums(info, filters.read(info.position, first=True), near_zero) for info in filters.layers]


def as_columns(chunk: Tensor) -> tuple[Tensor, Tensor]:
    """Return filters (n, k) as columns (k, n), and each one's largest |weight| (n,)."""
    columns = chunk.T.contiguous()
    return columns, columns.abs().amax(dim=0)


def scaled_columns(chunk: Tensor) -> Tensor:
    """Return filters (n, k) as columns (k, n), each divided by its largest |weight| unless that is zero (eq. 9)."""
    return scale(*as_columns(chunk))


def scale(columns: Tensor, largest: Tensor) -> Tensor:
    """Divide each column by its largest |weight| unless that is zero (eq. 9)."""
    return columns / torch.where(largest > 0, largest, 1.0)


def _layer_sums(info: LayerInfo, chunks: Iterable[Tensor], near_zero: float) -> LayerSums:
    raw: Moments | None = None
    scaled: Moments | None = None
    sizes = []
    for columns, largest in map(as_columns, chunks):
        of_raw, of_scaled = Moments.of(columns), Moments.of(scale(columns, largest))
        raw = of_raw if raw is None else raw + of_raw
        scaled = of_scaled if scaled is None else scaled + of_scaled
        sizes.append(largest)
    assert raw is not None and scaled is not None  # no layer of a bank is empty
    return LayerSums(info, raw, scaled, int(is_near_zero(torch.cat(sizes), near_zero).sum()), near_zero)


def is_near_zero(largest: Tensor, share: float) -> Tensor:
    """Say of each filter of a layer, by its largest |weight|, whether that is at most ``share`` of the layer's."""
    return largest <= share * float(largest.max())  # in float32, in which a filter at the very limit is near zero
