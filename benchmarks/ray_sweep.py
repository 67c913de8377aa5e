"""Who does the runs of a sweep on a Ray cluster: one task a run. Only the process that started the sweep writes."""

import hashlib
import logging
import os
import pickle
import platform
import socket
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from masterkey.atomic import write_atomically
from masterkey.errors import SaveError
from masterkey.metadata import canonical_json

from .claim import claim, has_no_room, settled
from .config import BenchmarkError, RunConfig
from .data.catalogue import DATA_VARIABLE
from .data.store import CACHE_VARIABLE
from .experiment import Planned
from .runs import Finished, compute_run, record_run
from .store import WEIGHTS_NAME, ResultStore
from .workers import Report, Setup, less_memory, record_failure

try:
    import ray
    from ray.exceptions import OutOfDiskError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as missing:
    raise BenchmarkError("a sweep on a Ray cluster needs the extra ray: pip install 'masterkey[ray]'") from missing

# tasks that wait in Ray's queue hold their runs, and a file each; a cluster of this many CPUs is kept busy
_AT_ONCE = 200
# a run that takes its node or its worker down with it must not do so forever
_MAX_LOSSES = 5
# seconds that the last checkpoints get to be removed in; a node may have to start a process for it
_PATIENCE = 10.0


@dataclass
class _Task:
    """A run that is out; ``held`` keeps its claim, so that no other sweep does it meanwhile."""

    run: Planned
    held: ExitStack
    losses: int = 0


class RayWorkers:
    """Does runs as tasks on a cluster, each with ``threads`` CPUs and ``gpus`` of a GPU.

    A node that has as much must be there from the start: one that an autoscaler could add does not count. masterkey and
    the data sets must be on every node: ``$MASTERKEY_DATA`` and ``$MASTERKEY_CACHE`` are handed on. Weights that a run
    takes travel through Ray's object store. A run whose node is lost is started again elsewhere, from the beginning;
    one whose worker died goes on from its checkpoint if it lands on the same node again. The checkpoint stays on its
    node until the result is recorded here.
    """

    def __init__(self, setup: Setup, address: str) -> None:
        """Connect to the cluster.

        Raises:
            BenchmarkError: there is none at ``address``, or none of its nodes has what a run takes.
        """
        self._setup = setup
        folders = {name: os.environ[name] for name in (DATA_VARIABLE, CACHE_VARIABLE) if os.environ.get(name)}
        if DATA_VARIABLE not in folders:
            folders[DATA_VARIABLE] = "../shared/data"  # the tasks' working directory is not ours
        here = {name: str(Path(folder).expanduser().absolute()) for name, folder in folders.items()}
        self._connected = not ray.is_initialized()
        if self._connected:
            try:
                _knock(address)
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": here})
            except (OSError, OverflowError, ValueError, RuntimeError, RayError) as error:
                reason = " ".join(str(error).split())
                raise BenchmarkError(f"no Ray cluster can be reached at {address!r:.100}: {reason:.300}") from error
        if (problem := _misfit(setup)) is not None:
            self._disconnect()
            raise BenchmarkError(problem)
        self._remote = ray.remote(num_cpus=setup.threads, num_gpus=setup.gpus, max_retries=0)(_compute)
        self._remove = ray.remote(num_cpus=0, max_retries=0)(Path.unlink)  # a process that does it needs no torch
        place = f"{platform.node()}:{setup.store.root.absolute()}"
        self._sweep = hashlib.sha256(place.encode()).hexdigest()[:12]
        self._tasks: dict[Any, _Task] = {}
        self._weights: dict[str, Any] = {}
        self._reports: list[Report] = []
        self._removing: list[Any] = []

    def has_room(self) -> bool:
        """Whether more tasks can wait in Ray's queue; how many run at once is the cluster's matter."""
        return len(self._tasks) < _AT_ONCE

    def start(self, run: Planned) -> None:
        """Claim the run and hand it to the cluster."""
        config, store = run.config, self._setup.store
        held = ExitStack()
        if held.enter_context(claim(store, config.id)) and not settled(store, config, self._setup.retry_before):
            self._submit(_Task(run, held))
        else:
            held.close()
            self._reports.append(Report(config.id, "busy"))

    def wait(self, seconds: float) -> list[Report]:
        """Record what has come back, and start again what was lost."""
        reports, self._reports = self._reports, []
        if self._tasks:
            timeout = 0.0 if reports else seconds
            ended, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0.0)
            if not ended:
                ended, _ = ray.wait(list(self._tasks), timeout=timeout)
            reports += [self._collect(reference) for reference in ended]
        return reports

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take back what is out, and leave the cluster."""
        for reference, task in self._tasks.items():
            ray.cancel(reference, force=True)
            task.held.close()
        self._tasks.clear()
        if self._removing:
            ray.wait(self._removing, num_returns=len(self._removing), timeout=_PATIENCE)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connected:
            ray.shutdown()

    def _submit(self, task: _Task) -> None:
        sources = [source.config.id for source in task.run.needs]
        results = [self._setup.store.run_path(source).read_bytes() for source in sources]
        weights = [self._put(source) for source in sources]
        checkpoint = f"{self._sweep}-{task.run.config.id}.pt"
        # the store, which is no task's to write to, stays here
        setup = replace(self._setup, store=ResultStore(Path()))
        self._tasks[self._remote.remote(task.run.config, setup, checkpoint, sources, results, *weights)] = task

    def _put(self, source: str) -> Any:
        """Put a run's weights into the object store, once for all who take them."""
        if source not in self._weights:
            self._weights[source] = ray.put((self._setup.store.kept_path(source) / WEIGHTS_NAME).read_bytes())
        return self._weights[source]

    def _collect(self, reference: Any) -> Report:
        task = self._tasks.pop(reference)
        config = task.run.config
        try:
            finished, checkpoint = ray.get(reference)
        except RayTaskError as error:
            return self._hear_failure(task, error.cause)
        except RayError as error:
            return self._hear_failure(task, error)
        with task.held:
            record_run(config, finished, self._setup.store)
        there = NodeAffinitySchedulingStrategy(finished.machine["ray_node"], soft=False)
        self._removing.append(self._remove.options(scheduling_strategy=there).remote(checkpoint, missing_ok=True))
        return Report(config.id, "done")

    def _hear_failure(self, task: _Task, error: Exception) -> Report:
        """Start a run again that was lost, else record its failure."""
        config = task.run.config
        if isinstance(error, OutOfMemoryError):  # on the next node it would need as much
            error = BenchmarkError(f"out of memory on its node; {less_memory(config)} ({_one_line(error)})")
        elif isinstance(error, OutOfDiskError):
            error = SaveError(_one_line(error))
        elif isinstance(error, RayError):
            if task.losses < _MAX_LOSSES:
                task.losses += 1
                self._submit(task)
                return Report(config.id, "lost", _one_line(error))
            died = isinstance(error, WorkerCrashedError)
            hint = f"; if memory runs out there, {less_memory(config)}" if died else ""
            error = BenchmarkError(
                f"its worker or node was lost {task.losses + 1} times, the last time by {_one_line(error)}{hint}"
            )
        with task.held:
            return record_failure(config, self._setup.store, error)


def _misfit(setup: Setup) -> str | None:
    """Say why no node can take a run, if so: Ray would wait for one that can, for ever and in silence."""
    if setup.gpus > 1 and setup.gpus % 1:
        return f"gpus is {setup.gpus:g}; a run on Ray gets a part of one GPU, or whole ones"
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    sizes = {(float(node.get("CPU", 0)), float(node.get("GPU", 0))) for node in alive}
    if any(cpus >= setup.threads and gpus >= setup.gpus for cpus, gpus in sizes):
        return None
    # one node may have the most CPUs and another the most GPUs
    largest = sorted(
        (cpus, gpus) for cpus, gpus in sizes if not any(c >= cpus and g >= gpus for c, g in sizes - {(cpus, gpus)})
    )
    return (
        f"no node of the Ray cluster has {setup.threads} CPU and {setup.gpus:g} GPU for a run (--threads, --gpus); "
        f"the most that a node has is {' or '.join(f'{cpus:g} CPU and {gpus:g} GPU' for cpus, gpus in largest)}"
    )


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray tries for minutes.

    Raises:
        OSError, OverflowError: nobody does, or no port has that number.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"


def _compute(
    config: RunConfig,
    setup: Setup,
    checkpoint: str,
    sources: list[str],
    results: list[bytes],
    *weights: bytes,
) -> tuple[Finished, Path]:
    """What a task does, on any node; returns, too, where its checkpoint lies.

    Raises:
        SaveError: the node has no room left.
    """
    path = Path(tempfile.gettempdir()) / f"masterkey-ray-{os.getuid()}" / checkpoint
    try:
        return _train(config, setup, path, zip(sources, results, weights, strict=True)), path
    except Exception as error:
        if has_no_room(error):  # the error may say so only by its cause, which does not travel
            raise SaveError(f"on the node {platform.node()}: {error}") from error
        if not _travels(error):
            raise BenchmarkError(f"on the node {platform.node()}: {_one_line(error)}") from None
        raise


def _travels(error: Exception) -> bool:
    """Whether an error can be sent; Ray makes one of its own of any other, as of a worker that was lost."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its constructor or its values raise
        return False
    return True


def _train(config: RunConfig, setup: Setup, checkpoint: Path, sources: Iterable[tuple[str, bytes, bytes]]) -> Finished:
    """Do a run that sees only what it is given, and writes only in the node's scratch folder.

    ``sources`` are the runs that it takes from: id, result, weights.
    """
    torch.set_num_threads(setup.threads)
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore(Path(folder))
        for source, result, weights in sources:
            write_atomically(store.kept_path(source) / WEIGHTS_NAME, weights)
            write_atomically(store.run_path(source), result)
        finished = compute_run(
            config,
            store,
            checkpoint=checkpoint,
            device=setup.device,
            checkpoint_every=setup.checkpoint_every,
            skip_corrupt=setup.skip_corrupt,
        )
    canonical_json(finished.metrics)  # what cannot be recorded shall fail here
    return replace(finished, machine={**finished.machine, "ray_node": ray.get_runtime_context().get_node_id()})
