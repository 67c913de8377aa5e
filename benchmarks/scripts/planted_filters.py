"""Planted dead, duplicated and random filters: precision and recall of the pruning that precedes the search for keys.

A layer holds filters of all families (``planted_forms``) no two of which are alike (|cosine| below 0.9), copies of some
of them, white noise of about their size, all at random strength and sign, and zeros, in random order. Noise is added to
every filter, its deviation a share of the layer's root mean square weight. The generator shares no code with
``masterkey.distill``, and no rule was set on these seeds.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from masterkey.distill import prune
from masterkey.distill.pruning import REASONS
from masterkey.shapes import filter_table, shapes_of

from .planted_forms import Array, drawn, forms, rendered

NOISE = (0.003, 0.01, 0.1)
KERNELS = (3, 5, 7)
LAYERS = 40
FIRST_SEED = 4_000
GOOD, EACH = 20, 8  # of a layer: filters to keep, and filters to prune for each reason
UNLIKE = 0.9
KINDS = ("kept", "dead", "duplicate", "random")
_WHITE, _DEAD = -1, -2


def distinct(n: int, kernel: int, draw: np.random.Generator) -> Array:
    """Draw ``n`` filters (n, kernel * kernel) of any family, with pairwise |cosine| below 0.9, at unit norm."""
    families = list(forms(kernel).values())
    chosen = np.empty((0, kernel**2))
    while len(chosen) < n:
        form = families[draw.integers(len(families))]
        one = rendered(form, drawn(form, 1, draw), kernel)
        if not len(chosen) or np.abs(chosen @ one[0]).max() < UNLIKE:
            chosen = np.concatenate([chosen, one])
    return chosen


def planted_filters(kernel: int, noise: float, seed: int) -> tuple[Tensor, list[str]]:
    """Draw a layer (n, 1, kernel, kernel) and tell of each filter what should become of it, a name in ``KINDS``."""
    draw = np.random.default_rng(seed)
    good = distinct(GOOD, kernel, draw)
    white = draw.standard_normal((EACH, kernel**2)) / kernel  # of norm one, about, as the good ones
    filters = np.concatenate([good, good[:EACH], white])
    strengths = draw.choice([-1, 1], len(filters)) * np.exp(0.5 * draw.standard_normal(len(filters)))
    filters = np.concatenate([filters * strengths[:, None], np.zeros((EACH, kernel**2))])
    origin = np.array([*range(GOOD), *range(EACH), *[_WHITE] * EACH, *[_DEAD] * EACH])
    order = draw.permutation(len(filters))
    filters = filters[order] + noise * np.sqrt((filters**2).mean()) * draw.standard_normal(filters.shape)
    seen: set[int] = set()
    truth = []
    for number in origin[order].tolist():
        again = "duplicate" if number in seen else "kept"
        truth.append({_WHITE: "random", _DEAD: "dead"}.get(number, again))
        seen.add(number)
    return torch.tensor(filters, dtype=torch.float32).view(-1, 1, kernel, kernel), truth


def score(kernel: int, noise: float, seeds: Sequence[int]) -> dict[str, Any]:
    """Precision and recall by kind, and how often each mistake was made."""
    pairs: Counter[tuple[str, str]] = Counter()
    for seed in seeds:
        layer, truth = planted_filters(kernel, noise, seed)
        table = filter_table({"layer": layer}, "planted")
        verdict = prune(table, shapes_of(table.filters)).verdict.tolist()
        pairs.update(zip(truth, (REASONS[number] or "kept" for number in verdict), strict=True))
    return precision_and_recall(pairs, KINDS)


def precision_and_recall(pairs: Counter[tuple[str, str]], kinds: Sequence[str]) -> dict[str, Any]:
    """Precision and recall of every kind, and the mistakes, from counts of (truth, found)."""
    rows: dict[str, Any] = {}
    for kind in kinds:
        hits = pairs[kind, kind]
        named = sum(count for (_, found), count in pairs.items() if found == kind)
        planted = sum(count for (truth, _), count in pairs.items() if truth == kind)
        rows[kind] = {
            "planted": planted,
            "precision": round(hits / named, 3) if named else None,
            "recall": round(hits / planted, 3) if planted else None,
        }
    wrong = {f"{truth} called {found}": count for (truth, found), count in sorted(pairs.items()) if truth != found}
    return {**rows, "mistakes": wrong}


def scores() -> dict[str, Any]:
    """All kernels and noise levels."""
    seeds = range(FIRST_SEED, FIRST_SEED + LAYERS)
    return {
        "layers": LAYERS,
        "seeds": [seeds[0], seeds[-1]],
        "noise": {
            str(noise): {f"{kernel}x{kernel}": score(kernel, noise, seeds) for kernel in KERNELS} for noise in NOISE
        },
    }
