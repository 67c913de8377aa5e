"""How 7x7 filters of ConvNeXt, HorNet and MBConv networks differ: drift, and the keys that each is distilled to.

    python -m masterkey.benchmarks.scripts.architectures

ConvNeXt and HorNet were trained here, on the same pictures by the same recipe, and ship in the package; MCUNet and
ProxylessNAS are MBConv networks of ImageNet-1k, read from ``$MASTERKEY_DATA/checkpoints``, so that between them and the
others the data differ as well. Dead filters are left out everywhere, nothing else. Beside each drift stands its level
of chance (labels permuted), and each bank is compared with its own shuffled pixels. Eight keys of each bank are matched
one to one with those of the others, with the eight published ones of ConvNeXt V2 Tiny and with ``scale-space-8``; the
level of chance is what keys with shuffled pixels give. Families of the same banks, by layer: ``families``.
"""

from itertools import combinations
from typing import Any

from torch import Tensor

from masterkey import Bank
from masterkey.analysis.chance import chance
from masterkey.analysis.drift import drift
from masterkey.analysis.families import LABELS, classify
from masterkey.analysis.structure import measure, survey_all
from masterkey.closed_form.scale_space import scale_space_filters
from masterkey.distill import mean_match, prepare
from masterkey.shapes import shapes_of

from ..measure import describe_machine
from .keys import CHECKPOINTS, NETWORKS, PUBLISHED
from .record import arguments, record

KERNEL = (7, 7)
TRAINED_HERE = ("convnext-atto.tiny-imagenet", "hornet-narrow.tiny-imagenet")
SHUFFLED = "with shuffled pixels"
_DRAWS = 200


def banks() -> list[Bank]:
    """The 7x7 filters of every bank, without dead ones."""
    found = [Bank.from_pretrained(name) for name in TRAINED_HERE]
    found += [Bank.from_checkpoint(CHECKPOINTS / f"{name}.pth") for name in NETWORKS]
    return [bank.select(kernel=KERNEL).pruned(0.1).renamed(bank.name) for bank in found]


def drifts(compared: list[Bank]) -> list[dict[str, Any]]:
    """D between every two banks, and between each and its shuffled pixels, with the level of chance."""
    shuffled = [bank.pixel_shuffled(0).renamed(f"{bank.name} {SHUFFLED}") for bank in compared]
    read = survey_all([*compared, *shuffled])
    structure = measure(read, KERNEL)
    layers = [layer.bank for layer in structure.layers]
    groups = {of.filters.label: [i for i, name in enumerate(layers) if name == of.filters.label] for of in read}
    found = drift(structure, groups)
    level = chance(found)
    at = {label: number for number, label in enumerate(found.labels)}
    names = [bank.name for bank in compared]
    pairs = [*combinations(names, 2), *((name, f"{name} {SHUFFLED}") for name in names)]
    return [
        {
            "between": [a, b],
            "drift": round(float(found.total[at[a], at[b]]), 4),
            "by chance": round(float(level.mean[at[a], at[b]]), 4),
            "above every draw": bool(level.above[at[a], at[b]]),
        }
        for a, b in pairs
    ]


def keys_of(bank: Bank) -> tuple[Bank, dict[str, Any]]:
    """Eight keys by the greedy method, and what they are."""
    result = prepare(bank, "greedy", duplicates=1, random=None).distilled(8)
    families = [LABELS[number] for number in classify(result.bank.layers["keys.weight"][:, 0]).label]
    return result.bank, {"filters": len(bank), "explained": round(result.explained, 4), "families": families}


def unit(keys: Bank) -> Tensor:
    """The shapes (8, 49) of eight keys."""
    return shapes_of(keys.layers["keys.weight"][:, 0]).unit


def matches(keys: dict[str, Bank]) -> list[dict[str, Any]]:
    """Mean |cosine| of each bank's keys with those of every other, and with known ones, with the level of chance."""
    known = {
        "published": unit(Bank.from_checkpoint(PUBLISHED)),
        "scale-space-8": shapes_of(scale_space_filters(KERNEL)).unit,
    }
    known = {**{name: unit(bank) for name, bank in keys.items()}, **known}
    rows = []
    for name, bank in keys.items():
        shuffled = [unit(bank.pixel_shuffled(seed)) for seed in range(_DRAWS)]
        for other in list(known)[list(known).index(name) + 1 :]:
            drawn = [mean_match(each, known[other]) for each in shuffled]
            rows.append(
                {
                    "between": [name, other],
                    "mean cosine": round(mean_match(known[name], known[other]), 4),
                    "by chance": round(sum(drawn) / _DRAWS, 4),
                    "largest by chance": round(max(drawn), 4),
                }
            )
    return rows


def main() -> None:
    """Compute, print and record."""
    parser = arguments(__doc__, "architectures.json")
    options = parser.parse_args()
    compared = banks()
    found = {bank.name: keys_of(bank) for bank in compared}
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "command": "python -m masterkey.benchmarks.scripts.architectures",
        "banks": {name: about for name, (_, about) in found.items()},
        "drift": drifts(compared),
        "keys": matches({name: keys for name, (keys, _) in found.items()}),
        "draws": _DRAWS,
    }
    for row in [*result["drift"], *result["keys"]]:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    record(options.output, result)


if __name__ == "__main__":
    main()
