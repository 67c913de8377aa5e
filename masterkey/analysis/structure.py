"""The structure of filters: principal components of the scaled filters, and how their coefficients are distributed.

Filters are scaled by their largest absolute weight (eq. 9). Basis, explained variance and the range of every
component come from all filters of a comparison pooled (eq. 1 and 2); each layer then has one histogram of
coefficients a component, on those common ranges. Any grouping of the layers is a sum of such histograms.

Three readings of the filters, none of which keeps them: sums (``survey``), ranges, histograms.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import MasterkeyError
from ..host import on_host
from ..metadata import Kernel
from .moments import Array, pooled
from .sources import FilterSource, as_filters
from .stream import Filters, LayerInfo
from .survey import LayerSums, scaled_columns, survey
from .workers import workers

BINS = 70


@dataclass(frozen=True)
class Structure:
    """What all filters of one kernel have in common, and how each layer's are distributed.

    For K = kh*kw weights: ``mean`` (K,), ``components`` (K, K) as rows, ``explained`` (K,) variance ratios,
    ``low`` and ``high`` (K,) the range of each component's coefficients, ``counts`` (layers, K, bins).
    """

    kernel: Kernel
    layers: tuple[LayerInfo, ...]
    mean: Array
    components: Array
    explained: Array
    low: Array
    high: Array
    counts: NDArray[np.int64]

    def coefficients(self, filters: Tensor) -> Array:
        """Return the coefficients (n, K) of filters (n, kh, kw) in this basis (eq. 3), after scaling them."""
        columns = scaled_columns(filters.flatten(1).float()).double().numpy()
        coefficients: Array = (self.components @ (columns - self.mean[:, None])).T
        return coefficients


@dataclass(frozen=True)
class Surveyed:
    """Filters that have been read once, with their sums."""

    filters: Filters
    sums: Sequence[LayerSums]


@on_host()
def survey_all(sources: Iterable[FilterSource]) -> list[Surveyed]:
    """Read each source once.

    Raises:
        MasterkeyError: two of them have one label, or one is not what its file promises.
    """
    opened = [as_filters(source) for source in sources]
    labels = [filters.label for filters in opened]
    if len(set(labels)) != len(labels):
        raise MasterkeyError(f"two banks of the name {max(labels, key=labels.count)}; give one of them another label")
    with workers() as pool:
        return [Surveyed(filters, sums) for filters, sums in zip(opened, pool.map(survey, opened), strict=True)]


def kernels(read: Iterable[Surveyed]) -> list[Kernel]:
    """Return the spatial kernels that occur, smallest first."""
    return sorted({layer.info.kernel for source in read for layer in source.sums if layer.info.kernel != (1, 1)})


@on_host()
def measure(read: Sequence[Surveyed], kernel: Kernel, bins: int = BINS) -> Structure:
    """Measure the structure of all layers of ``kernel``, pooled; reads them twice more.

    Raises:
        MasterkeyError: there is no such layer.
        BankFormatError: a file can no longer be read.
    """
    chosen = [(source.filters, layer) for source in read for layer in source.sums if layer.info.kernel == kernel]
    if not chosen:
        raise MasterkeyError(f"no layer has the kernel {kernel[0]}x{kernel[1]}")
    everything = pooled(layer.scaled for _, layer in chosen)
    explained, components = everything.principal()
    # single precision in the inner loop: rounding moves a coefficient by a millionth of a bin
    basis, shift = torch.from_numpy(components).float(), torch.from_numpy(components @ everything.mean).float()
    # every layer has its place beforehand: small results kept one by one between chunks would pin the memory of these
    lows, highs = torch.full((2, len(chosen), len(basis)), torch.inf)
    highs.neg_()
    counts = np.zeros((len(chosen), len(basis), bins), dtype=np.int64)
    with workers() as pool:
        list(pool.map(lambda of, low, high: _range(of[0], of[1], basis, shift, low, high), chosen, lows, highs))
        low, high = lows.amin(dim=0), highs.amax(dim=0)
        list(pool.map(lambda of, found: _count(of[0], of[1], basis, shift, low, high, found), chosen, counts))
    return Structure(
        kernel=kernel,
        layers=tuple(layer.info for _, layer in chosen),
        mean=everything.mean,
        components=components,
        explained=explained,
        low=low.double().numpy(),
        high=high.double().numpy(),
        counts=counts,
    )


def _project(chunk: Tensor, basis: Tensor, shift: Tensor) -> Tensor:
    return torch.addmm(-shift[:, None], basis, scaled_columns(chunk))


def _range(filters: Filters, layer: LayerSums, basis: Tensor, shift: Tensor, low: Tensor, high: Tensor) -> None:
    """Widen ``low`` and ``high`` (K,) in place to the coefficients of a layer."""
    for chunk in filters.read(layer.info.position):
        found = torch.aminmax(_project(chunk, basis, shift), dim=1)
        torch.minimum(low, found.min, out=low)
        torch.maximum(high, found.max, out=high)


def _count(
    filters: Filters,
    layer: LayerSums,
    basis: Tensor,
    shift: Tensor,
    low: Tensor,
    high: Tensor,
    counts: NDArray[np.int64],
) -> None:
    """Add the coefficients of a layer to its ``counts`` (K, bins) in place."""
    bins = counts.shape[1]
    width = torch.where(high > low, (high - low) / bins, 1.0)[:, None]
    # whole numbers below 2**24 are exact in single precision, so component and bin add up there
    first = torch.arange(len(basis), dtype=torch.float32)[:, None] * bins
    for chunk in filters.read(layer.info.position):
        at = _project(chunk, basis, shift).sub_(low[:, None]).div_(width).floor_().clamp_(0, bins - 1).add_(first)
        counts += np.bincount(at.to(torch.int32).flatten().numpy(), minlength=counts.size).reshape(counts.shape)
