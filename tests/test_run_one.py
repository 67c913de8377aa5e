"""Runs that several processes share, started as a user starts them."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from sweep_files import make_pictures, tiny_experiment

from masterkey.benchmarks import experiment
from masterkey.benchmarks.claim import is_claimed
from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.distributed import Group, is_lost_process
from masterkey.benchmarks.run_one import main, one_run, run_together
from masterkey.benchmarks.runs import compute_run
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import expected_runs, run_sweep
from masterkey.benchmarks.workers import Setup

SCRIPT = Path(__file__).with_name("sweep_files.py")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTERKEY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def use(monkeypatch):
    """Put an experiment in the place of all."""

    def put(experiment):
        monkeypatch.setattr("masterkey.benchmarks.run_one.load_experiment", lambda name, size: experiment)

    return put


def torchrun(pictures: Path, store: ResultStore, *options: str) -> subprocess.CompletedProcess:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    arguments = [str(pictures), "run_one", "tiny", "--size", "smoke", "--results", str(store.root), *options]
    return subprocess.run([*start, *arguments], capture_output=True, text=True, timeout=600)


def test_batch_norm_is_refused_before_the_first_run(pictures, store):
    """Not as a failure of the run, which one process can do."""
    network = {"name": "mobilenetv3_small_050"}
    group = Group(0, 2, torch.device("cpu"))
    with pytest.raises(BenchmarkError, match="whose statistics are those of a whole batch"):
        run_together(tiny_experiment(pictures, networks={"small": network}), Setup(store), group)
    assert store.failed_ids() == []


def test_two_processes_of_torchrun_do_a_run_with_what_it_needs(pictures, store, tmp_path):
    runs = expected_runs(tiny_experiment(pictures, lrs=[1e-3, 4e-3]), store)
    taker = next(run for run in runs if run.arm == "selffer" and run.stage == "tune")
    (source,) = taker.needs
    done = torchrun(pictures, store, taker.config.id)
    assert done.returncode == 0, done.stderr
    assert "2 done" in done.stderr
    assert store.run_ids() == sorted([source.config.id, taker.config.id])
    assert (store.failed_ids(), list((store.root / "partial").iterdir())) == ([], [])

    result = store.read(source.config.id)
    assert result["machine"]["processes"] == 2
    # what is promised: the figures of one process but for rounding (this network drops no path)
    alone = compute_run(source.config, store, checkpoint=tmp_path / "alone.pt")
    assert "processes" not in alone.machine
    assert {**result["metrics"], "id": 0, "config": 0, "curve": 0, "top1": 0} == {
        **json.loads(json.dumps(alone.metrics)), "id": 0, "config": 0, "curve": 0, "top1": 0
    }  # fmt: skip
    for one, two in zip(alone.metrics["curve"], result["metrics"]["curve"], strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert two["lr"] == one["lr"]


def share(environment: dict[str, str], arguments: list[str], over: dict) -> None:
    """What one of two processes does, without torchrun to watch over them."""
    os.environ.update(environment)
    experiment.load_experiment = lambda name, size: tiny_experiment(arguments[0], seeds=[0], lrs=[1e-3], **over)
    from masterkey.benchmarks import run_one

    run_one.load_experiment = experiment.load_experiment
    sys.exit(run_one.main(["tiny", "--size", "smoke", "--results", *arguments[1:]]))


@pytest.fixture
def start_two():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["masterkey.benchmarks.run_one"])
    started = []

    def start(arguments: list[str], **over) -> list:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in ("0", "1"):
            environment = {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}
            started.append(context.Process(target=share, args=(environment, arguments, over)))
            started[-1].start()
        return started

    yield start
    for process in started:
        process.kill()


def test_a_run_that_fails_ends_all_processes_and_is_recorded(pictures, store, start_two):
    arms = [{"name": "gone", "bank": "checkpoint:gone.pth"}, {"name": "random", "bank": "random"}]
    for process in start_two([str(pictures), str(store.root)], arms=arms):
        process.join(120)
        assert process.exitcode == 1
    (failed,) = store.failed_ids()
    assert store.read_failure(failed)["error"] == "CheckpointError"
    assert store.run_ids() == []


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_the_other_and_is_no_failure(pictures, store, start_two, victim):
    arms = [{"name": "long", "bank": "random", "train": {"epochs": 10_000}}]
    processes = start_two([str(pictures), str(store.root), "--checkpoint-every", "0"], arms=arms)
    deadline = time.monotonic() + 120
    while not list((store.root / "partial").glob("*.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    processes[victim].kill()
    processes[1 - victim].join(60)
    assert processes[1 - victim].exitcode == 1
    assert (store.run_ids(), store.failed_ids()) == ([], [])
    assert list((store.root / "partial").glob("*.pt"))  # it goes on from there
    (run,) = expected_runs(tiny_experiment(pictures, seeds=[0], lrs=[1e-3], arms=arms), store)
    assert not is_claimed(store, run.config.id)


def test_a_sweep_under_torchrun_is_refused_and_told_where_to_go(pictures, store, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BenchmarkError, match="torchrun --nproc-per-node 2 -m masterkey"):
        run_sweep(tiny_experiment(pictures), store)
    assert not store.root.exists()


def test_without_torchrun_one_process_does_all_that_is_missing(pictures, store, use, capsys):
    use(
        tiny_experiment(
            pictures, seeds=[0], lrs=[1e-3], arms=[{"name": "scratch"}, {"name": "random", "bank": "random"}]
        )
    )
    arguments = ["tiny", "--size", "smoke", "--results", str(store.root)]
    assert main([*arguments, "--only", "random"]) == 0
    assert main(arguments) == 0
    assert "1 done, 1 already there" in capsys.readouterr().err
    assert len(store.run_ids()) == 2
    assert main([*arguments, "--device", "cuda:99"]) == 1
    assert "GPUs" in capsys.readouterr().err


def test_a_run_that_fails_does_not_keep_a_single_process_from_the_others(pictures, store, use, capsys):
    arms = [{"name": "gone", "bank": "checkpoint:gone.pth"}, {"name": "random", "bank": "random"}]
    use(tiny_experiment(pictures, seeds=[0], lrs=[1e-3], arms=arms))
    assert main(["tiny", "--size", "smoke", "--results", str(store.root)]) == 1
    assert "1 done, 1 failed" in capsys.readouterr().err


def test_a_run_is_named_by_the_beginning_of_its_id(pictures, store, use, capsys):
    tiny = tiny_experiment(pictures)
    runs = expected_runs(tiny, store)
    taker = next(run for run in runs if run.needs and run.stage == "tune")
    part = one_run(tiny, store, taker.config.id)
    assert [run.config.id for run in part.plan(store)] == [taker.needs[0].config.id, taker.config.id]
    with pytest.raises(BenchmarkError, match=rf"no runs of tiny .*'xyz'; there are {runs[0].config.id} \(tiny scratch"):
        one_run(tiny, store, "xyz")
    with pytest.raises(BenchmarkError, match=f"{len(runs)} runs of tiny"):
        one_run(tiny, store, "")
    final = next(run for run in runs if run.stage == "final")
    use(tiny)
    assert main(["tiny", "--size", "smoke", "--results", str(store.root), final.config.id]) == 1
    assert "do the runs that choose it" in capsys.readouterr().err


def test_a_process_that_is_gone_is_no_failure_of_the_run():
    assert is_lost_process(dist.DistBackendError("NCCL error"))
    assert is_lost_process(
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    )
    assert not is_lost_process(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_lost_process(BenchmarkError("the loss is nan"))


@pytest.mark.parametrize("device", ["cuda:77", "cuda:256", "gpu", "meta"])
def test_a_device_that_is_not_here_is_refused_before_the_first_run(store, device, capsys):
    assert main(["arms", "--size", "smoke", "--results", str(store.root), "--device", device]) == 1
    assert f"device {device!r} cannot be used" in capsys.readouterr().err
    assert not store.root.exists() or not store.failed_ids()
