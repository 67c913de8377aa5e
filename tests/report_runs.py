"""Experiments whose runs have known figures, without any training."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from masterkey.benchmarks.experiment import Experiment, Planned
from masterkey.benchmarks.report import write_report
from masterkey.benchmarks.report.section import Section, make_section
from masterkey.benchmarks.store import ResultStore

Accuracy = Callable[[Planned], float | None]

SCRATCH, RANDOM = {"name": "scratch"}, {"name": "random", "bank": "random"}
BANK, SELFFER = {"name": "bank", "bank": "scale-space-8"}, {"name": "selffer", "bank": "selffer"}
PLACE = ("convnext_atto", "pets")
MACHINE = {"cpu": "Invented 3000", "cores": 2, "device": "cpu", "threads": 1, "torch": "2.10.0", "load_average": [0, 0]}


def experiment(arms: list[dict[str, Any]], layout: str = "arms", **raw: Any) -> Experiment:
    """An experiment of 4 epochs on one network and two seeds, if not told otherwise."""
    given = {"targets": ["pets"], "models": ["convnext_atto"], "seeds": [0, 1], "lrs": [1e-3], **raw}
    given["train"] = {"epochs": 4, "warmup_epochs": 0}
    return Experiment("tiny", "small", "A tiny experiment", "The paper says so.", layout, {**given, "arms": arms})


def finish(what: Experiment, store: ResultStore, accuracy: Accuracy, seconds: float = 1.0) -> None:
    """Write a result for every run that is planned; where ``accuracy`` gives None the run stays missing.

    The curve rises in equal steps to the accuracy; an epoch takes ``seconds``, a run 5 seconds more in all.
    """
    while True:
        new = [run for run in what.plan(store) if store.read(run.config.id) is None and accuracy(run) is not None]
        if not new:
            return
        for run in new:
            write_run(run, store, accuracy(run), seconds)


def write_run(
    run: Planned, store: ResultStore, top1: float, seconds: float, fall: float = 0.1, **pictures: Any
) -> None:
    """Write one result; ``pictures`` are what it says of them, ``fall`` is what the loss falls by in every epoch."""
    epochs = run.config.train.epochs
    curve = [
        {"epoch": i, "train_loss": (1 - fall) ** i, "loss": 1.0, "top1": top1 * (i + 1) / epochs, "lr": 1e-3}
        for i in range(epochs)
    ]
    metrics = {"classes": 37, "train_pictures": 3680, "evaluated_pictures": 3669, "curve": curve, "top1": top1}
    times = {"seconds": seconds * epochs + 5, "epoch_seconds": [seconds] * epochs, "peak_memory": 300 * 2**20}
    metrics |= {"data_sha256": "0" * 64, "bank_sha256": None, "injection": None, **pictures}
    store.write(run.config, metrics, {**MACHINE, **times})


def by_arm(table: dict[str, list[float]]) -> Accuracy:
    """Accuracies by arm and seed, for every target and stage."""
    return lambda run: dict(enumerate(table.get(run.arm, []))).get(run.config.seed)


def rows(section: Section, table: str, **wanted: Any) -> list[Mapping[str, Any]]:
    """The rows of a table with these values."""
    return [row for row in section.tables[table].rows if all(row[key] == value for key, value in wanted.items())]


def row(section: Section, table: str, **wanted: Any) -> Mapping[str, Any]:
    """The one row of a table with these values."""
    (only,) = rows(section, table, **wanted)
    return only


def report(what: Experiment, store: ResultStore, folder: Path) -> str:
    """Write the report and return its page."""
    page, *_ = write_report([what], store, folder)
    return page.read_text(encoding="utf-8")


def three_seeds(
    store: ResultStore, arms: Sequence[dict[str, Any]] = (SCRATCH, RANDOM, BANK), **accuracies: list[float]
) -> Section:
    """Three seeds whose levels differ by far more than the arms do, so that only pairing finds the differences."""
    what = experiment(list(arms), seeds=[0, 1, 2])
    given = {"scratch": [10.0, 20.0, 30.0], "random": [9.0, 20.0, 28.0], "bank": [17.0, 28.0, 39.0], **accuracies}
    finish(what, store, by_arm(given))
    return make_section(what, store, None)
