"""Planted truth at three noise levels: degenerate layers, filters to prune (``planted_filters``), and families.

Families are those of ``planted_families``. Good layers hold Gaussians and their first and second derivatives, turned
and stretched at random. Dead layers are good ones with 60 to 95 % of the filters set to zero; duplicated layers hold
one filter at random strengths, or equally strong; random layers are drawn from a normal or a uniform distribution.
Noise is added to every filter, its deviation a share of the layer's root mean square weight. The generators share no
code with the detectors. Their limits were set on other seeds; these were used for nothing else. Parts that the result
file holds are not computed again: delete it to have all made anew.

python -m masterkey.benchmarks.scripts.planted
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from masterkey import Bank
from masterkey.analysis.quality import assess
from masterkey.metadata import Layer, Metadata, Source

from ..measure import describe_machine
from . import planted_families, planted_filters
from .record import arguments, record, recorded

NOISE = (0.003, 0.01, 0.1)
KERNELS = (3, 5, 7)
BANKS = 20
FIRST_SEED = 1_000
PLANTED = ("good", "sparse", "low diversity", "random")
LAYERS = 12  # of a bank, three of each kind


def structured(n: int, kernel: int, generator: torch.Generator) -> Tensor:
    """Draw ``n`` smooth filters (n, kernel, kernel) of random form, width, direction, strength and sign."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, 1, 1, generator=generator) * (high - low) + low

    at = torch.arange(kernel) - (kernel - 1) / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    angle = uniform(0, torch.pi)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    wide, narrow = uniform(0.3, 0.2 * kernel + 0.3), uniform(0.3, 0.2 * kernel + 0.3)
    bell = torch.exp(-((u / wide) ** 2 + (v / narrow) ** 2) / 2)
    forms = torch.stack([bell, u * bell, v * bell, (u**2 / wide**2 - 1) * bell])
    chosen = forms[torch.randint(len(forms), (n,), generator=generator), torch.arange(n)]
    chosen = chosen / chosen.flatten(1).norm(dim=1).clamp_min(1e-3).view(-1, 1, 1)
    signs = torch.randint(2, (n, 1, 1), generator=generator) * 2 - 1
    strengths = signs * torch.exp(0.5 * torch.randn(n, 1, 1, generator=generator))
    drawn: Tensor = chosen * strengths
    return drawn


def planted_layer(kind: str, kernel: int, noise: float, generator: torch.Generator) -> Tensor:
    """Draw one layer (n, 1, kernel, kernel) of a kind."""
    n = int(kernel**2 * (3 + 9 * torch.rand(1, generator=generator).item()))
    filters = structured(n, kernel, generator)
    if kind == "sparse":
        share = 0.6 + 0.35 * torch.rand(1, generator=generator).item()
        filters[torch.randperm(n, generator=generator)[: round(share * n)]] = 0.0
    elif kind == "low diversity":
        strengths = torch.randn(n, 1, 1, generator=generator)
        equal = torch.rand(1, generator=generator).item() < 0.5
        filters = filters[:1] / filters[:1].norm() * (torch.ones_like(strengths) if equal else strengths)
    elif kind == "random":
        normal = torch.rand(1, generator=generator).item() < 0.5
        draw = torch.randn if normal else torch.rand
        filters = draw(n, kernel, kernel, generator=generator) - (0.0 if normal else 0.5)
    size = filters.square().mean().sqrt()
    return (filters + noise * size * torch.randn(filters.shape, generator=generator)).unsqueeze(1)


def planted_bank(seed: int, kernel: int, noise: float) -> tuple[Bank, list[str]]:
    """Draw a bank and return it with the kind of each layer."""
    generator = torch.Generator().manual_seed(seed)
    kinds = [PLANTED[int(index)] for index in torch.randperm(LAYERS, generator=generator) % len(PLANTED)]
    layers = {f"layers.{i}": planted_layer(kind, kernel, noise, generator) for i, kind in enumerate(kinds)}
    described = tuple(Layer(name, (kernel, kernel), len(tensor)) for name, tensor in layers.items())
    about = Metadata(f"planted-{seed}", "depthwise", Source("drawn", f"seed {seed}"), described, "forward")
    return Bank(layers, about), kinds


def score(noise: float, kernel: int, banks: int = BANKS, first_seed: int = FIRST_SEED) -> dict[str, Any]:
    """Precision and recall of each verdict, and all pairs of truth and verdict."""
    pairs: Counter[tuple[str, str]] = Counter()
    for seed in range(first_seed, first_seed + banks):
        bank, truth = planted_bank(seed, kernel, noise)
        pairs.update(zip(truth, (layer.verdict for layer in assess(bank)), strict=True))
    found = {}
    for kind in PLANTED:
        hits = pairs[kind, kind]
        named = sum(count for (_, verdict), count in pairs.items() if verdict == kind)
        there = sum(count for (truth_, _), count in pairs.items() if truth_ == kind)
        found[kind] = {"precision": round(hits / named, 3) if named else None, "recall": round(hits / there, 3)}
    wrong = {f"{truth} called {verdict}": count for (truth, verdict), count in pairs.items() if truth != verdict}
    return {**found, "mistakes": wrong}


def scores() -> dict[str, Any]:
    """All kernels and noise levels of the degenerate layers."""
    return {
        "banks": BANKS,
        "layers_of_a_bank": LAYERS,
        "seeds": [FIRST_SEED, FIRST_SEED + BANKS - 1],
        "noise": {str(noise): {f"{kernel}x{kernel}": score(noise, kernel) for kernel in KERNELS} for noise in NOISE},
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "layers": scores,
    "filters": planted_filters.scores,
    "families": planted_families.scores,
}


def main() -> None:
    """Score, print and record; parts that the file holds are kept."""
    parser = arguments(__doc__, "planted.json")
    options = parser.parse_args()
    result: dict[str, Any] = recorded(options.output)
    result["machine"] = describe_machine()
    for part, scored in PARTS.items():
        if part not in result:
            result[part] = scored()
            record(options.output, result)
            print(json.dumps({part: result[part]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
