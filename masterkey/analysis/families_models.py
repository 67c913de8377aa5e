"""Parametric models of the families that trained filters fall into (arXiv:2401.14469), drawn many at once.

Coordinates are pixels from the kernel's middle, x to the right and y up. A model is compared after centring and unit
norm, and its sign is free. ``u`` is the direction of an operator, at ``angle`` from x towards y, ``v`` across it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..metadata import Kernel

Render = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Model:
    """One family: its parameters with their bounds and the grid that the search begins on.

    ``render`` takes x and y (1, d) and parameters (n, p, 1) and returns (n, d), neither centred nor normalised.
    """

    name: str
    bounds: Mapping[str, tuple[float, float]]
    grid: Mapping[str, Sequence[float]]
    render: Render


def coordinates(kernel: Kernel) -> tuple[Tensor, Tensor]:
    """x and y of every pixel, (1, kh * kw) each."""
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in kernel)
    y, x = torch.meshgrid(-rows, columns, indexing="ij")
    return x.reshape(1, -1), y.reshape(1, -1)


def models(kernel: Kernel) -> tuple[Model, ...]:
    """The searched families for one kernel size, fewest parameters first (the delta is not searched but listed)."""
    reach = min(kernel) / 4  # how far off the middle a centre may lie
    widest = min(kernel) / 2
    five = [step * reach for step in (-0.8, -0.4, 0.0, 0.4, 0.8)]
    place = {"x": (-reach, reach), "y": (-reach, reach)}
    places = {"x": five, "y": five}
    turn = {"angle": (-math.inf, math.inf)}
    angles = [step * math.pi / 8 for step in range(8)]
    widths = [0.5, 0.75, 1.1, 1.6]
    directed = place | {"width": (0.4, widest), "aspect": (0.6, 3.0)} | turn
    directed_grid = places | {"width": widths, "aspect": (0.8, 1.2, 1.8), "angle": angles}
    widths = [*widths, 0.75 * widest]
    return (
        Model(
            "gaussian",
            place | {"width_x": (0.45, widest), "width_y": (0.45, widest)},
            places | {"width_x": widths, "width_y": widths},
            _gaussian,
        ),
        Model(
            "dog",
            place | {"width": (0.45, widest / 2), "ratio": (1.3, 2.5), "weight": (0.5, 1.5)},
            places | {"width": (0.5, 0.7, 0.95, 1.3), "ratio": (1.5, 2.2), "weight": (0.7, 1.1)},
            _difference,
        ),
        Model("derivative", directed, directed_grid, _first),
        Model("second derivative", directed | {"width": (0.5, widest)}, directed_grid, _second),
        Model(
            "cross",
            place | {"width": (0.35, 1.2), "length": (2.2, 8.0)} | turn,
            places | {"width": (0.4, 0.6, 0.9), "length": (2.5, 3.5, 5.0), "angle": angles[:4]},
            _cross,
        ),
    )


def _bell(offset: Tensor, width: Tensor) -> Tensor:
    return torch.exp(-0.5 * (offset / width) ** 2)


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine


def _gaussian(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    x0, y0, width_x, width_y = p.unbind(1)
    return _bell(x - x0, width_x) * _bell(y - y0, width_y)


def _difference(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """A Gaussian less ``weight`` times one ``ratio`` times as wide, both of sum one on the plane."""
    x0, y0, width, ratio, weight = p.unbind(1)
    squares = (x - x0) ** 2 + (y - y0) ** 2
    inner, outer = (torch.exp(-0.5 * squares / size**2) for size in (width, width * ratio))
    return inner - weight / ratio**2 * outer


def _first(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    x0, y0, width, aspect, angle = p.unbind(1)
    u, v = _turned(x - x0, y - y0, angle)
    return u * _bell(u, width) * _bell(v, width * aspect)


def _second(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    x0, y0, width, aspect, angle = p.unbind(1)
    u, v = _turned(x - x0, y - y0, angle)
    return ((u / width) ** 2 - 1) * _bell(u, width) * _bell(v, width * aspect)


def _cross(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """The sum of two Gaussians at a right angle, each ``length`` times as long as wide."""
    x0, y0, width, length, angle = p.unbind(1)
    u, v = _turned(x - x0, y - y0, angle)
    long = width * length
    return _bell(u, width) * _bell(v, long) + _bell(u, long) * _bell(v, width)
