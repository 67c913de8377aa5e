"""One run on several devices: which processes there are, and who does which share of a batch.

Start as ``torchrun --nproc-per-node N -m masterkey.benchmarks.run_one ...``; without torchrun there is one process, and
nothing here costs anything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .errors import BenchmarkError


@dataclass(frozen=True)
class Group:
    """The processes of a run, seen from one of them."""

    rank: int
    size: int
    device: torch.device

    def share(self, batch: Tensor) -> Tensor:
        """Return this process' part of a batch (B,): mirror images in the batch, so that mixing needs no others.

        Picture i is mixed with picture B - 1 - i. The parts are of like size and none is empty if B >= 2 * size.
        """
        if self.size == 1:
            return batch
        positions = torch.arange((len(batch) + 1) // 2).tensor_split(self.size)[self.rank]
        mirrored = len(batch) - 1 - positions.flip(0)
        return batch[torch.cat((positions, mirrored[mirrored > positions.max()]))]

    def sum(self, figures: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.size > 1:
            dist.all_reduce(figures)
        return figures

    def tell(self, what: object = None) -> Any:
        """Return what the first process tells; the others, whose own ``what`` does not count, wait for it."""
        told = [what]
        if self.size > 1:
            dist.broadcast_object_list(told, 0, device=self.device)
        return told[0]

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return ``model`` such that its gradients are means over the processes.

        Raises:
            BenchmarkError: it has a batch norm.
        """
        if self.size == 1:
            return model
        refuse_batch_norm(model)
        devices = [self.device] if self.device.type == "cuda" else None
        # buffers are the frozen filters, which no step changes
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def synchronize_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers: running statistics of a batch norm differ between them."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


def refuse_batch_norm(model: nn.Module) -> None:
    """Refuse what trains otherwise in several processes, under one id.

    Raises:
        BenchmarkError: a batch norm, which would see a share of the batch.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            raise BenchmarkError(
                f"{name} is a {type(module).__name__}, whose statistics are those of a whole batch: a network with "
                "batch norm trains in one process (masterkey bench run, not torchrun)"
            )


@contextmanager
def process_group(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started; ``cuda`` then is the device of this process' local rank.

    Inside another such block, the group is that block's.
    """
    chosen = torch.device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    if dist.is_initialized():
        yield Group(dist.get_rank(), size, chosen)
        return
    # they may have to wait for the first one, and it for a sweep elsewhere; that one of them has died is seen at once
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(days=1))
    try:
        yield Group(dist.get_rank(), size, chosen)
    finally:
        dist.destroy_process_group()


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the group is gone, which is no fault of the run."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
