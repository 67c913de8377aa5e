"""A filter's shape: its weights less their mean, at unit norm. What is left is a size and an offset."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import MasterkeyError
from .metadata import Kernel

ROUNDING = 1e-6  # a float32 filter whose weights differ by less than this, relative to them, is constant


class Shapes(NamedTuple):
    """Filters y taken apart into ``y = norm * unit + mean``.

    ``unit`` (n, kh * kw) float32 has rows of mean 0 and L2 norm 1, or 0 for a constant filter; ``norm`` and ``mean``
    are (n,) float64.
    """

    unit: Tensor
    norm: Tensor
    mean: Tensor


def shapes_of(filters: Tensor) -> Shapes:
    """Take filters (n, ...) apart; computed in double precision, so that near-dead filters keep their shape."""
    wide = filters.detach().flatten(1).double()
    mean = wide.mean(1)
    centred = wide - mean[:, None]
    norm = centred.norm(dim=1)
    norm = torch.where(norm > ROUNDING * wide.norm(dim=1), norm, 0.0)
    unit = torch.where(norm[:, None] > 0, centred / torch.where(norm > 0, norm, 1.0)[:, None], 0.0)
    return Shapes(unit.float(), norm, mean)


def permuted_pixels(filters: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the weights of each filter (..., pixels) by a draw of its own: the same weights, no structure."""
    order = torch.rand(filters.shape, generator=generator).argsort(dim=-1)
    return filters.gather(-1, order)


def near_dead(norms: Tensor, below: float) -> Tensor:
    """Tell which filters of one layer, by their L2 norms (n,), are zero or under ``below`` times the median norm."""
    return (norms == 0) | (norms < below * norms.quantile(0.5))


@dataclass(frozen=True)
class FilterTable:
    """All spatial slices of some layers in one tensor.

    ``filters`` (n, kh, kw); ``layer`` (n,) is the number of each one's layer in ``names``, ``index`` (n,) its number
    inside the layer (out * channels + in, where a filter has several channels).
    """

    filters: Tensor
    layer: Tensor
    index: Tensor
    names: tuple[str, ...]


def filter_table(layers: Mapping[str, Tensor], where: str) -> FilterTable:
    """Put layers (n, c, kh, kw) of one kernel size into one table.

    Raises:
        MasterkeyError: layers of several kernel sizes, or of 1x1, which have no shape.
    """
    kernels: dict[Kernel, None] = {(tensor.shape[2], tensor.shape[3]): None for tensor in layers.values()}
    sizes = [f"{kh}x{kw}" for kh, kw in sorted(kernels)]
    if len(sizes) != 1:
        raise MasterkeyError(
            f"{where} holds filters of {', '.join(sizes) or 'no size'}, and this works on one kernel size at a time; "
            "choose one, as select(kernel=7) or --kernel 7 do"
        )
    if sizes == ["1x1"]:
        raise MasterkeyError(f"{where} holds 1x1 filters, which have no shape")
    parts = [tensor.detach().flatten(0, 1) for tensor in layers.values()]
    return FilterTable(
        filters=torch.cat(parts),
        layer=torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts])),
        index=torch.cat([torch.arange(len(part)) for part in parts]),
        names=tuple(layers),
    )
