"""Who does the runs of a sweep on this machine: processes that each do one run."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from types import TracebackType
from typing import Literal, Protocol, Self

from masterkey.errors import SaveError

from .claim import claim, has_no_room, settled
from .config import CHECKPOINT_EVERY, BenchmarkError, RunConfig
from .experiment import Planned
from .store import ResultStore

# what a run imports, at its top or when it comes to it
_PRELOADED = ["masterkey.benchmarks.runs", "masterkey.closed_form.banks", "masterkey.late", "masterkey.models.hornet"]

State = Literal["running", "lost", "busy", "waiting", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Setup:
    """What every run of a sweep gets. The number of threads decides the last bits of a run's figures on a CPU.

    ``gpus`` is the share of a GPU that a run takes on Ray. ``retry_before``: failures recorded before this time
    (seconds since 1970) are tried again, None for none. ``checkpoint_every`` is in seconds; ``skip_corrupt`` leaves
    out the pictures that cannot be decoded.
    """

    store: ResultStore
    device: str = "cpu"
    threads: int = 1
    gpus: float = 0.0
    retry_before: float | None = None
    checkpoint_every: float = CHECKPOINT_EVERY
    skip_corrupt: bool = False


@dataclass(frozen=True)
class Report:
    """News of a run.

    ``running``: ``epoch`` epochs are done. ``lost``: it went down with its node and is started again. ``busy``:
    another sweep does it. ``done`` and ``failed``: it is recorded. ``stopped``: it cannot be recorded; all must stop.
    """

    run_id: str
    state: State
    message: str = ""
    epoch: int = 0


class Workers(Protocol):
    """Something that does runs; leaving it as a context stops what is still running."""

    def has_room(self) -> bool:
        """Whether another run can be started."""

    def start(self, run: Planned) -> None:
        """Take a run whose sources are in the store; it ends with a report that is not ``running`` or ``lost``."""

    def wait(self, seconds: float) -> list[Report]:
        """Return the news; if there is none, wait for it for so long."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ProcessWorkers:
    """Does up to ``jobs`` runs at once, each in a new process.

    So one which crashes takes no other with it, and its peak of memory is its own. The processes are forks of one that
    has imported the code and done nothing: they start at once, and code that is changed meanwhile changes no run.
    """

    def __init__(self, setup: Setup, jobs: int) -> None:
        self._setup, self._jobs = setup, jobs
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._running: dict[Connection, tuple[BaseProcess, RunConfig]] = {}

    def has_room(self) -> bool:
        """Whether fewer than ``jobs`` runs are at it."""
        return len(self._running) < self._jobs

    def start(self, run: Planned) -> None:
        """Start a process for the run."""
        ours, theirs = self._context.Pipe(duplex=False)
        # the environment of the process that is forked may be older than ours
        task = (run.config, self._setup, dict(os.environ), theirs)
        process = self._context.Process(target=_work, args=task, name=run.config.id)
        process.start()
        theirs.close()  # the process now holds the only one, so its death is seen at ours
        self._running[ours] = (process, run.config)

    def wait(self, seconds: float) -> list[Report]:
        """Return what the processes have said since."""
        reports = []
        for ours in connection.wait(list(self._running), seconds):
            assert isinstance(ours, Connection)
            process, config = self._running[ours]
            try:
                report = ours.recv()
            except EOFError:
                process.join()
                report = _record_death(config, self._setup.store, process.exitcode or 0, self._jobs)
            reports.append(report)
            if report.state != "running":
                process.join()
                ours.close()
                del self._running[ours]
        return reports

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what is running; the runs go on from their checkpoints next time."""
        for process, _ in self._running.values():
            process.terminate()
        for ours, (process, _) in self._running.items():
            process.join()
            ours.close()
        self._running.clear()


def attempt(
    config: RunConfig,
    setup: Setup,
    on_epoch: Callable[[Report], None],
    announce: Callable[[RunConfig], None] = lambda config: None,
) -> Report:
    """Do a run, unless another process does it or has done it, and record its result or its failure.

    Args:
        config: the run.
        setup: what every run gets.
        on_epoch: called after every epoch.
        announce: called before the run begins, once it is certain that it is this process' to do.
    """
    try:
        with claim(setup.store, config.id) as mine:
            if not mine:
                return Report(config.id, "busy")
            if settled(setup.store, config, setup.retry_before):
                return Report(config.id, "busy")  # another process was faster
            announce(config)
            return _do_and_record(config, setup, on_epoch)
    except SaveError as error:
        return Report(config.id, "stopped", str(error))


def _do_and_record(config: RunConfig, setup: Setup, on_epoch: Callable[[Report], None]) -> Report:
    import torch  # here, because the sweep itself needs no torch

    from .distributed import is_lost_process
    from .runs import do_run

    torch.set_num_threads(setup.threads)
    try:
        do_run(
            config,
            setup.store,
            device=setup.device,
            checkpoint_every=setup.checkpoint_every,
            skip_corrupt=setup.skip_corrupt,
            on_epoch=lambda epoch: on_epoch(Report(config.id, "running", epoch=epoch.epoch + 1)),
        )
    except Exception as error:
        if is_lost_process(error):
            sentence = f"another process of run {config.id} has ended, or cannot be reached: {error}"
            return Report(config.id, "stopped", sentence)
        return record_failure(config, setup.store, error)
    return Report(config.id, "done")


def record_failure(config: RunConfig, store: ResultStore, error: BaseException) -> Report:
    """Record a failure that is the run's own; that there is no room left is not.

    Raises:
        SaveError: the failure cannot be recorded.
    """
    if has_no_room(error):
        return Report(config.id, "stopped", str(error))
    store.write_failure(config, error)
    return Report(config.id, "failed", f"{type(error).__name__}: {error}")


def _work(config: RunConfig, setup: Setup, environment: dict[str, str], parent: Connection) -> None:
    """What a process of its own does."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep hears it too, and ends this process
    Thread(target=_end_with_parent, daemon=True).start()
    parent.send(attempt(config, setup, lambda report: _tell(parent, report)))


def _tell(parent: Connection, report: Report) -> None:
    """Report an epoch; that the sweep is gone is no failure of the run."""
    try:
        parent.send(report)
    except OSError:
        os._exit(1)


def _end_with_parent() -> None:
    """Do not outlive a sweep that was killed: the next one would have to wait."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def less_memory(config: RunConfig) -> str:
    """Return what to do about a run for which there was too little memory."""
    half = config.train.batch_size // 2
    return f"try --batch-size {half}" if half else "use a smaller network or fewer pixels"


def _record_death(config: RunConfig, store: ResultStore, exit_code: int, jobs: int) -> Report:
    """Record that a run, one of so many at once, took its process with it.

    Raises:
        BenchmarkError: somebody told the process to end, which is no failure.
        SaveError: the failure cannot be recorded.
    """
    name = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    if name in ("SIGTERM", "SIGHUP"):
        raise BenchmarkError(f"stopped, because the process of run {config.id} was told to end ({name})")
    fewer = ", or fewer --jobs" if jobs > 1 else ""
    hint = f", as it does when memory runs out; then {less_memory(config)}{fewer}" if name == "SIGKILL" else ""
    with claim(store, config.id) as mine:
        if not mine:
            return Report(config.id, "busy")
        if settled(store, config, None) == "done":  # it died between its result and its report
            return Report(config.id, "done")
        return record_failure(config, store, BenchmarkError(f"its process ended with {name}{hint}"))
