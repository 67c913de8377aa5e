"""Do an experiment's missing runs one at a time, each on all the processes that torchrun started: for large ones.

torchrun --nproc-per-node 8 -m masterkey.benchmarks.run_one arms --size paper --device cuda --only scratch
torchrun --nproc-per-node 8 -m masterkey.benchmarks.run_one arms --size paper --device cuda 3f2a

The processes share every batch: over gloo on CPUs, over NCCL on GPUs, one for each. The first one plans, claims and
records as a sweep does, and may share a folder of results with sweeps; the others do as it tells. The figures are those
of a single process but for rounding, and for drop path and dropout, which every process draws for itself; how many
processes there were is in the result's ``machine``. What was stopped goes on with the same command; a run that fails
ends all processes, and the same command goes on with the others.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from masterkey.create import build_timm
from masterkey.errors import MasterkeyError
from masterkey.metadata import canonical_json

from .claim import has_no_room
from .config import CHECKPOINT_EVERY, BenchmarkError
from .device import usable_device
from .distributed import Group, is_lost_process, process_group, refuse_batch_norm
from .experiment import SIZES, Experiment, Planned, load_experiment
from .preflight import check_experiment
from .progress import Display
from .runs import compute_run
from .store import ResultStore, default_store
from .sweep import Progress, Summary, Sweep, expected_runs
from .workers import Report, Setup, attempt

_SHOWN = 10  # runs, in a message


@dataclass(frozen=True)
class _One(Experiment):
    """One run of an experiment, with what it needs."""

    run_id: str = ""

    def plan(self, store: ResultStore) -> list[Planned]:
        planned: dict[str, Planned] = {}
        for run in super().plan(store):
            if run.config.id == self.run_id:
                planned |= {needed.config.id: needed for needed in _with_needs(run)}
        return list(planned.values())


class _Together:
    """Does one run at a time, with all processes; leaving it lets the others go."""

    def __init__(self, setup: Setup, group: Group, on_epoch: Callable[[Report], None]) -> None:
        self._setup, self._group, self._on_epoch = setup, group, on_epoch
        self._next: Planned | None = None

    def has_room(self) -> bool:
        """Whether no run is about to be done."""
        return self._next is None

    def start(self, run: Planned) -> None:
        """Take the run; ``wait`` does it."""
        self._next = run

    def wait(self, seconds: float) -> list[Report]:
        """Do the run."""
        assert self._next is not None
        run, self._next = self._next, None
        report = attempt(run.config, self._setup, self._on_epoch, self._group.tell)
        if report.state == "failed" and self._group.size > 1:  # the others may wait in the midst of a step
            raise BenchmarkError(f"run {report.run_id} failed: {report.message}")
        return [report]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._group.tell(None)


def run_together(
    experiment: Experiment, setup: Setup, group: Group, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Summary | None:
    """Do what is missing of an experiment, one run after the other; call it in every process of the group.

    Returns:
        How it ended, in the first process; None in the others.

    Raises:
        MasterkeyError: a network has batch norm, and there are several processes; a run failed (which is recorded), or
            cannot be recorded, or another process has ended. The process should end, as torchrun then ends the others.
    """
    if group.rank > 0:
        _follow(setup, group)
        return None
    if group.size > 1:
        _refuse_batch_norm(experiment, setup.store)
    sweep = Sweep(experiment, setup, on_progress)
    with _Together(setup, group, sweep.hear) as workers:
        sweep.complete(workers)
    return sweep.summary


def one_run(experiment: Experiment, store: ResultStore, text: str) -> Experiment:
    """Return the part of an experiment that the run is whose id begins with ``text``, with what it needs.

    Raises:
        BenchmarkError: there is none, or more than one, or its learning rate is not chosen yet.
    """
    runs = expected_runs(experiment, store)
    found = [run for run in runs if run.config.id.startswith(text)]
    if len(found) != 1:
        named = [f"{run.config.id} ({run.target} {run.arm} seed {run.config.seed})" for run in found or runs]
        more = ", …" if len(named) > _SHOWN else ""
        raise BenchmarkError(
            f"{len(found) or 'no'} runs of {experiment.name} have an id that begins with {text[:40]!r}; there are "
            f"{', '.join(named[:_SHOWN])}{more}"
        )
    part = _One(**vars(experiment), run_id=found[0].config.id)
    if not part.plan(store):
        raise BenchmarkError(
            f"run {part.run_id} is wanted if the learning rate {found[0].config.train.lr:g} is chosen; for that, do "
            "the runs that choose it: leave the run out"
        )
    return part


def _refuse_batch_norm(experiment: Experiment, store: ResultStore) -> None:
    """Say it before the first run: it is no failure of a run, which one process can do."""
    configs = [run.config for run in expected_runs(experiment, store)]
    for config in {canonical_json([each.model, each.model_kwargs]): each for each in configs}.values():
        refuse_batch_norm(build_timm(config.model, num_classes=2, **config.model_kwargs))


def _with_needs(run: Planned) -> list[Planned]:
    return [*(needed for source in run.needs for needed in _with_needs(source)), run]


def _follow(setup: Setup, group: Group) -> None:
    """Train what the first process tells; a failure of this process alone is recorded here."""
    torch.set_num_threads(setup.threads)
    while (config := group.tell()) is not None:
        try:
            compute_run(
                config,
                setup.store,
                checkpoint=setup.store.partial_path(config.id),
                device=setup.device,
                checkpoint_every=setup.checkpoint_every,
                skip_corrupt=setup.skip_corrupt,
            )
        except Exception as error:
            if not is_lost_process(error) and not has_no_room(error):
                setup.store.write_failure(config, error)
            raise BenchmarkError(f"run {config.id}, in process {group.rank}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the runs; 1 if one failed, or what was asked for cannot be done."""
    options = _parser().parse_intermixed_args(arguments)
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # on its machine, which may lack what the others have
    try:
        store = default_store() if options.results is None else ResultStore(options.results.expanduser())
        for name in ("threads", "batch_size"):
            if getattr(options, name) is not None and getattr(options, name) < 1:
                raise BenchmarkError(f"{name.replace('_', '-')} is {getattr(options, name)}; it must be 1 or more")
        experiment = load_experiment(options.experiment, options.size).with_batch_size(options.batch_size)
        experiment = experiment.only(arms=options.only, targets=options.target, models=options.model)
        experiment = experiment.with_seeds(options.seed)
        device = usable_device(options.device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        setup = Setup(
            store,
            device,
            options.threads,
            retry_before=time.time() if options.retry_failed else None,
            checkpoint_every=options.checkpoint_every,
            skip_corrupt=options.skip_corrupt,
        )
        for remark in check_experiment(experiment, store, skip_corrupt=options.skip_corrupt):
            if first:
                print(f"masterkey: {remark}", file=sys.stderr)
        with process_group(device) as group:
            if group.rank == 0 and options.run is not None:
                try:
                    experiment = one_run(experiment, store, options.run)
                except MasterkeyError:
                    group.tell(None)  # lets the others go
                    raise
            return _do(experiment, setup, group)
    except MasterkeyError as error:
        if first:
            print(f"masterkey: {error}", file=sys.stderr)
        return 1


def _do(experiment: Experiment, setup: Setup, group: Group) -> int:
    try:
        with Display() as display:
            summary = run_together(experiment, setup, group, display)
    except (MasterkeyError, RuntimeError) as error:
        lost = is_lost_process(error)
        if group.size == 1 or not (lost or isinstance(error, MasterkeyError)):
            raise
        reason = f"process {group.rank}: another process has ended, or cannot be reached: {error}"
        sentence = reason if lost else str(error)
        print(f"masterkey: {sentence}", file=sys.stderr, flush=True)
        # leaving the group properly could mean to wait for those who wait for this process
        os._exit(1)
    if summary is not None:
        print(summary, file=sys.stderr)
    return int(summary is not None and bool(summary.failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_one", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", help="its name, as in bench list, or a TOML file of your own")
    parser.add_argument("run", nargs="?", help="a run's id, or the beginning of it; all that are missing if not given")
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--only", action="append", default=[], metavar="ARM", help="may be repeated")
    parser.add_argument("--target", action="append", default=[], metavar="DATA", help="may be repeated")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="may be repeated")
    parser.add_argument("--seed", type=int, action="append", default=[], metavar="N", help="may be repeated")
    parser.add_argument("--batch-size", type=int, metavar="N", help="of all processes together, for every run")
    parser.add_argument("--results", type=Path, help="$MASTERKEY_RESULTS or benchmarks/results if not given")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every process (default %(default)s)")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed earlier")
    parser.add_argument("--skip-corrupt", action="store_true", help="leave out pictures that cannot be decoded")
    parser.add_argument("--checkpoint-every", type=float, default=CHECKPOINT_EVERY, metavar="SECONDS")
    return parser


if __name__ == "__main__":
    sys.exit(main())
