"""The trainings whose filters are watched: small networks on CIFAR-10, all weights kept every few epochs.

A run's weights lie in a folder of its own, one file for each snapshot; ``run.json`` there is written last and says that
the run is complete. A run that was broken off goes on from its checkpoint, or starts again where a snapshot is missing.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from masterkey.atomic import write_atomically
from masterkey.bank import Bank

from ..config import DataConfig, TrainConfig
from ..data import Data, load_data
from ..training import Epoch, train
from .record import record
from .small_networks import KINDS, build_small

SEEDS = (0, 1, 2)
EVERY = 2  # epochs between two snapshots
DATA = DataConfig("cifar10", pixels=32, evaluate="validation", per_class=500)
TRAIN = TrainConfig(
    epochs=12,
    batch_size=64,
    lr=3e-3,
    warmup_epochs=1,
    smoothing=0.0,
    scale=(0.5, 1.0),
    val_interval=EVERY,
    channels_last=True,
)
# bfloat16 takes 0.6 of the time for dense convolutions on the processor this was made on, 2 times for depthwise ones
RECIPES = {"resnet9": replace(TRAIN, amp=True), "mobilenetv2": TRAIN}


def snapshots(recipe: TrainConfig = TRAIN) -> list[int]:
    """Epochs done at each snapshot, from 0, the weights as drawn, to the last."""
    return [*range(0, recipe.epochs, EVERY), recipe.epochs]


def do_run(
    network: str, seed: int, folder: Path, data: DataConfig = DATA, recipe: TrainConfig | None = None
) -> dict[str, Any]:
    """Train one network with one seed unless that is done, and return what ``run.json`` says of it.

    Raises:
        BenchmarkError: the data cannot be used, or training fails.
        SaveError: the folder cannot be written.
    """
    done = folder / "run.json"
    if not done.exists():
        _train(network, seed, folder, data, recipe or RECIPES[network], done)
    found: dict[str, Any] = json.loads(done.read_text())
    return found


def snapshot_bank(network: str, folder: Path, epochs: int) -> Bank:
    """The filters of a run after so many epochs."""
    model = snapshot_network(network, folder, epochs)
    return Bank.from_model(model, KINDS[network]).renamed(f"{folder.name} after {epochs}")


def snapshot_network(network: str, folder: Path, epochs: int) -> torch.nn.Module:
    """The network of a run after so many epochs, in evaluation mode."""
    state = load_file(_snapshot(folder, epochs))
    classes = next(value.shape[0] for name, value in state.items() if name in ("head.weight", "classifier.weight"))
    model = build_small(network, classes, 0)
    model.load_state_dict(state)
    return model.eval()


def _train(network: str, seed: int, folder: Path, data: DataConfig, recipe: TrainConfig, done: Path) -> None:
    pictures = load_data(data)
    model = build_small(network, len(pictures.classes), seed)
    checkpoint = folder / "checkpoint.pt"
    folder.mkdir(parents=True, exist_ok=True)
    _drop_unless_snapshots_are_there(checkpoint, folder, snapshots(recipe))
    if not checkpoint.exists():
        _keep(model, folder, 0)

    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch + 1 in snapshots(recipe):
            _keep(model, folder, epoch.epoch + 1)
            print(f"{network}, seed {seed}: {epoch.epoch + 1} epochs, {epoch.top1} %", flush=True)

    outcome = train(model, pictures, recipe, seed=seed, checkpoint=checkpoint, checkpoint_every=60, on_epoch=on_epoch)
    result = {
        "network": network,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **_described(data, recipe, pictures),
        "curve": [epoch.to_dict() for epoch in outcome.curve],
        "top1": outcome.top1,
        "seconds": round(sum(outcome.epoch_seconds), 1),
    }
    record(done, result)
    checkpoint.unlink(missing_ok=True)


def _described(data: DataConfig, recipe: TrainConfig, pictures: Data) -> dict[str, Any]:
    return {
        "data": asdict(data),
        "recipe": asdict(recipe),
        "train_pictures": len(pictures.train.labels),
        "evaluated_pictures": len(pictures.evaluate.labels),
    }


def _keep(model: torch.nn.Module, folder: Path, epochs: int) -> None:
    state = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    write_atomically(_snapshot(folder, epochs), save(state))


def _snapshot(folder: Path, epochs: int) -> Path:
    return folder / f"epoch-{epochs:03d}.safetensors"


def _drop_unless_snapshots_are_there(checkpoint: Path, folder: Path, wanted: list[int]) -> None:
    """The checkpoint is written before an epoch's snapshot: a kill between them would lose that snapshot."""
    if not checkpoint.exists():
        return
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if not all(_snapshot(folder, epochs).exists() for epochs in wanted if epochs <= state["epoch"]):
        checkpoint.unlink()
