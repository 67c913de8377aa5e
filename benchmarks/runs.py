"""Do one run: data, arm, training, result."""

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

import masterkey
from masterkey.atomic import write_atomically
from masterkey.metadata import canonical_json

from .arms import build_arm
from .bfloat16 import are_products_wide
from .config import CHECKPOINT_EVERY, BenchmarkError, RunConfig
from .data import load_data
from .device import recorded_device
from .errors import DivergedError
from .measure import describe_machine
from .memory import forget_peak_memory
from .numerics import describe_numerics
from .store import WEIGHTS_NAME, ResultStore
from .training import Epoch, train


@dataclass(frozen=True)
class Finished:
    """What a run gave, not yet recorded.

    ``metrics`` depend on the description alone; times and memory are in ``machine``. ``weights`` are a safetensors
    file, or None where nobody may take them.
    """

    metrics: dict[str, Any]
    machine: dict[str, Any]
    weights: bytes | None


def do_run(
    config: RunConfig,
    store: ResultStore,
    *,
    device: str = "cpu",
    checkpoint_every: float = CHECKPOINT_EVERY,
    skip_corrupt: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> None:
    """Train one arm with one seed and record it; a run that was broken off goes on from its checkpoint.

    The arguments are those of ``compute_run``.

    Raises:
        MasterkeyError: data, arm or training cannot be used as described.
        SaveError: the result cannot be written; the checkpoint stays.
    """
    partial = store.partial_path(config.id)
    try:
        finished = compute_run(
            config,
            store,
            checkpoint=partial,
            device=device,
            checkpoint_every=checkpoint_every,
            skip_corrupt=skip_corrupt,
            on_epoch=on_epoch,
        )
    except DivergedError:  # from its checkpoint it would again
        partial.unlink(missing_ok=True)
        raise
    record_run(config, finished, store)
    partial.unlink(missing_ok=True)


def compute_run(
    config: RunConfig,
    store: ResultStore,
    *,
    checkpoint: Path,
    device: str = "cpu",
    checkpoint_every: float = CHECKPOINT_EVERY,
    skip_corrupt: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Finished:
    """Train one arm with one seed, on any machine; in all the processes that torchrun started.

    Args:
        config: the run.
        store: holds the runs whose filters or weights are taken; nothing is written to it.
        checkpoint: how far the run is; written while it is trained, and left there.
        device: ``cpu``, ``cuda``, ``cuda:1``.
        checkpoint_every: seconds between two checkpoints.
        skip_corrupt: leave out the pictures that cannot be decoded, and name them in ``metrics``.
        on_epoch: called after every epoch.

    Raises:
        MasterkeyError: data, arm or training cannot be used as described.
    """
    data = load_data(config.data, skip_corrupt=skip_corrupt)
    # what it took to decode the pictures is a matter of which run was the first, and no arm's
    start = time.perf_counter()
    forget_peak_memory()
    arm = build_arm(config, len(data.classes), store)
    here = {
        "device": recorded_device(device),
        "threads": torch.get_num_threads(),
        **_products(config, device),
        **_processes(),
    }
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    outcome = train(
        arm.model,
        data,
        config.train,
        seed=config.seed,
        device=device,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        on_epoch=on_epoch,
        began=start,
        bank=arm.bank_sha256,
        numerics=describe_numerics({**describe_machine(), **here}),
    )
    moved = masterkey.verify(arm.model) if _frozen(config) else []
    if moved:
        raise BenchmarkError(f"run {config.id}: frozen filters moved in {', '.join(moved)}")
    metrics = {
        "classes": len(data.classes),
        "train_pictures": len(data.train.labels),
        "evaluated_pictures": len(data.evaluate.labels),
        "data_sha256": data.sha256,
        "bank_sha256": arm.bank_sha256,
        "injection": arm.injection,
        "curve": [epoch.to_dict() for epoch in outcome.curve],
        "top1": outcome.top1,
        "mistakes": [list(mistake) for mistake in outcome.mistakes],
    }
    if data.skipped:
        metrics["skipped_pictures"] = list(data.skipped)
    machine = {
        **describe_machine(),  # at the end: the load was the run's
        **here,
        "seconds": round(outcome.earlier_seconds + time.perf_counter() - start, 2),
        "epoch_seconds": [round(seconds, 3) for seconds in outcome.epoch_seconds],
        "peak_memory": outcome.peak_memory,
    }
    if outcome.earlier_numerics:
        machine["earlier"] = list(outcome.earlier_numerics)
    return Finished(metrics, machine, _to_safetensors(arm.model) if config.is_source else None)


def record_run(config: RunConfig, finished: Finished, store: ResultStore) -> None:
    """Put a run into the store: first the weights that others may take, then the result that says they are there.

    A result that is there stays as it is: a source may be trained again for weights that are not here. Where that gives
    other figures, as another processor may, a warning says so: what takes its filters from here on takes other ones.

    Raises:
        SaveError: they cannot be written.
    """
    if finished.weights is not None:
        write_atomically(store.kept_path(config.id) / WEIGHTS_NAME, finished.weights)
    there = store.read(config.id)
    if there is None:
        store.write(config, finished.metrics, finished.machine)
    elif canonical_json(finished.metrics) != canonical_json(
        {key: there["metrics"].get(key) for key in finished.metrics}
    ):
        warnings.warn(
            f"run {config.id}, trained again for its weights, ends at {finished.metrics['top1']:.2f} % where "
            f"{there['metrics']['top1']:.2f} is recorded, or differs before: its filters are not those of the record",
            stacklevel=2,
        )
    store.failed_path(config.id).unlink(missing_ok=True)


def _frozen(config: RunConfig) -> bool:
    return config.arm.bank is not None and bool(config.arm.inject.get("freeze", True))


def _to_safetensors(model: torch.nn.Module) -> bytes:
    return bytes(save({name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}))


def _products(config: RunConfig, device: str) -> dict[str, str]:
    """How bfloat16 was computed, if not by the machine's own: that, too, decides the last bits."""
    wide = config.train.amp and are_products_wide(torch.device(device))
    return {"bfloat16": "products in float32, rounded"} if wide else {}


def _processes() -> dict[str, int]:
    """How many processes shared the run, if there were several: that decides the last bits of its figures."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    return {"processes": size} if size > 1 else {}
