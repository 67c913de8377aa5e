"""What a Ray sweep says when it cannot go on, and what it keeps: asked for too much, no memory, no room, no result."""

import os
import signal
import tempfile
from importlib import import_module
from pathlib import Path

import pytest
from sweep_files import make_pictures, tiny_experiment

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import run_sweep
from masterkey.benchmarks.workers import Setup, _record_death
from masterkey.errors import SaveError

ray = pytest.importorskip("ray", reason="needs the extra ray: pip install 'masterkey[ray]'")
ray_sweep = import_module("masterkey.benchmarks.ray_sweep")  # it refuses to be imported where ray is not

_NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


def one_node(**system):
    from ray.cluster_utils import Cluster

    return Cluster(initialize_head=True, head_node_args={**_NODE, "_system_config": system})


@pytest.fixture(scope="module")
def _cluster():
    made = one_node()
    yield made
    made.shutdown()


@pytest.fixture
def address(_cluster):
    """A cluster of one node with one CPU, which this process leaves after each test."""
    yield _cluster.address
    ray.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def experiment(tmp_path):
    """One run."""
    pictures = make_pictures(tmp_path / "pictures")
    return tiny_experiment(pictures, seeds=[0], lrs=[1e-3], arms=[{"name": "scratch"}])


def the_run(experiment, store):
    (planned,) = experiment.plan(store)
    return planned.config


def checkpoints(run_id: str) -> list[Path]:
    """Those of the run on this machine's node."""
    return list((Path(tempfile.gettempdir()) / f"masterkey-ray-{os.getuid()}").glob(f"*-{run_id}.pt*"))


@pytest.mark.parametrize(
    ("threads", "gpus", "sentence"),
    [
        (3, 0.0, r"no node .* has 3 CPU and 0 GPU for a run .*; the most that a node has is 1 CPU and 0 GPU$"),
        (1, 0.5, r"no node .* has 1 CPU and 0.5 GPU for a run .*; the most that a node has is 1 CPU and 0 GPU$"),
        (1, 1.5, r"gpus is 1.5; a run on Ray gets a part of one GPU, or whole ones$"),
    ],
)
def test_what_no_node_has_is_refused_at_once(address, store, threads, gpus, sentence):
    with pytest.raises(BenchmarkError, match=sentence):
        ray_sweep.RayWorkers(Setup(store, threads=threads, gpus=gpus), address)
    assert not ray.is_initialized()
    assert not store.root.exists()


def test_the_most_that_a_node_has_may_be_several_kinds(store, monkeypatch):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 64.0}},
        {"Alive": True, "Resources": {"CPU": 32.0}},
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert ray_sweep._misfit(Setup(store, threads=4, gpus=2.0)) is None
    assert ray_sweep._misfit(Setup(store, threads=64)) is None
    said = ray_sweep._misfit(Setup(store, threads=8, gpus=1.0))
    assert said is not None and said.endswith("is 4 CPU and 2 GPU or 64 CPU and 0 GPU")


def test_a_checkpoint_stays_until_the_result_is_recorded(address, experiment, store, monkeypatch):
    run = the_run(experiment, store)

    def full(*arguments):
        raise SaveError("no room for the result")

    with monkeypatch.context() as patch:
        patch.setattr(ray_sweep, "record_run", full)
        with pytest.raises(SaveError, match="no room for the result"):
            run_sweep(experiment, store, ray=address, checkpoint_every=0.0)
    assert len(checkpoints(run.id)) == 1
    assert run_sweep(experiment, store, ray=address, checkpoint_every=0.0).done == [run.id]
    assert checkpoints(run.id) == []


def test_a_node_whose_disk_is_full_stops_the_sweep(address, experiment, store, monkeypatch):
    run = the_run(experiment, store)

    def compute(config, setup, checkpoint, *others):
        from masterkey.benchmarks.ray_sweep import _compute

        folder = Path(tempfile.gettempdir()) / f"masterkey-ray-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        (folder / f"{checkpoint}.partial").symlink_to("/dev/full")
        return _compute(config, setup, checkpoint, *others)

    monkeypatch.setattr(ray_sweep, "_compute", compute)
    with pytest.raises(SaveError, match=r"on the node .*: cannot write the checkpoint .*; nothing is lost"):
        run_sweep(experiment, store, ray=address, checkpoint_every=0.0)
    assert not store.failed_path(run.id).exists()
    assert checkpoints(run.id) == []


def test_an_object_store_without_a_disk_stops_the_sweep(address, experiment, store, monkeypatch):
    def compute(*arguments):
        raise ray.exceptions.OutOfDiskError("no room for the weights")

    monkeypatch.setattr(ray_sweep, "_compute", compute)
    with pytest.raises(SaveError, match=r"OutOfDiskError: no room for the weights .*; nothing is lost"):
        run_sweep(experiment, store, ray=address)
    assert not store.failed_path(the_run(experiment, store).id).exists()


def test_a_worker_that_dies_again_and_again_may_need_memory(address, experiment, store, monkeypatch):
    def compute(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ray_sweep, "_compute", compute)
    monkeypatch.setattr(ray_sweep, "_MAX_LOSSES", 1)
    moments = []
    failed = run_sweep(experiment, store, ray=address, on_progress=moments.append).failed
    assert [moment.state for moment in moments] == ["lost", "failed"]
    (said,) = failed.values()
    assert "lost 2 times, the last time by WorkerCrashedError" in said
    assert said.endswith("; if memory runs out there, try --batch-size 4")


def test_out_of_memory_says_at_once_which_batch_size_to_try(experiment, store):
    strict = one_node(memory_usage_threshold=0.0, memory_monitor_refresh_ms=100)  # whatever is used is too much
    moments = []
    try:
        failed = run_sweep(experiment, store, ray=strict.address, on_progress=moments.append).failed
    finally:
        ray.shutdown()
        strict.shutdown()
    assert [moment.state for moment in moments] == ["failed"]
    (said,) = failed.values()
    assert said.startswith("BenchmarkError: out of memory on its node; try --batch-size 4 (OutOfMemoryError: ")


@pytest.mark.parametrize(
    ("batch_size", "jobs", "advice"),
    [
        (8, 1, "try --batch-size 4"),
        (1, 1, "use a smaller network or fewer pixels"),
        (1, 2, "use a smaller network or fewer pixels, or fewer --jobs"),
    ],
)
def test_what_to_do_about_a_process_that_was_killed(experiment, store, batch_size, jobs, advice):
    run = the_run(experiment.with_batch_size(batch_size), store)
    report = _record_death(run, store, -signal.SIGKILL, jobs)
    assert report.message.endswith(f"its process ended with SIGKILL, as it does when memory runs out; then {advice}")
