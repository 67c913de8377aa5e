"""Take the noise out of a layer of filters: what stands above it in the layer's spectrum is kept, the rest shrunk."""

import math

import torch
from torch import Tensor

_QUADRATURE = 20_000  # points of the Marchenko-Pastur distribution; its median is then right to five digits


def denoise(filters: Tensor) -> tuple[Tensor, int]:
    """Shrink the singular values of a layer as is best for a low-rank matrix in white noise of unknown strength.

    A short training leaves much of the initial weights in the filters, and those are white noise: in the layer as a
    matrix of one filter a row, they lift every singular value, while what was learnt is in a few. The strength of the
    noise is read from the median singular value against the Marchenko-Pastur distribution's (Gavish and Donoho, "The
    Optimal Hard Threshold for Singular Values is 4/sqrt(3)", IEEE Trans. Inf. Theory 60(8), 2014, section III.E),
    and the values are shrunk for the least mean square error (Gavish and Donoho, "Optimal Shrinkage of Singular
    Values", IEEE Trans. Inf. Theory 63(4), 2017, eq. 7). It supposes that more than half of the directions hold noise
    alone: filters of a long training, or small kernels, lose part of what was learnt.

    Args:
        filters: (n, channels, kh, kw), float.

    Returns:
        Filters of the same shape and dtype, and the number of directions kept (0: the layer is noise, all zeros).
    """
    matrix = filters.flatten(1).double()
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    short, long = sorted(matrix.shape)
    beta = short / long
    scale = float(values.quantile(0.5)) / math.sqrt(_marchenko_pastur_median(beta))  # noise deviation times sqrt(long)
    if scale == 0:
        return filters.clone(), int((values > 0).sum())
    above = (values / scale).square()
    inner = (above - beta - 1).square() - 4 * beta
    kept = above > (1 + math.sqrt(beta)) ** 2
    shrunk = torch.where(kept, scale * (inner.clamp_min(0) / above.clamp_min(beta)).sqrt(), 0.0)
    return ((left * shrunk) @ right).view(filters.shape).to(filters.dtype), int(kept.sum())


def _marchenko_pastur_median(beta: float) -> float:
    """Return the median eigenvalue of a white noise's covariance, rows to columns in the ratio ``beta`` <= 1."""
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    angle = torch.linspace(0, math.pi, _QUADRATURE, dtype=torch.float64)
    value = (low + high) / 2 - (high - low) / 2 * angle.cos()
    # density times d value / d angle: with the angle the square-root edges are smooth
    mass = (angle.sin().square() / value.clamp_min(1e-300)).cumsum(0)
    return float(value[torch.searchsorted(mass, mass[-1] / 2)])
