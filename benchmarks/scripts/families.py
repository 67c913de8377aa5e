"""Families of the filters of every bank at hand, by kernel: explicit models, a code line, and controls.

    python -m masterkey.benchmarks.scripts.families

The banks are MCUNet and two ProxylessNAS (MBConv filters, ImageNet-1k), read from ``$MASTERKEY_DATA/checkpoints``, the
two that were trained here and ship in the package, and, where ``formation`` left it, its ResNet-9 with dense 3x3
filters. Dead filters are left out (of the dense network, all are taken). For every bank and kernel size, and for the
three of ImageNet-1k together, an autoencoder is trained on the real filters and on each control (white noise of the
same norms, the same filters with their pixels shuffled), its line swept beside the explicit models, and the loss curve
kept. Shares are also stated layer by layer with the layer's depth. Last, the time of the explicit models on 100,000
random 7x7 filters. Every bank is written as soon as it is done, and the same command goes on where it was broken off.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from masterkey.analysis.controls import CONTROLS
from masterkey.analysis.families import LABELS, NONE, THRESHOLD, Families, classify, shares, shares_by_layer
from masterkey.analysis.families_line import classify_along, sweep
from masterkey.atomic import write_atomically
from masterkey.bank import Bank
from masterkey.catalog import recipes
from masterkey.distill import autoencoder
from masterkey.shapes import shapes_of

from ..measure import describe_machine
from .family_subjects import KEPT
from .formation_runs import snapshot_bank, snapshots
from .keys import CHECKPOINTS, NETWORKS
from .record import arguments, recorded

KERNELS = (3, 5, 7)
DENSE = "resnet9"
TOGETHER = "ImageNet-1k banks together"
COLUMNS = ("layer", "kernel", "depth", "filters", *LABELS)


def published() -> list[Bank]:
    """The three networks of ImageNet-1k, without dead filters."""
    return [Bank.from_checkpoint(CHECKPOINTS / f"{name}.pth").pruned(0.1) for name in NETWORKS]


def trained_here() -> list[Bank]:
    """The banks that ship in the package, without dead filters, and the dense filters of ``formation`` if at hand."""
    banks = [Bank.from_pretrained(name).pruned(0.1) for name, recipe in recipes().items() if recipe.rule == "trained"]
    folder = KEPT / f"{DENSE}-0"
    return banks + ([snapshot_bank(DENSE, folder, snapshots()[-1])] if (folder / "run.json").exists() else [])


def planes(banks: Sequence[Bank], kernel: int) -> dict[str, Tensor]:
    """The filters (n, kernel, kernel) of every layer of this kernel size, by bank and layer."""
    return {
        f"{bank.name}/{name}": layer.flatten(0, 1)
        for bank in banks
        for name, layer in bank.layers.items()
        if layer.shape[2:] == (kernel, kernel)
    }


def of_kernel(layers: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Figures of some layers' filters of one kernel by source, and the labels of each layer by source."""
    real = torch.cat(list(layers.values()))
    sizes = [len(layer) for layer in layers.values()]
    figures, labels = {}, {}
    for source in ("real", *CONTROLS):
        filters = CONTROLS[source](real, 0) if source in CONTROLS else real
        fits = classify(filters)
        figures[source] = {
            "filters": len(filters),
            "shares": rounded(shares(fits.label)),
            "explained at threshold": {
                str(step / 20): round(float((fits.cosine >= step / 20).double().mean()), 4) for step in range(8, 20)
            },
            "code line": code_line(filters, fits),
        }
        labels[source] = dict(zip(layers, fits.label.split(sizes), strict=True))
    return figures, labels


def code_line(filters: Tensor, fits: Families) -> dict[str, Any]:
    """Train an autoencoder on filters (n, kh, kw) and compare its line with the explicit models."""
    unit = shapes_of(filters).unit
    line = autoencoder.train(unit, 0)
    along = classify_along(line, unit, (filters.shape[1], filters.shape[2]))
    named = along.at(THRESHOLD)
    return {
        "losses": [round(loss, 4) for loss in line.losses],
        "families of the samples": dict(Counter(LABELS[number] for number in along.family.tolist())),
        "sweep": [rounded(row) for row in sweep(along, fits.label)],
        "shares at 0.85": rounded(shares(named)),
        "no family by either at 0.85": round(float(((named == NONE) & (fits.label == NONE)).double().mean()), 4),
    }


def of_bank(bank: Bank) -> dict[str, Any]:
    """Figures of a bank by kernel and source, and its shares layer by layer."""
    kernels: dict[str, Any] = {}
    labels: dict[str, dict[str, Tensor]] = {source: {} for source in ("real", *CONTROLS)}
    for kernel in KERNELS:
        layers = planes([bank], kernel)
        if layers:
            kernels[f"{kernel}x{kernel}"], found = of_kernel(layers)
            for source, by_layer in found.items():
                labels[source] |= {name.partition("/")[2]: label for name, label in by_layer.items()}
            report(f"{bank.name} {kernel}x{kernel}", kernels[f"{kernel}x{kernel}"])
    sides = {layer.name: layer.kernel[0] for layer in bank.metadata.layers}
    rows = {
        source: [
            [{"kernel": sides[str(row["layer"])], **rounded(row)}[column] for column in COLUMNS]
            for row in shares_by_layer({name: found[name] for name in bank.layers})
        ]
        for source, found in labels.items()
    }
    return {"kernels": kernels, "layers": {"columns": COLUMNS, **rows}}


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its numbers to four places."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def report(what: str, figures: Mapping[str, Any]) -> None:
    """Print a line a source."""
    for source, found in figures.items():
        at = next(row for row in found["code line"]["sweep"] if row["threshold"] == THRESHOLD)
        print(f"{what} {source}: models {1 - found['shares']['none']:.3f}, line {at['assigned']:.3f}", flush=True)


def written(result: Mapping[str, Any], output: Path) -> None:
    """Write the result, lists of numbers on one line each."""
    text = json.dumps(result, indent=1)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    write_atomically(output, (text + "\n").encode())


def main() -> None:
    """Compute, print and record."""
    parser = arguments(__doc__, "families.json")
    options = parser.parse_args()
    known: dict[str, Any] = recorded(options.output)
    together, by_bank = known.get(TOGETHER, {}), known.get("banks", {})
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "command": "python -m masterkey.benchmarks.scripts.families",
        "threshold": THRESHOLD,
        TOGETHER: together,
        "banks": by_bank,
    }
    networks = published()
    for kernel in KERNELS:
        size = f"{kernel}x{kernel}"
        if size not in together:
            together[size], _ = of_kernel(planes(networks, kernel))
            report(f"together {size}", together[size])
            written(result, options.output)
    for bank in [*networks, *trained_here()]:
        if bank.name not in by_bank:
            by_bank[bank.name] = of_bank(bank)
            written(result, options.output)
    many = torch.randn(100_000, 7, 7, generator=torch.Generator().manual_seed(0))
    wall, cpu = time.perf_counter(), time.process_time()
    classify(many)
    taken = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    result["100,000 filters"] = {**taken, "threads": torch.get_num_threads()}
    written(result, options.output)
    print(taken)


if __name__ == "__main__":
    main()
