"""Loss, accuracy and mistakes of a network on pictures it does not learn from."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .augment import center_crop
from .bfloat16 import products
from .config import TrainConfig
from .distributed import Group
from .feed import Feed


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, top-1 accuracy in percent, and (picture, the class it was taken for) of every mistake, by picture."""

    loss: float
    top1: float
    mistakes: tuple[tuple[int, int], ...]


@torch.inference_mode()
def evaluate(
    network: nn.Module, images: Feed, labels: Tensor, pixels: int, config: TrainConfig, group: Group
) -> Evaluation:
    """Judge a network, which is left in evaluation mode.

    Args:
        network: gives (B, classes); every process evaluates its part with the first process' buffers.
        images: n pictures for the group's device.
        labels: int64 (n,) on it.
        pixels: side of the centre that the network sees.
        config: ``batch_size``, ``amp`` and ``channels_last``.
        group: the processes.
    """
    network.eval()
    group.synchronize_buffers(network)
    start, stop = (len(labels) * rank // group.size for rank in (group.rank, group.rank + 1))
    loss = torch.zeros((), dtype=torch.float64, device=group.device)
    answers = torch.zeros_like(labels)  # of the other processes' pictures 0, until all are added
    for first in range(start, stop, config.batch_size):
        last = min(first + config.batch_size, stop)
        with products(config.amp, group.device), autocast(config, group.device):
            pictures = center_crop(images.part(first, last), pixels)
            logits = network(pictures.contiguous(memory_format=memory_format(config)))
        loss += F.cross_entropy(logits.float(), labels[first:last], reduction="sum")
        answers[first:last] = logits.argmax(1)
    answers = group.sum(answers)
    wrong = (answers != labels).nonzero()[:, 0]
    mistakes = tuple(zip(wrong.tolist(), answers[wrong].tolist(), strict=True))
    count = len(labels)
    return Evaluation(float(group.sum(loss)) / count, 100 * (count - len(mistakes)) / count, mistakes)


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """Return the context in which the network runs: bfloat16 where ``amp`` is on."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.amp)


def memory_format(config: TrainConfig) -> torch.memory_format:
    """Return the layout of weights and pictures."""
    return torch.channels_last if config.channels_last else torch.contiguous_format
