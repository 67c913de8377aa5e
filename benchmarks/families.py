"""Share of filters per family in the real banks, against random filters and shuffled pixels of the same norms.

    python -m masterkey.benchmarks.families -o benchmarks/results/families.json

The banks are MCUNet and two ProxylessNAS (MBConv filters, ImageNet-1k), read from ``$MASTERKEY_DATA/checkpoints``; dead
filters are left out. For 7x7 the code line of an autoencoder, trained on each of the three sources, is swept beside the
explicit models. Last, the time of the explicit models on 100,000 random 7x7 filters.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from masterkey.analysis import autoencoder
from masterkey.analysis.families import LABELS, NONE, THRESHOLD, classify, shares, shares_by_layer
from masterkey.analysis.families_line import classify_along, sweep
from masterkey.bank import Bank
from masterkey.shapes import shapes_of

from .keys import CHECKPOINTS, NETWORKS, SOURCES
from .measure import describe_machine

KERNELS = (3, 5, 7)


def planes(bank: Bank) -> Tensor:
    """All filters of a bank of one kernel size, (n, kh, kw)."""
    return torch.cat([layer[:, 0] for layer in bank.layers.values()])


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its numbers to four places."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def by_network(banks: list[Bank]) -> dict[str, Any]:
    """Shares per label: of each network by kernel, and of each of its layers."""
    result: dict[str, Any] = {}
    for bank in banks:
        labels = {name: classify(layer[:, 0]).label for name, layer in bank.layers.items()}
        kernels = {layer.name: layer.kernel[0] for layer in bank.metadata.layers}
        result[bank.name] = {
            "kernels": {
                str(k): rounded(shares(torch.cat([label for name, label in labels.items() if kernels[name] == k])))
                for k in KERNELS
            },
            "layers": [{"kernel": kernels[str(row["layer"])], **rounded(row)} for row in shares_by_layer(labels)],
        }
    return result


def by_source(banks: list[Bank], kernel: int) -> dict[str, Any]:
    """Shares of real filters and controls of one kernel, all networks together; for 7x7 the code line as well."""
    result: dict[str, Any] = {}
    for source, change in SOURCES.items():
        filters = torch.cat([planes(change(bank.select(kernel=kernel), 0)) for bank in banks])
        fits = classify(filters)
        result[source] = {
            "filters": len(filters),
            "shares": rounded(shares(fits.label)),
            "explained at threshold": {
                str(step / 20): round(float((fits.cosine >= step / 20).double().mean()), 4) for step in range(12, 20)
            },
        }
        print(f"{kernel}x{kernel} {source}: {1 - result[source]['shares']['none']:.3f} explained", flush=True)
        if kernel == 7:
            unit = shapes_of(filters).unit
            line = autoencoder.train(unit, 0)
            along = classify_along(line, unit, (kernel, kernel))
            result[source]["code line"] = {
                "losses": [round(loss, 4) for loss in line.losses],
                "families of the samples": [LABELS[number] for number in along.family.tolist()],
                "sweep": [rounded(row) for row in sweep(along, fits.label)],
                "shares at 0.85": rounded(shares(along.at(THRESHOLD))),
                "neither at 0.85": round(
                    float(((along.at(THRESHOLD) == NONE) & (fits.label == NONE)).double().mean()), 4
                ),
            }
    return result


def main() -> None:
    """Compute, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/families.json"))
    options = parser.parse_args()
    banks = [Bank.from_checkpoint(CHECKPOINTS / f"{name}.pth").pruned(0.1) for name in NETWORKS]
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "command": "python -m masterkey.benchmarks.families",
        "threshold": THRESHOLD,
        "kernels": {f"{kernel}x{kernel}": by_source(banks, kernel) for kernel in KERNELS},
        "networks": by_network(banks),
    }
    many = torch.randn(100_000, 7, 7, generator=torch.Generator().manual_seed(0))
    wall, cpu = time.perf_counter(), time.process_time()
    classify(many)
    taken = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    result["100,000 filters"] = {**taken, "threads": torch.get_num_threads()}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(taken)


if __name__ == "__main__":
    main()
