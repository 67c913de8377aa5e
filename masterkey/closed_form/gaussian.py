"""Depthwise filters drawn from a multivariate Gaussian.

After Trockman, Willmott and Kolter (arXiv 2210.03651). Reproduced: the idea that depthwise filters are
zero-mean Gaussian vectors whose covariance widens with depth and is built at any kernel size
(``sample_smooth``), and the variant that measures the covariance on trained filters and resizes it
(``sample_measured``). Not reproduced: the paper's exact closed form and its schedule of constants over
depth, which were not at hand. The covariance below is this project's own, so its results are not the
paper's.
"""

import torch
from torch import Tensor

from ..errors import PlanError
from ..fit import rank1_factor, stretch
from ..metadata import Kernel

# Standard deviations as fractions of the (odd) side, at relative depth 0 and 1. At 7x7 the window grows from
# 1.05 to 3.15 pixels, from a spot to the whole kernel, and the correlation length from 0.7 to 2.1 pixels.
WINDOW = (0.15, 0.45)
LENGTH = (0.10, 0.30)

# A draw takes as many normals as the source has filters: this many at a time (32 MiB) bounds the memory.
_NORMALS_AT_ONCE = 2**22


def smooth_covariance(kernel: Kernel, depth: float) -> Tensor:
    """The covariance of a smooth filter in closed form, of trace one.

    Proportional to w(p) w(q) exp(-|p - q|^2 / (2 l^2)) with w(p) = exp(-|p|^2 / (2 a^2)): neighbouring
    weights are alike and weights far from the centre small. Positions p are measured from the centre in
    units of the side of each axis, and a and l grow linearly with depth from narrow and sharp to wide
    (``WINDOW``, ``LENGTH``). An even side is the side k + 1 with its last row or column dropped; 1xk and kx1
    need no rule of their own.

    Args:
        kernel: (height, width).
        depth: relative depth of the layer, 0 (first) to 1 (last).

    Returns:
        (height * width, height * width) float64, positive semi-definite, positions in row-major order.

    Raises:
        PlanError: a depth outside 0 to 1.
    """
    if not 0 <= depth <= 1:
        raise PlanError(f"expected a relative depth of 0 (first layer) to 1 (last layer), got {depth}")
    window = WINDOW[0] + depth * (WINDOW[1] - WINDOW[0])
    length = LENGTH[0] + depth * (LENGTH[1] - LENGTH[0])
    # k | 1 is the odd side that an even one is cut from
    axes = [(torch.arange(k, dtype=torch.float64) - k // 2) / (k | 1) for k in kernel]
    positions = torch.cartesian_prod(*axes)
    between = (positions[:, None] - positions).square().sum(-1)
    weights = torch.exp(-positions.square().sum(-1) / (2 * window**2))
    covariance = torch.outer(weights, weights) * torch.exp(-between / (2 * length**2))
    return covariance / covariance.trace()


def sample_smooth(n: int, kernel: Kernel, depth: float, generator: torch.Generator) -> Tensor:
    """Draw n zero-mean filters with ``smooth_covariance``; the root mean square of their L2 norms is one.

    Args:
        n: how many.
        kernel: (height, width).
        depth: relative depth of the layer, 0 (first) to 1 (last).
        generator: on the CPU; the same state gives the same filters.

    Returns:
        (n, 1, height, width) float32.

    Raises:
        PlanError: a depth outside 0 to 1.
    """
    values, vectors = torch.linalg.eigh(smooth_covariance(kernel, depth))
    # The symmetric root: Cholesky fails on a covariance this smooth (singular to rounding), and eigenvectors
    # alone carry arbitrary signs, so that another LAPACK would draw other filters from the same seed.
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    normals = torch.randn(n, len(root), dtype=torch.float64, generator=generator)
    return (normals @ root).reshape(n, 1, *kernel).float()


def sample_measured(filters: Tensor, n: int, kernel: Kernel, generator: torch.Generator) -> Tensor:
    """Draw n zero-mean filters whose second moment is that of the given filters, at any kernel size.

    Draws follow N(0, W S W^T), with S = X^T X / m the uncentred second moment of the m filters X and W the
    linear resampling of positions (``masterkey.fit.stretch``; nothing is rescaled). Each draw is a random
    combination z X / sqrt(m) of the filters, which has exactly this covariance and needs no factor of S. A
    target (1, k) or (k, 1) takes the rank-1 factor of such draws at the source's kernel, as everywhere in
    this package; those are not Gaussian.

    Args:
        filters: (m, 1, kh, kw).
        n: how many.
        kernel: (height, width) of the draws.
        generator: on the CPU; the same state gives the same filters.

    Returns:
        (n, 1, height, width) float32.
    """
    source = filters.flatten(1).double()
    step = max(1, _NORMALS_AT_ONCE // len(source))
    chunks = [
        torch.randn(min(step, n - start), len(source), dtype=torch.float64, generator=generator) @ source
        for start in range(0, n, step)
    ]
    draws = (torch.cat(chunks) / len(source) ** 0.5).reshape(n, 1, *filters.shape[-2:])
    if min(kernel) == 1 < min(filters.shape[-2:]):
        draws = rank1_factor(draws, kernel)
    return stretch(draws, kernel)
