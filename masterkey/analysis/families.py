"""Which family every filter belongs to: least-squares fits of explicit models, each with parameters and residual.

After centring and unit norm, with the sign free, 1 - cosine^2 is the share of a filter's variance that a model leaves.
Between families the Bayesian information criterion decides, so that a model with more parameters must earn them; a
filter whose best cosine is below the threshold belongs to none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MasterkeyError
from ..host import on_host
from ..metadata import Kernel
from ..shapes import shapes_of
from .families_models import Model, coordinates, models
from .sources import FilterSource, as_planes

THRESHOLD = 0.85
FAMILIES = ("delta", "gaussian", "dog", "derivative", "second derivative", "cross")
LABELS = (
    "delta",
    "gaussian",
    "dog",
    *(f"{order} {axis}" for order in ("derivative", "second derivative") for axis in ("x", "y", "oblique")),
    "cross",
    "none",
)
NONE = len(LABELS) - 1
_ALONG = math.pi / 12  # 15 degrees: how far from an axis a derivative still counts as along it
_EQUAL = 1e-3  # residuals below this count as equal: what is left is how a model was sampled
_LEVELS = 6
_CHUNK = 8192


@dataclass(frozen=True)
class Families:
    """The fits of n filters.

    Attributes:
        cosines: (n, families) of each filter with the best member of each of ``FAMILIES``; signs are the factors'.
        parameters: family -> parameter -> (n,): x and y of the centre in pixels from the middle, y up; widths in
            pixels; ``angle`` in radians from x towards y.
        label: (n,) number in ``LABELS``; the last is "none".
        family: (n,) number in ``FAMILIES`` of the best fit, also where that is below the threshold.
    """

    cosines: Tensor
    parameters: dict[str, dict[str, Tensor]]
    label: Tensor
    family: Tensor

    @property
    def cosine(self) -> Tensor:
        """|cosine| (n,) of each filter with its best fit."""
        return self.cosines.abs().gather(1, self.family[:, None])[:, 0]

    def at(self, threshold: float) -> Tensor:
        """The labels (n,) that another threshold gives."""
        return torch.where(self.cosine >= threshold, _labels(self.family, self.parameters), NONE)


def check_threshold(threshold: float) -> None:
    """Refuse what no |cosine| can reach or miss.

    Raises:
        MasterkeyError: not from 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise MasterkeyError(f"a threshold is of |cosine|, from 0 to 1, not {threshold:g}")


@on_host()
def classify(filters: FilterSource, threshold: float = THRESHOLD) -> Families:
    """Fit every family to the n spatial slices of filters of one kernel size: a bank, its path, an array (``sources``).

    At 3x3 five parameters meet eight numbers and fit nearly anything: compare with random filters before quoting a
    share.

    Raises:
        MasterkeyError: filters of several kernel sizes, a side below 3, or a threshold that is no |cosine|; else as for
            ``sources.as_planes``.
    """
    check_threshold(threshold)
    planes = as_planes(filters)
    kernel = (planes.shape[1], planes.shape[2])
    if min(kernel) < 3:
        raise MasterkeyError(f"families need filters of 3x3 or larger, not of {kernel[0]}x{kernel[1]}")
    unit = shapes_of(planes).unit
    fitted = [_delta(unit, kernel), *(_fit(unit, kernel, model) for model in models(kernel))]
    cosines = torch.stack([cosine for cosine, _ in fitted], 1)
    parameters = {name: values for name, (_, values) in zip(FAMILIES, fitted, strict=True)}
    size = unit.shape[1]
    counts = torch.tensor([float(len(values)) for values in parameters.values()])
    criterion = size * (1 - cosines**2).clamp(min=_EQUAL).log() + counts * math.log(size)
    family = criterion.argmin(1)
    label = _labels(family, parameters)
    found = cosines.abs().gather(1, family[:, None])[:, 0] >= threshold
    return Families(cosines, parameters, torch.where(found, label, NONE), family)


def shares(label: Tensor) -> dict[str, float]:
    """Share of filters by label."""
    counts = torch.bincount(label, minlength=len(LABELS)).double() / max(1, len(label))
    return dict(zip(LABELS, counts.tolist(), strict=True))


def shares_by_layer(labels: Mapping[str, Tensor]) -> list[dict[str, float | str]]:
    """One row a layer: its name, its depth from 0 (first) to 1 (last), its filters, and the share of every label.

    ``labels`` maps layers in order to the labels of their filters, which may be of different kernels.
    """
    last = max(1, len(labels) - 1)
    return [
        {"layer": name, "depth": number / last, "filters": len(label), **shares(label)}
        for number, (name, label) in enumerate(labels.items())
    ]


def _delta(unit: Tensor, kernel: Kernel) -> tuple[Tensor, dict[str, Tensor]]:
    size = unit.shape[1]
    # a centred delta has cosine y_i / sqrt(1 - 1 / size) with a centred y
    cosine, where = unit.abs().max(1)
    sign = unit.gather(1, where[:, None])[:, 0].sign()
    x, y = coordinates(kernel)
    return sign * cosine / math.sqrt(1 - 1 / size), {"x": x[0][where], "y": y[0][where]}


def _fit(unit: Tensor, kernel: Kernel, model: Model) -> tuple[Tensor, dict[str, Tensor]]:
    """The best cosine of each shape (n, d) with a family, and the parameters that give it."""
    x, y = coordinates(kernel)
    axes = [torch.tensor(values) for values in model.grid.values()]
    grid = torch.cartesian_prod(*axes)
    templates = _drawn(model, x, y, grid)
    lower, upper = (torch.tensor([bound[end] for bound in model.bounds.values()]) for end in (0, 1))
    found, chosen = [], []
    for part in unit.split(_CHUNK):
        start = (part @ templates.T).abs().argmax(1)
        cosine, parameters = _refine(part, model, x, y, grid[start], lower, upper)
        found.append(cosine)
        chosen.append(parameters)
    parameters = torch.cat(chosen)
    named = {name: parameters[:, number] for number, name in enumerate(model.bounds)}
    if "angle" in named:
        named["angle"] = named["angle"].remainder(math.pi / 2 if model.name == "cross" else math.pi)
    return torch.cat(found), named


def _refine(
    unit: Tensor, model: Model, x: Tensor, y: Tensor, start: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor]:
    """Search along each parameter in turn with steps that halve; every shape by itself, all at once."""
    parameters = start.clamp(lower, upper)
    cosine = (unit * _drawn(model, x, y, parameters)).sum(1)
    # first steps reach half-way to the next point of the grid
    steps = torch.tensor([0.2 if name == "angle" else 0.25 for name in model.bounds])
    for _ in range(_LEVELS):
        for _ in range(2):
            for number in range(len(steps)):
                for sign in (1.0, -1.0):
                    tried = parameters.clone()
                    tried[:, number] = (tried[:, number] + sign * steps[number]).clamp(lower[number], upper[number])
                    new = (unit * _drawn(model, x, y, tried)).sum(1)
                    better = new.abs() > cosine.abs()
                    cosine = torch.where(better, new, cosine)
                    parameters = torch.where(better[:, None], tried, parameters)
        steps = steps / 2
    return cosine, parameters


def _drawn(model: Model, x: Tensor, y: Tensor, parameters: Tensor) -> Tensor:
    """Members of a family, centred and of unit norm: (n, d)."""
    planes = model.render(x, y, parameters[:, :, None])
    return torch.nn.functional.normalize(planes - planes.mean(1, keepdim=True), dim=1)


def _labels(family: Tensor, parameters: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """Families with their direction."""
    label = torch.empty_like(family)
    for number, name in enumerate(FAMILIES):
        chosen = family == number
        if f"{name} x" not in LABELS:
            label[chosen] = LABELS.index(name)
            continue
        angle = parameters[name]["angle"]  # from 0 to pi
        along_x = (angle < _ALONG) | (angle > math.pi - _ALONG)
        along_y = (angle - math.pi / 2).abs() < _ALONG
        first = LABELS.index(f"{name} x")
        label = torch.where(chosen, torch.where(along_x, first, torch.where(along_y, first + 1, first + 2)), label)
    return label
