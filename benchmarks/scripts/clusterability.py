"""Clusterability of trained filters against accuracy: real networks, runs from scratch, checkpoints over training.

    python -m masterkey.benchmarks.scripts.clusterability

The measure is ``masterkey.analysis.clusterability``: eight clusters of each network's own, against the same filters
with their pixels shuffled. Networks: the three real ones of ImageNet-1k, with their accuracy on Tiny-ImageNet's
validation pictures (five of each class, 1,000 classes); the runs from scratch whose weights are kept, of ConvNeXt-Atto
and others; the checkpoints of ``formation``. Accuracies of different data sets stand in different groups. Rank
correlations are within a group and one setting of it (size of the pictures, arguments of the network), and with
settings mixed, where what differs between settings may be what makes both. Rows of networks whose weights are gone stay
as they were recorded. ``--plots DIR`` draws the figure.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from masterkey.analysis.clusterability import Clusterability, clusterability
from masterkey.analysis.plots.clusterability import clusterability_scatter
from masterkey.analysis.plots.style import png_bytes
from masterkey.atomic import write_atomically
from masterkey.bank import Bank

from ..arms import data_path, trained_network
from ..measure import describe_machine
from ..store import ResultStore, default_store
from .family_subjects import KEPT
from .formation_runs import snapshot_bank, snapshots
from .mbconv import PUBLISHED, enlarged, fused, load_published, validation_pictures
from .record import arguments, record
from .small_networks import NETWORKS

PER_CLASS = 5
_BATCH = 50
FEWEST = 4  # networks of which a rank correlation is worth a look
SETTING = ("pixels", "arguments")
MIXED = {"": SETTING, "sizes mixed": ("arguments",), "arguments mixed": ("pixels",), "sizes and arguments mixed": ()}

Row = dict[str, Any]


def filters_of(bank: Bank, kernel: int) -> Tensor:
    """The filters (n, k, k) of a bank of one kernel size that are not near dead."""
    return torch.cat([layer.flatten(0, 1) for layer in bank.pruned(0.1).select(kernel=kernel).layers.values()])


def published() -> list[Row]:
    """The real networks: one row for each kernel size."""
    pictures = validation_pictures(PER_CLASS)
    rows = []
    for network in PUBLISHED:
        model = load_published(network, data_path("checkpoints"))
        top1 = _top1(fused(model), pictures.images, pictures.labels, network.pixels)
        bank = Bank.from_model(model)
        for kernel in (3, 5, 7):
            found = clusterability(filters_of(bank, kernel))
            rows.append(row(f"ImageNet-1k networks, {kernel}x{kernel}", network.name, 0, top1, found))
    return rows


def kept_runs(store: ResultStore) -> list[Row]:
    """Every run from scratch whose weights are here."""
    rows = []
    for run_id in store.run_ids():
        if store.is_usable(run_id):
            metrics = (store.read(run_id) or {})["metrics"]
            found = clusterability(filters_of(Bank.from_model(trained_network(run_id, store)), 7))
            rows.append(
                row("", run_id, metrics["train_pictures"], metrics["top1"], found) | place_of(metrics["config"])
            )
    return rows


def place_of(config: Mapping[str, Any]) -> Row:
    """Group and setting of a run."""
    data = config["data"]
    arguments = ", ".join(f"{key} {value}" for key, value in sorted(config["model_kwargs"].items()))
    return {
        "group": f"{config['model']}, {data['name']}, {data['evaluate']}, {config['train']['epochs']} epochs",
        "pixels": f"{data['pixels']} px",
        "arguments": arguments or "as timm has it",
    }


def with_recorded(rows: list[Row], recorded: Iterable[Row], store: ResultStore) -> list[Row]:
    """Add what was recorded of networks that are not here any more; a run's place is read from its result."""
    here = {_name(each) for each in rows}
    gone = [each for each in recorded if _name(each) not in here]
    runs = {each["network"]: store.read(each["network"]) for each in gone if each["network"] in store.run_ids()}
    return rows + [
        {**each, **place_of(run["metrics"]["config"])} if (run := runs.get(each["network"])) else each for each in gone
    ]


def _name(each: Row) -> tuple[str, str]:
    """A row's network, with the kernel size where it has one row for each."""
    return each["network"], each["group"] if "ImageNet" in each["group"] else ""


def checkpoints(kept: Path) -> list[Row]:
    """The checkpoints of every finished run of ``formation`` that were evaluated, and the weights as drawn."""
    rows = []
    for network in NETWORKS:
        for folder in sorted(kept.glob(f"{network}-*")):
            if not (folder / "run.json").exists():
                continue
            run = json.loads((folder / "run.json").read_text())
            accuracy = {epoch["epoch"] + 1: epoch["top1"] for epoch in run["curve"]}
            for epochs in snapshots():
                found = clusterability(filters_of(snapshot_bank(network, folder, epochs), 3))
                name = f"{folder.name} after {epochs}"
                top1 = accuracy.get(epochs, 100 / 10)  # as drawn: chance
                rows.append(row(f"{network} over training, cifar10", name, run["train_pictures"], top1, found))
    return rows


def row(group: str, name: str, pictures: int, top1: float, found: Clusterability) -> Row:
    """One network's figures; ``pictures`` is how many it learnt from, 0 for ImageNet's 1.28 million."""
    figures = {key: round(value, 4) for key, value in asdict(found).items()}
    return {"group": group, "network": name, "train_pictures": pictures or 1_281_167, "top1": round(top1, 2)} | {
        **figures,
        "gain": round(found.gain, 4),
    }


def correlations(rows: list[Row]) -> dict[str, Any]:
    """Spearman's rank correlation of gain with accuracy in every group, of one setting and with settings mixed."""
    found: dict[str, Any] = {}
    told: set[frozenset[str]] = set()
    for mixed, same in MIXED.items():
        groups: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for each in rows:
            groups[each["group"], *(each.get(key) for key in same)].append(each)
        for key, members in groups.items():
            names = frozenset(each["network"] for each in members)
            if len(members) < FEWEST or names in told:  # nothing is mixed where there is one setting
                continue
            told.add(names)
            outcome = spearmanr([each["gain"] for each in members], [each["top1"] for each in members])
            found[", ".join(part for part in (*key, mixed) if part)] = {
                "networks": len(members),
                "spearman": round(float(outcome.statistic), 3),
                "p": round(float(outcome.pvalue), 4),
            }
    return found


@torch.inference_mode()
def _top1(model: nn.Module, images: Tensor, labels: Tensor, pixels: int) -> float:
    guesses = torch.cat([model(enlarged(part, pixels)).argmax(1) for part in images.split(_BATCH)])
    return 100 * float((guesses == labels).double().mean())


def main() -> None:
    """Compute, print and record."""
    parser = arguments(__doc__, "clusterability.json")
    parser.add_argument("--plots", type=Path, help="folder for the figure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = default_store()
    recorded = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    rows = with_recorded([*published(), *kept_runs(store), *checkpoints(KEPT)], recorded, store)
    result = {
        "machine": describe_machine(),
        "command": "python -m masterkey.benchmarks.scripts.clusterability",
        "correlation of gain with accuracy": correlations(rows),
        "rows": rows,
    }
    record(options.output, result)
    if options.plots:
        points: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for each in rows:
            points[each["group"]].append((each["gain"], each["top1"]))
        write_atomically(options.plots / "clusterability.png", png_bytes(clusterability_scatter(points)))
    for each in rows:
        print(f"{each['group']:50} {each['network']:34} top1 {each['top1']:6.2f} gain {each['gain']:.3f}")
    print(json.dumps(result["correlation of gain with accuracy"], indent=1))


if __name__ == "__main__":
    main()
