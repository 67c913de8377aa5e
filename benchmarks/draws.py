"""Random numbers without a generator: each is a hash of what it is for, so nothing else can change it.

A draw depends on the seed, the epoch, the picture and its purpose; not on the batch, the device, the order in which
pictures come or on what was drawn before. The hash is splitmix64 (Steele, Lea, Flood, OOPSLA 2014), one round a
counter, on int64 tensors that wrap round.
"""

from enum import IntEnum

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


class Purpose(IntEnum):
    """What a number of a picture decides; ``CROP``, ``ERASED_BOX`` and ``NOISE`` are the first of many."""

    ORDER = 0
    FLIP = 1
    BRIGHTNESS = 2
    CONTRAST = 3
    SATURATION = 4
    ERASE = 5
    CROP = 32
    ERASED_BOX = 64
    NOISE = 1024


def random_bits(*counters: int | Tensor) -> Tensor:
    """Return 64 random bits for each combination of counters, as int64 of the shape that these broadcast to."""
    state = torch.zeros((), dtype=torch.int64)
    for counter in counters:
        state = _mix(state + _GOLDEN + counter)
    return state


def uniform(seed: int, epoch: int, pictures: Tensor, purpose: int, count: int = 1) -> Tensor:
    """Return ``count`` numbers from [0, 1) a picture: float64 (pictures, count), for ``purpose`` and those after it.

    Args:
        seed: of the run.
        epoch: counted from 0.
        pictures: int64 (pictures,), each picture's index in its data set, on any device.
        purpose: a ``Purpose``, or a number counted from one.
        count: how many numbers.
    """
    purposes = torch.arange(purpose, purpose + count, device=pictures.device)
    bits = random_bits(seed, epoch, pictures[:, None], purposes)
    return _shift(bits, 11).to(torch.float64) * 2.0**-53


def normal(seed: int, epoch: int, pictures: Tensor, purpose: int, count: int = 1) -> Tensor:
    """Return ``count`` numbers a picture from the standard normal distribution; see :func:`uniform`."""
    middle = uniform(seed, epoch, pictures, purpose, count) + 2.0**-54  # never 0, where the quantile is infinite
    numbers: Tensor = torch.special.ndtri(middle)
    return numbers


def epoch_order(pictures: int, seed: int, epoch: int) -> Tensor:
    """Return the order of an epoch: int64 (pictures,), a permutation."""
    bits = random_bits(seed, epoch, torch.arange(pictures), Purpose.ORDER)
    return torch.argsort(bits, stable=True)


def step_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """Return the seed for what torch draws itself (dropout, drop path) in one step of one process."""
    return int(_shift(random_bits(seed, epoch, batch, rank), 1))


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * _FIRST
    state = (state ^ _shift(state, 27)) * _SECOND
    return state ^ _shift(state, 31)


def _shift(bits: Tensor, places: int) -> Tensor:
    """Shift right and fill with zeros, where ``>>`` fills with the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
