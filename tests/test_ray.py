"""A sweep on a Ray cluster: the same bytes as here, whatever is lost on the way."""

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from sweep_files import make_pictures, tiny_experiment

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.scripts.kill_test import metrics_of
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import run_sweep

ray = pytest.importorskip("ray", reason="needs the extra ray: pip install 'masterkey[ray]'")

# a dead node is noticed within seconds; Ray's own patience is half a minute
_IMPATIENT = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
_SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster():
    """Two nodes of one CPU each; the first is where this process connects to."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={**_SMALL, "include_dashboard": False, "_system_config": _IMPATIENT}
    )
    made.second = made.add_node(**_SMALL)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def experiment(tmp_path):
    """Runs of seconds, so that the second node has its share; one that fails, one that takes from another."""
    experiment = tiny_experiment(make_pictures(tmp_path / "pictures"))
    experiment.raw["arms"].append({"name": "gone", "bank": "no-such-bank"})
    experiment.raw["train"]["epochs"] = 12
    return experiment


def children(pid: int) -> dict[int, str]:
    """Process number and title of a process' children; a Ray worker's title says what it is at."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_text()
        except OSError:  # it is gone
            continue
    return found


def titled(pid: int, start: str) -> set[int]:
    """Process numbers of those children whose title starts so."""
    return {child for child, title in children(pid).items() if title.startswith(start)}


def send(what: signal.Signals, pids: Iterable[int]) -> None:
    """Signal processes, of which some may have ended by themselves."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, what)


class Axe(threading.Thread):
    """Kills a node while it is at a run, once the sweep has ended a few.

    The other node is stopped meanwhile: else it might have done all the runs before this one's worker has started.
    """

    def __init__(self, node, other, store: ResultStore, after: int) -> None:
        super().__init__(daemon=True)
        self.raylet, self.other = (each.all_processes["raylet"][0].process.pid for each in (node, other))
        self.store, self.after = store, after
        self.ended: int | None = None

    def run(self) -> None:
        stopped: set[int] = set()
        try:
            while self.ended is None:
                ended = len(self.store.run_ids())
                if ended >= self.after:
                    working = titled(self.other, "ray::") - stopped
                    send(signal.SIGSTOP, working)
                    stopped |= working
                    if titled(self.raylet, "ray::_compute"):
                        send(signal.SIGKILL, (self.raylet, *children(self.raylet)))
                        self.ended = ended
                time.sleep(0.05)
        finally:
            send(signal.SIGCONT, stopped)


def test_a_node_is_lost_half_way(cluster, experiment, tmp_path):
    here, there = ResultStore(tmp_path / "here"), ResultStore(tmp_path / "there")
    local = run_sweep(experiment, here, jobs=2)
    assert len(local.failed) == len(local.blocked) == 2
    lost, ended = [], []

    def watch(moment):
        if moment.state == "lost":
            lost.append(moment.run.config.id)
        if moment.state == "done":
            ended.append(moment.run.config.id)

    axe = Axe(cluster.second, cluster.head_node, there, after=2)
    axe.start()
    summary = run_sweep(experiment, there, ray=cluster.address, on_progress=watch)
    assert axe.ended is not None and 2 <= axe.ended < len(ended)
    assert metrics_of(there) == metrics_of(here)
    assert sorted(summary.done) == sorted(ended) == sorted(local.done)  # each once
    assert len(lost) >= 1  # what ran on the second node, and was done elsewhere
    assert set(lost) <= {*summary.done, *summary.failed}
    assert summary.failed == local.failed
    assert summary.blocked == local.blocked
    assert {there.read_failure(run_id)["error"] for run_id in summary.failed} == {"UnknownNameError"}
    assert not list((there.root / "partial").iterdir())
    sources = [run_id for run_id in there.run_ids() if there.kept_path(run_id).exists()]
    assert sources == [run_id for run_id in here.run_ids() if here.kept_path(run_id).exists()]
    assert all(there.is_usable(run_id) for run_id in sources)

    again = run_sweep(experiment, there, ray=cluster.address)
    assert again.done == []
    assert sorted(again.already_there) == sorted(local.done)


class PickyError(Exception):
    """Cannot be unpickled: it is given two values, and keeps one."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


@pytest.mark.parametrize("error", [PickyError("a crack", "layer 3"), ValueError("a crack in layer 3")])
def test_an_error_that_cannot_be_sent_is_told_all_the_same(error, experiment, tmp_path, monkeypatch):
    from masterkey.benchmarks import ray_sweep

    def fail(*_):
        raise error

    monkeypatch.setattr(ray_sweep, "_train", fail)
    config = experiment.plan(ResultStore(tmp_path))[0].config
    with pytest.raises(Exception, match="a crack in layer 3") as caught:
        ray_sweep._compute(config, None, "checkpoint.pt", [], [])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no.such.host.invalid:6379", "nonsense", "127.0.0.1:99999"]
)
def test_a_cluster_that_is_not_there_is_one_sentence(experiment, tmp_path, address):
    with pytest.raises(BenchmarkError, match=f"no Ray cluster can be reached at '{address}': "):
        run_sweep(experiment, ResultStore(tmp_path / "r"), ray=address)
    assert not (tmp_path / "r").exists()
