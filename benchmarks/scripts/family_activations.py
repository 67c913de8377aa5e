"""What the filters of each family respond with in trained networks: mean, deviation, skewness, kurtosis, sparsity.

    python -m masterkey.benchmarks.scripts.family_activations

Of the networks of ``family_ablation``: MCUNet on 200 pictures of Tiny-ImageNet's validation part, one of each class,
and the two of ``formation`` on 200 of CIFAR-10. Outputs are of each filter by itself, before the batch norm, on the
inputs that the trained network gives its layer. Control: the same filters with their pixels shuffled, on the same
inputs. Of a layer of more than 256 filters as many are drawn. Medians over filters; dead filters are left out.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from masterkey.analysis.activations import Activations, slice_outputs, statistics, watch
from masterkey.analysis.families import LABELS
from masterkey.analysis.replacement import GROUPS, Census, census, replaced

from ..measure import describe_machine
from .family_subjects import Subject, described, subjects
from .record import arguments, record

PER_CLASS, CIFAR_PICTURES = 1, 200
DRAWN = 256  # filters of a layer that are watched
SIDES = ("real", "shuffled pixels")


def watched(subject: Subject, of: Census, seed: int = 0) -> tuple[Tensor, dict[str, list[Activations]]]:
    """Which filters were watched, indices (n,) into the census, and their statistics on either side, layer by layer."""
    weights = subject.weights()
    shuffled = replaced(weights, of, torch.ones_like(of.group, dtype=torch.bool), "pixels", seed)
    generator = torch.Generator().manual_seed(seed)
    starts = dict(zip(of.layers, torch.tensor([0, *of.layers.values()]).cumsum(0).tolist(), strict=False))
    chosen: list[Tensor] = []
    found: dict[str, list[Activations]] = {side: [] for side in SIDES}

    def look(name: str, layer: nn.Conv2d, inputs: Tensor) -> None:
        drawn = torch.randperm(of.layers[name], generator=generator)[:DRAWN].sort().values
        chosen.append(starts[name] + drawn)
        for side, filters in zip(SIDES, (weights[name], shuffled[name]), strict=True):
            found[side].append(statistics(slice_outputs(layer, inputs, filters.flatten(0, 1), drawn)))

    watch(subject.model, subject.prepare(subject.images), subject.layers, look)
    return torch.cat(chosen), found


def by_group(groups: Tensor, names: Sequence[str], found: dict[str, list[Activations]]) -> dict[str, Any]:
    """Medians of every statistic, by group and side; ``groups`` (n,) are numbers in ``names``."""
    table: dict[str, Any] = {}
    for number, name in enumerate(names):
        mask = groups == number
        if not bool(mask.any()):
            continue
        table[name] = {"filters": int(mask.sum())}
        for side, layers in found.items():
            values = {key: torch.cat([vars(layer)[key] for layer in layers]) for key in vars(layers[0])}
            table[name][side] = {key: round(float(value[mask].nanmedian()), 4) for key, value in values.items()}
    return table


def run_subject(subject: Subject) -> dict[str, Any]:
    """Watch one network."""
    of = census(subject.weights())
    chosen, found = watched(subject, of)
    living = torch.where(of.group == GROUPS.index("dead"), -1, of.label)
    return {
        **described(subject),
        "groups": by_group(of.group[chosen], GROUPS[:-1], found),
        "labels": by_group(living[chosen], LABELS, found),
    }


def main() -> None:
    """Compute, print and record."""
    parser = arguments(__doc__, "family_activations.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "command": "python -m masterkey.benchmarks.scripts.family_activations",
        "networks": {subject.name: run_subject(subject) for subject in subjects(PER_CLASS, CIFAR_PICTURES)},
    }
    record(options.output, result)
    for name, network in result["networks"].items():
        for group, row in network["groups"].items():
            offsets = ", ".join(f"{side} {row[side]['offset']}" for side in SIDES)
            print(f"{name}: {group} ({row['filters']}): |mean| / root mean square {offsets}")


if __name__ == "__main__":
    main()
