"""Where a run's pictures are while it is trained: on the device if they fit, else on the host, by the batch."""

import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from .config import BenchmarkError
from .data.rows import PictureArray, PictureRows
from .memory import is_out_of_memory

# of the memory that is free on a GPU, the most that pictures may take; the network needs the rest
SHARE_FOR_PICTURES = 0.5


@dataclass(frozen=True, eq=False)
class Feed:
    """Pictures, uint8 (n, s, s, 3), that come to ``device`` by the batch: the same bytes from wherever they are.

    A CPU's are never copied whole: a memory-mapped array stays one, and so do some rows of it, ``chosen``.
    """

    images: Tensor
    device: torch.device
    resident: bool
    chosen: Tensor | None = None

    @classmethod
    def of(cls, images: PictureArray, device: torch.device, *, resident: bool) -> Self:
        """Put the pictures on the device if they are to be ``resident`` there.

        Raises:
            BenchmarkError: there is no room for them.
        """
        if isinstance(images, PictureRows) and not (resident and device.type == "cuda"):
            return cls(_host(images.pictures), device, resident, _host(images.rows))
        whole = np.asarray(images)
        return cls(to_device(whole, device) if resident else _host(whole), device, resident)

    def take(self, rows: Tensor) -> Tensor:
        """Return the pictures (B, s, s, 3) of some rows, int64 (B,) on the host."""
        if self.chosen is not None:
            rows = self.chosen[rows]
        if self.resident:
            return self.images.index_select(0, rows.to(self.device, non_blocking=True))
        # the copy from pinned memory goes on while the host gathers the next batch
        pinned = self.device.type == "cuda"
        batch = torch.empty((len(rows), *self.images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        torch.index_select(self.images, 0, rows, out=batch)
        return batch.to(self.device, non_blocking=True)

    def part(self, start: int, stop: int) -> Tensor:
        """Return the pictures from row ``start`` to before ``stop``."""
        if self.resident and self.chosen is None:
            return self.images[start:stop]
        return self.take(torch.arange(start, stop))


def fit(device: torch.device, *arrays: PictureArray) -> bool:
    """Whether all these arrays may be put on a device: on a GPU, if they take no more than their share of it."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept of a run before
    return sum(array.nbytes for array in arrays) <= SHARE_FOR_PICTURES * free


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array on a device; on the CPU it is not copied.

    Raises:
        BenchmarkError: there is no room for it.
    """
    try:
        return _host(array).to(device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise BenchmarkError(
            f"out of memory on {device}, which had no room for {array.nbytes / 2**20:,.0f} MiB of pictures or labels: "
            "wait until others leave it, or use fewer pixels; a smaller batch_size does not help"
        ) from error


def _host(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it here
        return torch.from_numpy(array)
