"""How filters form while small networks learn CIFAR-10, and whether another seed forms the same ones (001, 4.2).

    nice -n 5 python -m masterkey.benchmarks.scripts.formation

A ResNet-9 (dense 3x3, widths 16 to 128) and timm's MobileNetV2 at half width (depthwise 3x3, stem of stride 1), three
seeds each, 500 pictures of each class, 12 epochs, weights kept every two. Small on purpose: all six runs take about
12 minutes of one idle core. Accuracy is on a validation part of 500 pictures of each class; nothing is tuned on it.
Weights stay under benchmarks/results/kept/formation and are not committed. Runs are recorded one by one; after a kill
the same command goes on. ``--plots DIR`` draws the figures.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from masterkey.analysis.formation import Formation, Reproducibility, formation, reproducibility
from masterkey.analysis.plots.formation import formation_curves, reproducibility_boxes
from masterkey.analysis.plots.style import png_bytes
from masterkey.atomic import write_atomically

from ..measure import describe_machine
from .family_subjects import KEPT
from .formation_runs import SEEDS, do_run, snapshot_bank, snapshots
from .record import arguments, record
from .small_networks import NETWORKS


def formation_of(network: str, seed: int, kept: Path) -> Formation:
    """Measure the formation of one run."""
    folder = kept / f"{network}-{seed}"
    return formation({str(epochs): snapshot_bank(network, folder, epochs) for epochs in snapshots()})


def described(of: Formation) -> dict[str, Any]:
    """A formation as plain data: one list a checkpoint, one number a layer in it."""
    return {
        "epochs": [int(label) for label in of.labels],
        "layers": [{"layer": info.name, "depth": round(info.depth, 3), "filters": info.filters} for info in of.layers],
        "S": _plain(of.sparsity),
        "H": _plain(of.entropy),
        "T_H": _plain(of.threshold),
        "layers above T_H": (of.entropy > of.threshold).sum(axis=1).tolist(),
        "D to the last, by layer": _plain(of.to_last),
        "D to the last, all layers": _plain(of.whole_to_last),
        "deviations of the coefficients": _plain(of.deviations),
        "explained variance": _plain(of.explained),
    }


def compared(of: Reproducibility) -> dict[str, Any]:
    """Reproducibility as plain data."""
    return {
        "halves of a run": {model: _plain(np.array(values)) for model, values in of.halves.items()},
        "two seeds": {model: _plain(np.array(values)) for model, values in of.seeds.items()},
        "two models": _plain(np.array(of.models)),
        "same layer, two seeds": {model: _plain(values) for model, values in of.same_layer.items()},
        "same layer, two seeds, median": {model: _median(values) for model, values in of.same_layer.items()},
        "two layers, one seed, median": {model: _median(values) for model, values in of.other_layer.items()},
    }


def among_seeds(epochs: int, kept: Path) -> Reproducibility:
    """Compare all runs that are complete after so many epochs."""
    runs = {
        network: [seed for seed in SEEDS if (kept / f"{network}-{seed}" / "run.json").exists()] for network in NETWORKS
    }
    return reproducibility(
        {
            network: [snapshot_bank(network, kept / f"{network}-{seed}", epochs) for seed in seeds]
            for network, seeds in runs.items()
            if seeds
        }
    )


def _plain(values: Any) -> Any:
    return np.round(values, 5).tolist()


def _median(values: Any) -> float | None:
    return round(float(np.median(values)), 5) if len(values) else None


def main() -> None:
    """Train what is missing, measure, record."""
    parser = arguments(__doc__, "formation.json")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the weights")
    parser.add_argument("--measure-only", action="store_true", help="train nothing, measure the runs that are there")
    parser.add_argument("--plots", type=Path, help="folder for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {"runs": {}}
    result |= {"machine": describe_machine(), "command": "python -m masterkey.benchmarks.scripts.formation"}

    for network in NETWORKS:
        for seed in SEEDS:
            name = f"{network}-{seed}"
            if options.measure_only and not (options.kept / name / "run.json").exists():
                continue
            run = do_run(network, seed, options.kept / name)
            result["runs"][name] = {**run, "formation": described(formation_of(network, seed, options.kept))}
            drawn, trained = (among_seeds(epochs, options.kept) for epochs in (0, snapshots()[-1]))
            result["reproducibility"] = {"as drawn": compared(drawn), "trained": compared(trained)}
            record(options.output, result, indent=None)
    if "reproducibility" not in result:
        raise SystemExit(f"no complete run in {options.kept}")
    if options.plots:
        for network in NETWORKS:
            picture = formation_curves(formation_of(network, 0, options.kept), f"{network}, seed 0: epochs of training")
            write_atomically(options.plots / f"formation-{network}.png", png_bytes(picture))
        write_atomically(options.plots / "reproducibility.png", png_bytes(reproducibility_boxes(trained)))
    print(json.dumps(result["reproducibility"]["trained"], indent=1))


if __name__ == "__main__":
    main()
