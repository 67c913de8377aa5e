"""Fit the scale-space models of arXiv:2509.12746 to any filter: a form, sigma_x, sigma_y, and gamma where it has one.

A model m(form, sigma_x, sigma_y[, gamma]) is a difference operator on the discrete Gaussian, as in
``masterkey.closed_form.scale_space``. A filter f is nearest to ``a * m + b``; a may have either sign, so that what is
made least is 1 - cos^2, the cosine between f and m, both centred. Along an even side the model is one longer, and its
last row or column is dropped, as in the closed form.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..closed_form.scale_space import Form, axis_differences
from ..errors import MasterkeyError
from ..host import on_host
from ..shapes import shapes_of
from .sources import FilterSource, as_planes

# by name: the operators along y (rows, upwards) and x, and whether gamma times the Laplacian is taken off
FORMS = {
    "forward-y": Form("forward", "smooth", 0, 0),
    "backward-x": Form("smooth", "backward", 0, 0),
    "backward-y": Form("backward", "smooth", 0, 0),
    "forward-x": Form("smooth", "forward", 0, 0),
    "central-x": Form("smooth", "central", 0, 0),
    "central-y": Form("central", "smooth", 0, 0),
    "sharpened": Form("smooth", "smooth", 0, 0, 1),
    "gaussian": Form("smooth", "smooth", 0, 0),
}
SMALLEST, LARGEST, RESOLUTION = 0.05, 3.0, 0.001  # pixels of sigma
LARGEST_GAMMA = 4.0
_COARSE = 50  # steps of the resolution between the points of the first search
_CHUNK = 4096
_OPERATORS = ("smooth", "forward", "backward", "central", "second")


@dataclass(frozen=True)
class ScaleSpaceFit:
    """The best model of every filter; all tensors are (n,).

    Attributes:
        names: the forms that were tried: where a side is 1, those that are smooth along it.
        form: number in ``names``.
        sigma_x, sigma_y: pixels, 0.05 to 3 in steps of 0.001; NaN along a side of 1, which has no scale.
        gamma: weight of the Laplacian, 0 where the form has none.
        cosine: of filter and model, both centred, -1 to 1; its sign is that of the factor a. 0 for a constant filter.
    """

    names: tuple[str, ...]
    form: Tensor
    sigma_x: Tensor
    sigma_y: Tensor
    gamma: Tensor
    cosine: Tensor

    @property
    def error(self) -> Tensor:
        """Share of the filter's variance that its model leaves, 1 - cosine^2."""
        return 1 - self.cosine**2


@on_host()
def fit_scale_space(
    filters: FilterSource, forms: Sequence[str] = tuple(FORMS), gamma: float | None = None
) -> ScaleSpaceFit:
    """Fit the models to the n spatial slices of filters, and keep each one's best.

    Every form is searched on a grid of scales 0.05 apart and then refined to 0.001. Between forms the smaller residual
    wins; ``sharpened``, which has one parameter more, must be better by the Bayesian information criterion.

    Args:
        filters: of one kernel size, not 1x1: a bank, its path, an array (``masterkey.analysis.sources``).
        forms: names out of ``FORMS``.
        gamma: of ``sharpened``; None fits it between 0 and 4.

    Raises:
        MasterkeyError: filters of several kernel sizes, 1x1, an unknown form or none, none that is smooth along a side
            of 1, or a gamma that is not finite; else as for ``sources.as_planes``.
    """
    planes = as_planes(filters)
    height, width = planes.shape[1:]
    if height * width == 1:
        raise MasterkeyError("scale-space models are fitted to filters larger than 1x1: a single weight has no scale")
    unknown = [name for name in forms if name not in FORMS]
    if unknown or not forms:
        said = f"no scale-space form {unknown!r}" if unknown else "no scale-space form was given"
        raise MasterkeyError(f"{said}; known: {', '.join(FORMS)}")
    if gamma is not None and not math.isfinite(gamma):
        raise MasterkeyError(f"gamma is {gamma}, which is no finite number")
    # along a side of 1 every operator is a number, by which forms that differ there would be equal
    tried = tuple(
        name for name in forms if (height > 1 or FORMS[name].y == "smooth") and (width > 1 or FORMS[name].x == "smooth")
    )
    if not tried:
        raise MasterkeyError(f"filters of {height}x{width} have no side along which {', '.join(forms)} would differ")
    unit = shapes_of(planes).unit
    parts = [_fit_chunk(part, (height, width), tried, gamma) for part in unit.split(_CHUNK)]
    form, sigma_x, sigma_y, weight, cosine = (torch.cat(column) for column in zip(*parts, strict=True))
    if width == 1:
        sigma_x = torch.full_like(sigma_x, math.nan)
    if height == 1:
        sigma_y = torch.full_like(sigma_y, math.nan)
    return ScaleSpaceFit(tried, form, sigma_x, sigma_y, weight, cosine.clamp(-1, 1))


def _fit_chunk(unit: Tensor, kernel: tuple[int, int], forms: tuple[str, ...], gamma: float | None) -> list[Tensor]:
    fits = [_fit_form(unit, kernel, FORMS[name], gamma) for name in forms]
    cosine = torch.stack([fit[3] for fit in fits])
    size = kernel[0] * kernel[1]
    extra = torch.tensor([float(FORMS[name].gamma > 0 and gamma is None) for name in forms])[:, None]
    # scales in steps leave about 1e-5: below that, forms count as equal
    criterion = (1 - cosine.square()).clamp(min=1e-5) * torch.exp(extra * torch.tensor(float(size)).log() / size)
    best = criterion.argmin(0)
    picked = [torch.stack(column).gather(0, best[None])[0] for column in zip(*fits, strict=True)]
    return [best, *picked]


def _fit_form(unit: Tensor, kernel: tuple[int, int], form: Form, gamma: float | None) -> tuple[Tensor, ...]:
    """sigma_x, sigma_y, gamma and cosine of one form for shapes (n, d)."""
    gammas = [0.0] if not form.gamma else [gamma] if gamma is not None else [0.25, 0.5, 1.0, 1.5, 2.5]
    points = len(_sigmas())
    grid = torch.arange(0, points, _COARSE * (1 if len(gammas) == 1 else 2))
    y, x, which = (axis.flatten() for axis in torch.meshgrid(grid, grid, torch.arange(len(gammas)), indexing="ij"))
    weight = torch.tensor(gammas)[which]
    start = (unit @ _models(kernel, form, y, x, weight).T).abs().argmax(1)
    y, x, weight = y[start], x[start], weight[start]
    weight, cosine = _measured(unit, kernel, form, y, x, weight, gamma)
    step = _COARSE
    while step := step // 2:
        for _ in range(4):
            moved = torch.zeros(len(unit), dtype=torch.bool)
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1), (-1, 1), (1, -1)):
                new_y, new_x = ((y + dy * step).clamp(0, points - 1), (x + dx * step).clamp(0, points - 1))
                new_weight, new = _measured(unit, kernel, form, new_y, new_x, weight, gamma)
                better = new.abs() > cosine.abs() + 1e-7
                y, x = torch.where(better, new_y, y), torch.where(better, new_x, x)
                weight, cosine = torch.where(better, new_weight, weight), torch.where(better, new, cosine)
                moved |= better
            if not bool(moved.any()):
                break
    return _sigmas()[x], _sigmas()[y], weight, cosine


def _measured(
    unit: Tensor, kernel: tuple[int, int], form: Form, y: Tensor, x: Tensor, weight: Tensor, gamma: float | None
) -> tuple[Tensor, Tensor]:
    """Gamma and cosine of each filter with the model at its own scales; a free gamma is the best one there."""
    if form.gamma and gamma is None:
        smooth, laplacian = _planes(kernel, form, y, x)
        gg, gl, ll = ((a * b).sum(1) for a, b in ((smooth, smooth), (smooth, laplacian), (laplacian, laplacian)))
        fg, fl = (unit * smooth).sum(1), (unit * laplacian).sum(1)
        # f = c * smooth + d * laplacian, least squares; gamma = -d / c
        c, d = fg * ll - fl * gl, fl * gg - fg * gl
        best = -d / torch.where(c == 0, 1e-12, c)
        # the squared cosine is a ratio of parabolas in gamma: where its peak is out of range, either end may be best
        low, high = torch.zeros_like(best), torch.full_like(best, LARGEST_GAMMA)
        at_low, at_high = ((fg - end * fl).square() / (gg - 2 * end * gl + end**2 * ll) for end in (low, high))
        inside = (best >= 0) & (best <= LARGEST_GAMMA)
        weight = torch.where(inside, best, torch.where(at_low >= at_high, low, high))
    return weight, (unit * _models(kernel, form, y, x, weight)).sum(1)


def _models(kernel: tuple[int, int], form: Form, y: Tensor, x: Tensor, gamma: Tensor) -> Tensor:
    """Models at scales number ``y`` and ``x``, centred and of unit norm: (n, d) float32."""
    smooth, laplacian = _planes(kernel, form, y, x)
    model = smooth - gamma[:, None] * laplacian if form.gamma else smooth
    return torch.nn.functional.normalize(model, dim=1)


def _planes(kernel: tuple[int, int], form: Form, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The form without its Laplacian, and the Laplacian of the Gaussian (zeros if not needed), centred: (n, d)."""
    rows, columns = _table(kernel[0] | 1), _table(kernel[1] | 1)  # the next odd side

    def plane(over_y: str, over_x: str) -> Tensor:
        # rows run against y
        outer = rows[over_y][y].flip(1)[:, : kernel[0], None] * columns[over_x][x][:, None, : kernel[1]]
        flat = outer.flatten(1)
        return flat - flat.mean(1, keepdim=True)

    operated = plane(form.y, form.x)
    if not form.gamma:
        return operated, torch.zeros(())
    return operated, plane("second", "smooth") + plane("smooth", "second")


@cache
def _sigmas() -> Tensor:
    return torch.arange(round((LARGEST - SMALLEST) / RESOLUTION) + 1) * RESOLUTION + SMALLEST


@cache
def _table(side: int) -> dict[str, Tensor]:
    """Every operator along one axis at every scale: (scales, side) float32."""
    axes = [axis_differences(side, sigma) for sigma in _sigmas().double().tolist()]
    return {name: torch.stack([axis[name] for axis in axes]).float() for name in _OPERATORS}
