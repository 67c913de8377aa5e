"""Filters of one kernel out of many banks as one bank in memory: all of them, or a seeded sample of stated size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..bank import Bank
from ..errors import MasterkeyError
from ..metadata import Kernel, Layer, Metadata, Source
from .stream import LayerInfo
from .structure import Surveyed

MOST = 10_000  # families take 0.3 ms a filter of 7x7, and the real ones have two controls


@dataclass(frozen=True)
class Drawn:
    """Filters of one kernel.

    Attributes:
        bank: one layer (n, 1, kh, kw) for each source layer of which a filter was drawn, in order, named by a number.
        layers: these source layers.
        index: (n,) int64, the number of each filter within its source layer.
        of: how many filters there are in all layers of this kernel.
        seed: of the draw.
    """

    bank: Bank
    layers: tuple[LayerInfo, ...]
    index: torch.Tensor
    of: int
    seed: int

    @property
    def sentence(self) -> str:
        """What was taken, for people."""
        kernel = f"{self.layers[0].kernel[0]}x{self.layers[0].kernel[1]}"
        if len(self.bank) == self.of:
            return f"All {self.of:,} filters of {kernel} are taken."
        return f"{len(self.bank):,} of {self.of:,} filters of {kernel} are taken, drawn at random (seed {self.seed})."


def draw(read: Sequence[Surveyed], kernel: Kernel, most: int = MOST, seed: int = 0) -> Drawn:
    """Take all filters (kh, kw) of ``kernel`` if there are at most ``most``, else that many, each equally likely.

    Files are read once more, a chunk at a time; what is not drawn is not kept.

    Raises:
        MasterkeyError: there is no such filter.
        BankFormatError: a file can no longer be read.
    """
    found = [(of.filters, layer.info) for of in read for layer in of.sums if layer.info.kernel == kernel]
    total = sum(info.filters for _, info in found)
    if not total:
        raise MasterkeyError(f"no layer has the kernel {kernel[0]}x{kernel[1]}")
    everything = total <= most
    numbers = (
        np.arange(total)
        if everything
        else np.sort(np.random.default_rng(seed).choice(total, most, replace=False, shuffle=False))
    )
    tensors: dict[str, torch.Tensor] = {}
    infos: list[LayerInfo] = []
    places = []
    start = 0
    for filters, info in found:
        parts = []
        wanted = _between(numbers, start, start + info.filters)
        start += info.filters
        if not len(wanted):
            continue
        begin = 0
        for chunk in filters.read(info.position):
            parts.append(chunk[torch.from_numpy(_between(wanted, begin, begin + len(chunk)))])
            begin += len(chunk)
        tensors[str(len(infos))] = torch.cat(parts).view(-1, 1, *kernel)
        infos.append(info)
        places.append(torch.from_numpy(wanted))
    layers = tuple(Layer(name, kernel, len(tensor)) for name, tensor in tensors.items())
    about = Metadata("drawn", "depthwise", Source("drawn", f"seed {seed}"), layers, "forward")
    return Drawn(Bank(tensors, about), tuple(infos), torch.cat(places), total, seed)


def _between(numbers: NDArray[np.int64], first: int, end: int) -> NDArray[np.int64]:
    """The numbers from ``first`` to below ``end``, counted from ``first``; ``numbers`` are sorted."""
    low, high = np.searchsorted(numbers, (first, end))
    return numbers[low:high] - first
