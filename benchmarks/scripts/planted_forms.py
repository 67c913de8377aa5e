"""Filters of known families, drawn as averages over pixels, and which of them only their own family can have made.

The generator of ``planted_families``; it shares no code with ``masterkey.analysis.families``. A member of a family is a
function of the plane, built from covariances and their derivatives, and each weight of a filter is its mean over
``FINE`` x ``FINE`` points of the pixel, where the detector takes its models at the pixels' centres.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Range = tuple[float, float, float, float]

FINE = 3
NARROWEST = 0.45  # pixels; what is narrower is a delta
_MEMBERS, _STARTS, _ROUNDS = 10_000, 3, 12
_STEP = 1e-4  # of a parameter's range, for slopes


@dataclass(frozen=True)
class Form:
    """A family: its parameters and its function.

    Each of ``ranges`` is (least, low, high, most): filters are planted between low and high, and whatever lies between
    least and most still counts as a member. ``surface`` takes x and y (1, points) and each parameter (n, 1), and
    returns (n, points).
    """

    ranges: Mapping[str, Range]
    surface: Callable[..., Array]


def forms(kernel: int) -> dict[str, Form]:
    """The families of a kernel size, but for deltas: lengths in pixels, growing with the kernel, angles in radians."""
    edge = kernel / 2
    place: dict[str, Range] = dict.fromkeys(("left", "up"), (-edge, -0.085 * kernel, 0.085 * kernel, edge))
    turn: dict[str, Range] = {"turn": (0.0, 0.0, math.pi, math.pi)}
    wide: Range = (NARROWEST, 0.6, 0.25 * kernel, edge)
    slope = {"spread": (NARROWEST, 0.6, 0.12 * kernel + 0.35, edge), "stretch": (0.5, 0.9, 1.6, 3.0)}
    ring = {"core": (NARROWEST, 0.5, 0.08 * kernel + 0.28, edge / 2), "ring": (1.2, 1.5, 2.0, 3.0)}
    arms = {"thin": (0.4, 0.45, 0.7, 1.2), "long": (2.0, 2.5, 4.0, 8.0)}
    return {
        "gaussian": Form(place | {"across": wide, "along": wide}, _blob),
        "dog": Form(place | ring | {"weight": (0.4, 0.8, 1.1, 1.6)}, _ring),
        "derivative": Form(place | slope | turn, _slope),
        "second derivative": Form(place | slope | turn, _curvature),
        "cross": Form(place | arms | turn, _arms),
    }


def rendered(form: Form, values: Array, kernel: int) -> Array:
    """Members of a family (n, kernel * kernel), centred, at unit norm, of parameters (n, p) in order of ``ranges``."""
    steps = (np.arange(kernel * FINE) + 0.5) / FINE - kernel / 2
    down, right = np.meshgrid(steps, steps, indexing="ij")
    surface = form.surface(right.reshape(1, -1), -down.reshape(1, -1), *(column[:, None] for column in values.T))
    weights = surface.reshape(-1, kernel, FINE, kernel, FINE).mean((2, 4)).reshape(len(values), -1)
    return unit(weights)


def unit(rows: Array) -> Array:
    """Rows (n, d) less their mean, at L2 norm 1."""
    centred = rows - rows.mean(1, keepdims=True)
    found: Array = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return found


def drawn(form: Form, n: int, draw: np.random.Generator, anywhere: bool = False) -> Array:
    """Parameters (n, p) drawn evenly: from where filters are planted, or from anywhere in the family."""
    ends = [(least, most) if anywhere else (low, high) for least, low, high, most in form.ranges.values()]
    return np.stack([draw.uniform(low, high, n) for low, high in ends], 1)


def likenesses(clean: Array, kernel: int, draw: np.random.Generator) -> dict[str, Array]:
    """The largest |cosine| (n,) of filters (n, kernel * kernel) with a member of each family, deltas included."""
    return {"delta": np.abs(clean @ unit(np.eye(kernel**2)).T).max(1)} | {
        name: nearest(clean, form, kernel, draw) for name, form in forms(kernel).items()
    }


def nearest(clean: Array, form: Form, kernel: int, draw: np.random.Generator) -> Array:
    """The largest |cosine| (n,) found of filters (n, kernel * kernel) with one family.

    Ten thousand members are drawn; from the three nearest a damped Gauss-Newton search goes on.
    """
    members = drawn(form, _MEMBERS, draw, anywhere=True)
    shapes = rendered(form, members, kernel)
    parts = [np.abs(part @ shapes.T) for part in np.array_split(clean, len(clean) // 100 + 1)]
    start = np.concatenate([np.argpartition(part, -_STARTS, axis=1)[:, -_STARTS:] for part in parts]).ravel()
    low, high = members.min(0), members.max(0)
    best = _refined(form, members[start], np.repeat(clean, _STARTS, axis=0), low, high, kernel)
    found: Array = best.reshape(-1, _STARTS).max(1)
    return found


def _refined(form: Form, values: Array, target: Array, low: Array, high: Array, kernel: int) -> Array:
    """The |cosine| (n,) with each target (n, d) that a local search from parameters (n, p) reaches, within bounds."""
    span, damping = high - low, np.full((len(values), 1, 1), 1e-2)
    shapes = rendered(form, values, kernel)
    best = (shapes * target).sum(1)
    for _ in range(_ROUNDS):
        sign = np.sign(best)[:, None]
        slopes = np.stack(
            [sign * (rendered(form, values + step, kernel) - shapes) / _STEP for step in np.diag(_STEP * span)], 2
        )
        normal = slopes.transpose(0, 2, 1) @ slopes
        held = damping * np.eye(len(span)) * (normal + 1e-6)  # of a parameter without effect, too
        move = np.linalg.solve(normal + held, slopes.transpose(0, 2, 1) @ (target - sign * shapes)[:, :, None])
        tried = np.clip(values + span * move[:, :, 0], low, high)
        new = rendered(form, tried, kernel)
        reached = (new * target).sum(1)
        better = np.abs(reached) > np.abs(best)
        values[better], shapes[better], best[better] = tried[better], new[better], reached[better]
        damping *= np.where(better, 0.3, 5.0)[:, None, None]
    found: Array = np.abs(best)
    return found


def _bell(x: Array, y: Array, xx: Array, xy: Array, yy: Array) -> Array:
    """exp(-q/2) with the quadratic form of the inverse of the covariance [[xx, xy], [xy, yy]]."""
    bell: Array = np.exp(-(yy * x * x - 2 * xy * x * y + xx * y * y) / (2 * (xx * yy - xy * xy)))
    return bell


def _blob(x: Array, y: Array, left: Array, up: Array, across: Array, along: Array) -> Array:
    return _bell(x + left, y - up, across**2, np.zeros_like(across), along**2)


def _ring(x: Array, y: Array, left: Array, up: Array, core: Array, ring: Array, weight: Array) -> Array:
    none = np.zeros_like(core)
    inner, outer = core**2, (ring * core) ** 2
    narrow = _bell(x + left, y - up, inner, none, inner) / inner
    found: Array = narrow - weight * _bell(x + left, y - up, outer, none, outer) / outer
    return found


def _turned(spread: Array, stretch: Array, turn: Array) -> tuple[Array, Array, Array]:
    """The covariance whose deviation is ``spread`` in the direction ``turn``, ``stretch`` times that across it."""
    mean, half = (1 + stretch**2) / 2 * spread**2, (1 - stretch**2) / 2 * spread**2
    return mean + half * np.cos(2 * turn), half * np.sin(2 * turn), mean - half * np.cos(2 * turn)


def _slope(x: Array, y: Array, left: Array, up: Array, spread: Array, stretch: Array, turn: Array) -> Array:
    """A Gaussian's derivative in the direction ``turn``, an axis of its covariance."""
    x, y = x + left, y - up
    found: Array = -(x * np.cos(turn) + y * np.sin(turn)) / spread**2 * _bell(x, y, *_turned(spread, stretch, turn))
    return found


def _curvature(x: Array, y: Array, left: Array, up: Array, spread: Array, stretch: Array, turn: Array) -> Array:
    """A Gaussian's second derivative in the direction ``turn``, an axis of its covariance."""
    x, y = x + left, y - up
    slope = (x * np.cos(turn) + y * np.sin(turn)) / spread**2
    found: Array = (slope**2 - 1 / spread**2) * _bell(x, y, *_turned(spread, stretch, turn))
    return found


def _arms(x: Array, y: Array, left: Array, up: Array, thin: Array, long: Array, turn: Array) -> Array:
    """Two Gaussians at a right angle, each ``long`` times as long as thin."""
    x, y = x + left, y - up
    found: Array = _bell(x, y, *_turned(thin, long, turn)) + _bell(x, y, *_turned(thin, long, turn + np.pi / 2))
    return found
