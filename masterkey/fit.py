"""The kernel rules: filters of one kernel size made to fit another.

One convention of the centre runs through all of them: an even side k is the odd side k + 1 with its last row
or column dropped, so the centre of a side is the index k // 2, odd or even.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import PlanError
from .metadata import Kernel
from .rules import KERNEL_RULES, KernelRule

# Relative size below which a difference of float32 filter entries is rounding and not shape.
_ROUNDING = 1e-6


def fit_kernel(filters: Tensor, kernel: Kernel, rule: KernelRule) -> Tensor:
    """Make filters fit another kernel size under one of ``KERNEL_RULES``.

    Filters that have the kernel already come back as they are, the same tensor. A target (1, k) or (k, 1)
    whose side of one is longer in the source takes ``rank1_factor`` first, and the rule then fits its length.

    Args:
        filters: (n, c, kh, kw).
        kernel: target (height, width).
        rule: "crop" crops or zero-pads about the centre, which keeps the function; "resample" stretches to
            the new size, which keeps the shape; "exact" refuses any other kernel.

    Returns:
        (n, c, *kernel), in the dtype of ``filters``.

    Raises:
        PlanError: an unknown rule, or another kernel under "exact".
    """
    if rule not in KERNEL_RULES:
        raise PlanError(f"unknown kernel rule {rule!r}: expected one of {', '.join(map(repr, KERNEL_RULES))}")
    height, width = filters.shape[-2:]
    if (height, width) == kernel:
        return filters
    if rule == "exact":
        raise PlanError(
            f"the filters are {height}x{width}, the target needs {kernel[0]}x{kernel[1]}, and the kernel "
            "rule 'exact' changes no kernel: use the rule 'crop' or 'resample', select filters of exactly "
            f"{kernel[0]}x{kernel[1]}, or leave this layer out"
        )
    if (kernel[0] == 1 < height and kernel[1] > 1) or (kernel[1] == 1 < width and kernel[0] > 1):
        filters = rank1_factor(filters, kernel)
    return crop_or_pad(filters, kernel) if rule == "crop" else resample(filters, kernel)


def crop_or_pad(filters: Tensor, kernel: Kernel) -> Tensor:
    """Crop or zero-pad about the centre: the filter as a function of the offset from its centre is kept.

    Aligning the indices k // 2 is the even rule in one step: odd to even k' fits to k' + 1 and drops the last
    row or column, even to odd appends a row or column of zeros first, even to even does both.

    Args:
        filters: (n, c, kh, kw).
        kernel: target (height, width).

    Returns:
        (n, c, *kernel); the kept entries are bit-identical.
    """
    height, width = filters.shape[-2:]
    top, left = kernel[0] // 2 - height // 2, kernel[1] // 2 - width // 2
    return F.pad(filters, (left, kernel[1] - width - left, top, kernel[0] - height - top))


def stretch(filters: Tensor, kernel: Kernel) -> Tensor:
    """Linear resampling of the positions, the map W of ``resample``, with no rescaling.

    Bicubic with ``align_corners=False``, one axis at a time, antialiased along an axis that shrinks; in
    float32, deterministic on the CPU. Odd sides are stretched to odd sides, so that the centre stays one: an
    even side has its last entry repeated first, and gets the next odd side's entries without the last. An axis
    of a single entry has no shape to stretch and is zero-padded about the centre instead, so that a row stays a
    row.

    Args:
        filters: (n, c, kh, kw).
        kernel: target (height, width).

    Returns:
        (n, c, *kernel) float32; weights sum to one at each new position, so a side growing by r raises the L2
        norm of a smooth filter by about sqrt(r).
    """
    out = filters.float()
    for axis in (0, 1):
        old, new = out.shape[2 + axis], kernel[axis]
        if old == new:
            continue
        if old > 1:
            out = _stretch_odd(out, 2 + axis, new | 1)
        out = crop_or_pad(out, (new, out.shape[3]) if axis == 0 else (out.shape[2], new))
    return out


def _stretch_odd(filters: Tensor, axis: int, side: int) -> Tensor:
    """Stretch one axis to an odd side; an even one gets its last entry twice, as bicubic goes on beyond a border."""
    old = filters.shape[axis]
    if old % 2 == 0:
        filters = torch.cat([filters, filters.narrow(axis, old - 1, 1)], axis)
    if old | 1 == side:
        return filters
    size = [*filters.shape[2:]]
    size[axis - 2] = side
    # antialias only where it shrinks: torch's antialiased bicubic uses another cubic when it grows
    return F.interpolate(filters, size=size, mode="bicubic", align_corners=False, antialias=side < old)


def resample(filters: Tensor, kernel: Kernel) -> Tensor:
    """Stretch the shape of each filter to the new size and give it back its own L2 norm.

    Args:
        filters: (n, c, kh, kw); each of the n * c filters is rescaled on its own.
        kernel: target (height, width).

    Returns:
        (n, c, *kernel) in the dtype of ``filters``. A zero filter stays zero; so does, but for rounding, one
        that resampling wipes out (detail finer than the new grid), as rescaling it would blow up rounding.
    """
    if filters.shape[-2:] == kernel:
        return filters
    out = stretch(filters, kernel)
    before = torch.linalg.vector_norm(filters, dim=(-2, -1), keepdim=True, dtype=torch.float64)
    after = torch.linalg.vector_norm(out, dim=(-2, -1), keepdim=True, dtype=torch.float64)
    scale = torch.where(after > _ROUNDING * before, before / after, 1.0)
    return (out * scale).to(filters.dtype)


def rank1_factor(filters: Tensor, kernel: Kernel) -> Tensor:
    """The one-dimensional factor of each filter's best rank-1 approximation sigma u v^T (float64 SVD).

    A factor has a sign only together with the unit vector that is dropped, so that vector is oriented: its
    sum is positive; if its sum is rounding (an antisymmetric profile), its entry of largest size is
    positive, of equal sizes the one nearest to the centre, then the first. For differences of a Gaussian
    this choice is the one that the sign of the sum makes at small kernels, so the sign of a factor does not
    depend on the kernel.

    Args:
        filters: (n, c, kh, kw).
        kernel: the one-dimensional target that says which factor: (1, k) the row sigma v, (k, 1) the column
            sigma u. Its k is not used: the factor has the length of the filters' own side.

    Returns:
        (n, c, 1, kw) or (n, c, kh, 1), in the dtype of ``filters``; its L2 norm is sigma.

    Raises:
        PlanError: ``kernel`` is not one-dimensional.
    """
    if (kernel[0] == 1) == (kernel[1] == 1):
        raise PlanError(
            f"a rank-1 factor fits a kernel of 1xk or kx1, and {kernel[0]}x{kernel[1]} is neither: "
            "use crop_or_pad or resample"
        )
    left, sizes, right = torch.linalg.svd(filters.double(), full_matrices=False)
    column, row = left[..., :, :1], right[..., :1, :]
    kept, dropped = (row, column) if kernel[0] == 1 else (column, row)
    sign = _orientation(dropped.flatten(-2))
    factor: Tensor = kept * (sizes[..., 0] * sign)[..., None, None]
    return factor.to(filters.dtype)


def _orientation(vectors: Tensor) -> Tensor:
    """The sign, +1 or -1, that orients each vector (..., k) as ``rank1_factor`` states; shape (...)."""
    size, total = vectors.abs(), vectors.sum(-1)
    side = vectors.shape[-1]
    off_centre = (torch.arange(side, device=vectors.device) - side // 2).abs()
    largest = size >= size.amax(-1, keepdim=True) * (1 - _ROUNDING)
    # argmin gives the first of equals; a position further off than any other takes the rest out
    index = torch.where(largest, off_centre, side).argmin(-1, keepdim=True)
    peak = vectors.gather(-1, index).squeeze(-1)
    deciding = torch.where(total.abs() <= _ROUNDING * size.sum(-1), peak, total)
    return torch.where(deciding < 0, -1.0, 1.0).to(vectors.dtype)
