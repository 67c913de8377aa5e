"""Do everything that an experiment plans: resumable at any moment, and never twice."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from masterkey.errors import SaveError

from .claim import claim, is_claimed, settled
from .config import CHECKPOINT_EVERY, BenchmarkError
from .device import plain_device, usable_device
from .experiment import Experiment, Planned
from .interrupt import Interrupts
from .store import ResultStore
from .workers import ProcessWorkers, Report, Setup, State, Workers


@dataclass(frozen=True)
class Progress:
    """A moment of a sweep: what happened to a run, and how much is behind.

    ``fraction`` is the part of the run's epochs that is done. ``settled`` runs of ``total`` are done or failed;
    ``total`` may still move a little, as what is needed depends on the learning rates that are chosen.
    """

    run: Planned
    state: State
    message: str
    fraction: float
    settled: int
    total: int


@dataclass
class Summary:
    """How a sweep ended, by run ids.

    ``done`` here; ``already_there``, from before or from another sweep; ``failed`` with what went wrong, now or
    earlier; ``blocked``, because a run that failed decides on them.
    """

    done: list[str] = field(default_factory=list)
    already_there: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return dict(vars(self))

    def __str__(self) -> str:
        counts = {
            "done": len(self.done),
            "already there": len(self.already_there),
            "failed (see bench show; --retry-failed tries again)": len(self.failed),
            "not runnable, because a run that they depend on failed": len(self.blocked),
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing to do"


def run_sweep(
    experiment: Experiment,
    store: ResultStore,
    *,
    jobs: int = 1,
    threads: int = 1,
    device: str = "cpu",
    retry_before: float | None = None,
    ray: str | None = None,
    gpus: float = 0.0,
    checkpoint_every: float = CHECKPOINT_EVERY,
    skip_corrupt: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Summary:
    """Do what is missing of an experiment. The same call after a kill goes on where it stopped.

    Sweeps may share a folder of results: no run is done twice. A run from scratch whose result is there but whose
    weights are not is trained again when another run needs them; its result stays as it is.

    Args:
        experiment: what to do.
        store: where the results go.
        jobs: so many runs at once, each in a process of its own.
        threads: of every run, whatever ``jobs`` is: they decide the last bits of its figures.
        device: of every run.
        retry_before: try again what failed before this time (seconds since 1970).
        ray: address of a Ray cluster to do it on, instead of ``jobs``; a node with room for a run must be there.
        gpus: the share of a GPU that a run takes there.
        checkpoint_every: seconds of a run between two checkpoints.
        skip_corrupt: leave out the pictures that cannot be decoded; the result names them.
        on_progress: called whenever a run starts an epoch or ends.

    Raises:
        BenchmarkError: a result that cannot be used is in the folder; a device that does not exist; no Ray, or
            no node of it with ``threads`` CPUs and ``gpus``; started by torchrun.
        SaveError: results cannot be written (a full disk). What was written before is whole.
    """
    _refuse_torchrun()
    device = usable_device(device) if ray is None else plain_device(device)
    setup = Setup(store, device, threads, gpus, retry_before, checkpoint_every, skip_corrupt)
    sweep = Sweep(experiment, setup, on_progress)
    with Interrupts() as interrupts, _workers(setup, jobs, ray) as workers:
        sweep.complete(workers, interrupts.check)
    return sweep.summary


def expected_runs(experiment: Experiment, store: ResultStore) -> list[Planned]:
    """Return all runs of an experiment, in order; a learning rate that is not chosen yet is guessed.

    Where the choice differs from the guess, a run or two more may turn out to be needed.
    """
    return experiment.plan(_Scores(store.root, guess=True))


@dataclass(frozen=True)
class _Scores(ResultStore):
    """A store that knows of a finished run only its score, which is all that a plan depends on, and reads it once.

    With ``guess``, a run that is missing has the lowest score, so that every learning rate is chosen.
    """

    known: dict[str, float] = field(default_factory=dict)
    guess: bool = False

    def read(self, run_id: str) -> dict[str, Any] | None:
        if run_id not in self.known:
            result = super().read(run_id)
            if result is None:
                return {"metrics": {"top1": 0.0}} if self.guess else None
            self.known[run_id] = result["metrics"]["top1"]
        return {"metrics": {"top1": self.known[run_id]}}


class Sweep:
    """The state of a sweep: what is running, and what has become of the others. See ``run_sweep``."""

    def __init__(self, experiment: Experiment, setup: Setup, on_progress: Callable[[Progress], None]) -> None:
        self.experiment, self.setup, self.on_progress = experiment, setup, on_progress
        self.summary = Summary()
        self.scores = _Scores(setup.store.root)
        self.running: dict[str, Planned] = {}
        self.finished: set[str] = set()
        self.expected: dict[str, Planned] = {}
        self.wanted: dict[str, Planned] = {}
        self.waiting_for: set[str] = set()

    def complete(self, workers: Workers, check: Callable[[], None] = lambda: None) -> None:
        """Start what is ready and hear what comes of it, until nothing is left that could be done.

        ``check`` is called between two steps and may raise, to break it off.
        """
        self._look()
        while True:
            check()
            elsewhere = self._start_ready(workers)
            check()
            if not self.running and not elsewhere:
                break
            if not self.running:
                self._wait_for(elsewhere)
            reports = workers.wait(1.0) if self.running else []
            for report in reports:
                self.hear(report)
            if elsewhere or any(report.run_id not in self.running for report in reports):
                self._look()
        settled_runs = self.finished | self.summary.failed.keys()
        self.summary.blocked = [run_id for run_id in self.expected if run_id not in settled_runs]

    def hear(self, report: Report) -> None:
        """Note what has become of a run."""
        run = self.running[report.run_id]
        if report.state == "stopped":
            raise SaveError(f"{report.message}; nothing is lost, the same command goes on from here")
        if report.state not in ("running", "lost"):
            del self.running[report.run_id]
        if report.state == "done":
            if report.run_id in self.summary.already_there:  # trained again for its weights
                self.summary.already_there.remove(report.run_id)
            self.finished.add(report.run_id)
            if report.run_id not in self.summary.done:
                self.summary.done.append(report.run_id)
            report = replace(report, message=self._outcome(report.run_id))
        elif report.state == "failed":
            self.summary.failed[report.run_id] = report.message or self._failure(report.run_id)
        fraction = report.epoch / run.config.train.epochs if report.state == "running" else 0.0
        self._tell(run, report.state, report.message, fraction)

    def _tell(self, run: Planned, state: State, message: str = "", fraction: float = 0.0) -> None:
        settled_count = len(self.finished) + len(self.summary.failed)
        total = max(len(self.expected), settled_count)
        self.on_progress(Progress(run, state, message, fraction, settled_count, total))

    def _wait_for(self, elsewhere: Sequence[Planned]) -> None:
        """Wait a moment for another sweep, which does what is left; it may also break off."""
        for run in elsewhere:
            if run.config.id not in self.waiting_for:
                self.waiting_for.add(run.config.id)
                self._tell(run, "waiting")
        time.sleep(1.0)

    def _look(self) -> None:
        """See what is finished, what is to be expected, and what of it can be told and is to be done."""
        guess = _Scores(self.scores.root, self.scores.known, guess=True)
        self.expected = _by_id(self.experiment.plan(guess))
        for run_id, run in self.expected.items():
            if run_id not in self.finished and self.scores.read(run_id) is not None:
                self.finished.add(run_id)
                self.summary.already_there.append(run_id)
                self._remove_checkpoint(run)
        self.wanted, needed = {}, set()
        for run_id, run in reversed(_by_id(self.experiment.plan(self.scores)).items()):
            if run_id not in self.finished or (run_id in needed and not self.scores.is_usable(run_id)):
                self.wanted[run_id] = run
                needed |= {source.config.id for source in run.needs}

    def _remove_checkpoint(self, run: Planned) -> None:
        """Remove what a run left that was killed after its result was written and before its checkpoint was removed.

        That of a source which is trained again for its weights is still wanted.
        """
        store, config = self.setup.store, run.config
        checkpoint = store.partial_path(config.id)
        if checkpoint.exists():
            with claim(store, config.id) as mine:
                if mine and settled(store, config, None) == "done":
                    checkpoint.unlink(missing_ok=True)

    def _start_ready(self, workers: Workers) -> list[Planned]:
        """Start what is ready while there is room; returns what another sweep is doing."""
        elsewhere = []
        for run_id, run in reversed(self.wanted.items()):
            if run_id in self.running or run_id in self.summary.failed:
                continue
            if settled(self.setup.store, run.config, self.setup.retry_before) == "failed":
                self.summary.failed[run_id] = self._failure(run_id)
            elif all(self.scores.is_usable(source.config.id) for source in run.needs):
                if not workers.has_room():
                    break
                if is_claimed(self.setup.store, run_id):
                    elsewhere.append(run)
                else:
                    self.running[run_id] = run
                    workers.start(run)
        return elsewhere

    def _outcome(self, run_id: str) -> str:
        result = self.setup.store.read(run_id) or {}
        return f"top-1 {result['metrics']['top1']:.2f} % in {result['machine']['seconds']:,.0f} s"

    def _failure(self, run_id: str) -> str:
        failure = self.setup.store.read_failure(run_id) or {}
        return f"{failure.get('error')}: {failure.get('message')}"


def _refuse_torchrun() -> None:
    """Each of its processes would do a sweep of its own, and their runs would wait for each other for ever."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise BenchmarkError(
            f"a sweep cannot be one of {processes:.10} processes (WORLD_SIZE): to do each run with all of them, start "
            f"torchrun --nproc-per-node {processes:.10} -m masterkey.benchmarks.run_one EXPERIMENT --size SIZE"
        )


def _workers(setup: Setup, jobs: int, ray: str | None) -> Workers:
    if ray is not None:
        from .ray_sweep import RayWorkers

        return RayWorkers(setup, ray)
    return ProcessWorkers(setup, jobs)


def _by_id(plan: Sequence[Planned]) -> dict[str, Planned]:
    return {run.config.id: run for run in plan}
