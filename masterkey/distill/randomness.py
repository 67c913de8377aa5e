"""Which filters are without structure: no more spatial order than their own weights in a random place."""

import torch
from torch import Tensor

SMALLEST = 5  # a kernel with a shorter side has too few neighbours for a verdict
THRESHOLD = 2.0
FEWEST = 4.0
CHUNK = 8192  # filters at a time, which bounds the memory that double precision takes


def spatial_order(planes: Tensor) -> Tensor:
    """Moran's I of each plane between side-by-side neighbours, in deviations from a random arrangement.

    Mean and variance of I are those over all arrangements of the plane's own values (Cliff and Ord, 1981), so a
    plane whose values lie at random gives about a standard normal number whatever their histogram is.

    Args:
        planes: (n, kh, kw) with at least four values each.

    Returns:
        (n,) float64; 0 for a constant plane.
    """
    planes = planes.double() - planes.double().mean((1, 2), keepdim=True)
    kh, kw = planes.shape[1:]
    n = kh * kw
    neighbours = torch.zeros(kh, kw, dtype=torch.float64)
    neighbours[1:] += 1
    neighbours[:-1] += 1
    neighbours[:, 1:] += 1
    neighbours[:, :-1] += 1
    s0 = float(neighbours.sum())
    s1, s2 = 2 * s0, 4 * float((neighbours**2).sum())
    second, fourth = (planes**2).mean((1, 2)), (planes**4).mean((1, 2))
    flat = second == 0
    second = torch.where(flat, 1.0, second)
    products = (planes[:, 1:] * planes[:, :-1]).sum((1, 2)) + (planes[:, :, 1:] * planes[:, :, :-1]).sum((1, 2))
    order = 2 * products / (s0 * second)
    expected = -1 / (n - 1)
    peaked = fourth / second**2
    free = n * ((n * n - 3 * n + 3) * s1 - n * s2 + 3 * s0**2)
    bound = peaked * ((n * n - n) * s1 - 2 * n * s2 + 6 * s0**2)
    variance = (free - bound) / ((n - 1) * (n - 2) * (n - 3) * s0**2) - expected**2
    return torch.where(flat, 0.0, (order - expected) / variance.clamp(min=1e-12).sqrt())


def is_random(filters: Tensor) -> Tensor:
    """Tell which filters (n, kh, kw) are without structure, as a mask (n,).

    Such a filter meets all three conditions: its weights have no spatial order (``spatial_order`` within +-2), nor
    have their squares (edges and lines gather energy even where signs alternate), and its energy is spread over more
    than four weights (a delta has no order either). About 91 % of white noise meets them at 7x7. Kernels with a side
    below 5 are too small for a verdict: none of their filters is called random.
    """
    if min(filters.shape[1:]) < SMALLEST:
        return torch.zeros(len(filters), dtype=torch.bool)
    return torch.cat([_is_random(part) for part in filters.split(CHUNK)])


def _is_random(filters: Tensor) -> Tensor:
    centred = filters.double() - filters.double().mean((1, 2), keepdim=True)
    centred = centred / centred.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    energy = centred**2
    spread = energy.sum((1, 2)) ** 2 / (energy**2).sum((1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
    disorder = (spatial_order(centred).abs() < THRESHOLD) & (spatial_order(energy).abs() < THRESHOLD)
    return disorder & (spread > FEWEST)
