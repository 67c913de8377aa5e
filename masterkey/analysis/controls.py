"""Filters without structure, which show what a figure on filters is worth: white noise, and pixels shuffled."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..shapes import permuted_pixels


def noise_like(filters: Tensor, seed: int = 0) -> Tensor:
    """White noise with the L2 norm of each of the filters (n, kh, kw), however small or large it is."""
    noise = torch.randn(filters.shape, generator=torch.Generator().manual_seed(seed))
    # squares of tiny or huge weights leave the type; by a power of two every filter comes near 1, and back, exactly
    exponent = torch.frexp(filters.flatten(1).abs().amax(1)).exponent
    power = torch.ldexp(torch.ones(len(filters), dtype=torch.float64), exponent)
    near_one = (filters.double() / power[:, None, None]).to(filters.dtype)
    scaled = noise * (_norms(near_one) / _norms(noise))[:, None, None]
    return (scaled.double() * power[:, None, None]).to(filters.dtype)


def pixels_shuffled(filters: Tensor, seed: int = 0) -> Tensor:
    """The filters (n, kh, kw) with the weights of each in random places, by a draw of its own."""
    return permuted_pixels(filters.flatten(1), torch.Generator().manual_seed(seed)).view_as(filters)


CONTROLS: dict[str, Callable[[Tensor, int], Tensor]] = {"random": noise_like, "shuffled pixels": pixels_shuffled}


def _norms(filters: Tensor) -> Tensor:
    norms: Tensor = filters.flatten(1).norm(dim=1)
    return norms
