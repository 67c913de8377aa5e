"""Planted families: precision and recall of ``masterkey.analysis.families``, of all filters and of the identifiable.

Filters of every family (``planted_forms``) and white noise, centred, at unit norm, get white noise of ``NOISE`` times
their norm, then a random strength, sign and offset. A member of one family may look like a member of another: a
difference of Gaussians whose surround is faint is a Gaussian. With noise of norm s in d - 1 dimensions, two filters are
told apart by their distance in deviations of the noise, s / sqrt(d - 1). A filter counts as **identifiable** when the
nearest member of any other family, found by a search of the generator's own on the filter before noise, is ``APART``
deviations away: an observer who knew both would take one for the other in 2.3 % of cases. White noise is identifiable
when that search finds no family at |cosine| 0.85, which is what "none" means. No threshold of the detector was set on
these seeds; ``APART`` was chosen on other seeds of the generator (1).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from masterkey.analysis.families import FAMILIES, NONE, THRESHOLD, classify

from .planted_filters import precision_and_recall
from .planted_forms import Array, drawn, forms, likenesses, rendered, unit

NOISE = (0.1, 0.25, 0.5)
KERNELS = (3, 5, 7)
EACH = 100
SEED = 7_000
APART = 4.0
PLANTED = ("delta", "gaussian", "dog", "derivative", "second derivative", "cross", "none")
DIRECTED = ("derivative", "second derivative")


@dataclass(frozen=True)
class Planted:
    """Filters before noise.

    Attributes:
        clean: (n, kernel * kernel), centred, at unit norm.
        truth: (n,) number in ``PLANTED``.
        likeness: (n,) |cosine| with the nearest member of any other family.
        angle: (n,) direction of derivatives in radians from x towards y, NaN for the others.
    """

    kernel: int
    clean: Array
    truth: NDArray[np.int64]
    likeness: Array
    angle: Array

    def identifiable(self, noise: float) -> NDArray[np.bool_]:
        """Mask (n,) of the filters that no other family can have made, at a noise of ``noise`` times their norm."""
        distance = np.sqrt(np.maximum(0, 1 - self.likeness**2))
        told = distance >= APART * noise / np.sqrt(self.kernel**2 - 1)
        found: NDArray[np.bool_] = np.where(self.truth == PLANTED.index("none"), self.likeness < THRESHOLD, told)
        return found


def plant(kernel: int, each: int, seed: int) -> Planted:
    """Draw ``each`` filters of every family and as many of white noise."""
    draw = np.random.default_rng(seed)
    shapes: list[Array] = []
    angle = np.full(each * len(PLANTED), np.nan)
    for number, name in enumerate(PLANTED):
        if name == "none":
            shapes.append(unit(draw.standard_normal((each, kernel**2))))
        elif name == "delta":
            shapes.append(unit(np.eye(kernel**2)[draw.integers(kernel**2, size=each)]))
        else:
            form = forms(kernel)[name]
            values = drawn(form, each, draw)
            shapes.append(rendered(form, values, kernel))
            if name in DIRECTED:
                angle[number * each : (number + 1) * each] = values[:, list(form.ranges).index("turn")]
    clean = np.concatenate(shapes)
    truth = np.repeat(np.arange(len(PLANTED)), each)
    found = likenesses(clean, kernel, draw)
    others = [np.where(truth == PLANTED.index(name), 0.0, cosine) for name, cosine in found.items()]
    return Planted(kernel, clean, truth, np.max(others, axis=0), angle)


def score(planted: Planted, noise: float, seed: int) -> dict[str, Any]:
    """Precision and recall by family, of all filters and of the identifiable, and how well directions are found.

    ``directions``: of the planted derivatives that are found as such, the share whose direction is within 15 degrees.
    """
    draw = np.random.default_rng(seed)
    n, size = planted.clean.shape
    noisy = planted.clean + noise * unit(draw.standard_normal((n, size)))
    strength = draw.uniform(0.1, 3, (n, 1)) * np.sign(draw.uniform(-1, 1, (n, 1)))
    noisy = strength * noisy + draw.standard_normal((n, 1))
    fits = classify(torch.tensor(noisy, dtype=torch.float32).view(-1, planted.kernel, planted.kernel))
    named = [
        "none" if label == NONE else FAMILIES[family]
        for label, family in zip(fits.label.tolist(), fits.family.tolist(), strict=True)
    ]
    pairs = [(PLANTED[kind], name) for kind, name in zip(planted.truth, named, strict=True)]
    kept = planted.identifiable(noise)
    off = [
        abs((float(fits.parameters[name]["angle"][row]) - planted.angle[row] + np.pi / 2) % np.pi - np.pi / 2)
        for row, (kind, name) in enumerate(pairs)
        if kind == name and kind in DIRECTED
    ]
    return {
        "all": precision_and_recall(Counter(pairs), PLANTED),
        "identifiable": precision_and_recall(
            Counter(pair for pair, told in zip(pairs, kept, strict=True) if told), PLANTED
        ),
        "left_out": int((~kept).sum()),
        "directions": round(float(np.mean(np.array(off) < np.pi / 12)), 3),
    }


def scores() -> dict[str, Any]:
    """All kernels and noise levels; the same filters at every level."""
    planted = [plant(kernel, EACH, SEED + kernel) for kernel in KERNELS]
    found = {
        str(noise): {f"{each.kernel}x{each.kernel}": score(each, noise, SEED + 100 + level) for each in planted}
        for level, noise in enumerate(NOISE)
    }
    return {"of_each_family": EACH, "deviations_apart": APART, "first_seed": SEED, "noise": found}
