"""Optimizer and schedule, with timm's option names and rules."""

import math

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from .config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the rate of a step counted from 0: timm's cosine, of which the linear warm-up is a part, by updates."""
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / warmup
    progress = step / (config.epochs * steps_per_epoch)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def new_optimizer(
    model: nn.Module, config: TrainConfig, before: torch.optim.Optimizer | None = None
) -> torch.optim.Optimizer:
    """Return AdamW for what of ``model`` learns, without weight decay on norms and biases.

    Args:
        model: on its device already.
        config: ``lr`` and ``weight_decay``.
        before: an optimizer whose moments are taken over, for the parameters that both have.
    """
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model, "adamw", lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    if before is not None:
        for parameter in model.parameters():
            if parameter in before.state:
                optimizer.state[parameter] = before.state[parameter]
    return optimizer
