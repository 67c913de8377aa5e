"""The eight idealised filters of scale-space theory, at any kernel size.

Source: "Modelling and analysis of the 8 filters ..." (arXiv 2509.12746), which models the eight master key
filters of ConvNeXt V2 Tiny (arXiv 2509.11711) by difference operators on the discrete Gaussian. Forms and one
published set of (sigma_x, sigma_y) are reproduced; the fits that produce such sets are not.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import PlanError
from ..fit import rank1_factor
from ..metadata import Kernel

GAMMA = 0.5

Operator = Literal["smooth", "forward", "backward", "central"]


class Form(NamedTuple):
    """One filter: an operator per axis, the scales in pixels, and the weight of the subtracted Laplacian."""

    y: Operator
    x: Operator
    sigma_x: float
    sigma_y: float
    gamma: float = 0.0


# In the order of the published keys, with the paper's scales.
FORMS = (
    Form("forward", "smooth", 0.644, 0.583),
    Form("smooth", "backward", 0.586, 0.644),
    Form("backward", "smooth", 0.690, 0.674),
    Form("smooth", "forward", 0.756, 0.460),
    Form("smooth", "central", 1.107, 0.945),
    Form("central", "smooth", 0.900, 0.889),
    Form("smooth", "smooth", 0.675, 0.675, GAMMA),
    Form("smooth", "smooth", 0.609, 0.601),
)


def scale_space_filters(kernel: Kernel) -> Tensor:
    """The eight filters, each of unit L2 norm, in the order of the published keys.

    With G(x, y) = T(x; sigma_x^2) T(y; sigma_y^2), T the discrete Gaussian, they are: 1 the forward
    difference of G in y, 2 the backward one in x, 3 backward in y, 4 forward in x, 5 central in x, 6 central
    in y, 7 G - gamma * (five-point Laplacian of G) with gamma = 0.5, 8 G itself. y points up (row index
    decreasing) and x to the right. Signs are those of the forms: keys 2 and 3 were published with the
    opposite sign.

    The operators act on the Gaussian of infinite support, and the result is cropped to the window: at small
    kernels a derivative need not sum to zero.

    Args:
        kernel: (height, width), each side at least 1 and not both 1. Odd sides are centred; an even side is
            computed at k + 1 with its last row or column dropped; (1, k) and (k, 1) take the row or column
            factor of the best rank-1 approximation of the (k, k) filter (``masterkey.fit.rank1_factor``,
            whose rule gives the sign), at unit norm again.

    Returns:
        (8, 1, height, width) float32.

    Raises:
        PlanError: a kernel of 1x1, or a side below 1.
    """
    height, width = kernel
    if min(kernel) < 1 or max(kernel) < 2:
        raise PlanError(f"scale-space filters need a spatial kernel, 1x2 or larger, and got {height}x{width}")
    if min(kernel) == 1:
        side = max(kernel)
        filters = rank1_factor(_plane((side, side)), kernel)
    else:
        filters = _plane(kernel)
    norms: Tensor = torch.linalg.vector_norm(filters, dim=(-2, -1), keepdim=True)
    return (filters / norms).float()


def discrete_gaussian(radius: int, variance: float) -> Tensor:
    """The discrete analogue of the Gaussian, T(n; s) = exp(-s) I_n(s), for n = -radius ... radius.

    I_n is the modified Bessel function, summed by its power series; all terms are positive, so nothing
    cancels and the relative error is below 1e-14 (checked against 30-digit values).

    Args:
        radius: largest offset in pixels.
        variance: s = sigma^2 in square pixels, 0 to 100.

    Returns:
        (2 * radius + 1,) float64; it sums to one as the radius grows.

    Raises:
        ValueError: a variance outside 0 to 100.
    """
    if not 0 <= variance <= 100:
        raise ValueError(f"expected a variance of 0 to 100 square pixels, got {variance}")
    half = variance / 2
    n = torch.arange(radius + 1, dtype=torch.float64)
    # term m of I_n is (s/2)^(2m+n) / (m! (m+n)!); from m = 2s on, each is less than 1/16 of the one before
    m = torch.arange(1, int(2 * variance) + 31, dtype=torch.float64)[:, None]
    first = torch.cumprod(torch.where(n == 0, 1.0, half / n), 0)
    series = 1 + torch.cumprod(half**2 / (m * (m + n)), 0).flip(0).sum(0)
    positive = torch.exp(torch.tensor(-variance, dtype=torch.float64)) * first * series
    return torch.cat((positive[1:].flip(0), positive))


def _plane(kernel: Kernel) -> Tensor:
    """The eight forms on a two-dimensional window, (8, 1, *kernel) float64, not normalised."""
    planes = []
    for form in FORMS:
        # rows run against y; cutting after the flip drops the last row of an even side
        rows = {name: axis.flip(0)[: kernel[0]] for name, axis in axis_differences(kernel[0], form.sigma_y).items()}
        columns = {name: axis[: kernel[1]] for name, axis in axis_differences(kernel[1], form.sigma_x).items()}
        laplacian = torch.outer(rows["second"], columns["smooth"]) + torch.outer(rows["smooth"], columns["second"])
        planes.append(torch.outer(rows[form.y], columns[form.x]) - form.gamma * laplacian)
    return torch.stack(planes)[:, None]


def axis_differences(side: int, sigma: float) -> dict[str, Tensor]:
    """The Gaussian of ``sigma`` pixels and its differences along one axis, coordinates rising.

    Keys ``smooth``, ``forward``, ``backward``, ``central`` and ``second``; (2 * (side // 2) + 1,) float64 each.
    """
    # one sample more on either side than the window has, so that differences at its rim are the true ones
    wide = discrete_gaussian(side // 2 + 1, sigma**2)
    smooth = wide[1:-1]
    forward, backward = wide[2:] - smooth, smooth - wide[:-2]
    return {
        "smooth": smooth,
        "forward": forward,
        "backward": backward,
        "central": (forward + backward) / 2,
        "second": forward - backward,
    }
