"""A single run: what its start, its pictures and its kills leave in the records."""

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from sweep_files import make_pictures, tiny_experiment

from masterkey.benchmarks.checkpoint import save_checkpoint
from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.numerics import describe_numerics
from masterkey.benchmarks.runs import compute_run, do_run
from masterkey.benchmarks.scripts.kill_test import kill_sweeps
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import run_sweep
from masterkey.cli.main import run


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))
    return make_pictures(tmp_path / "pictures")


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def scratch(pictures: Path):
    return tiny_experiment(pictures, seeds=[0], lrs=[1e-3], arms=[{"name": "scratch"}])


def test_the_seconds_of_a_run_are_those_of_all_its_starts(pictures, store):
    (planned,) = scratch(pictures).plan(store)
    path = store.partial_path(planned.config.id)

    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_run(planned.config, store, checkpoint=path, checkpoint_every=0.0, on_epoch=stop)
    state = torch.load(path, weights_only=True)
    assert state["spent"] > sum(state["seconds"])  # data and network too
    save_checkpoint(path, {**state, "spent": 5000.0})
    finished = compute_run(planned.config, store, checkpoint=path)
    assert 5000 < finished.machine["seconds"] < 5100
    assert "earlier" not in finished.machine
    assert finished.metrics == compute_run(planned.config, store, checkpoint=path.with_name("whole.pt")).metrics


def test_a_run_that_is_gone_on_from_in_another_way_tells_both(pictures, store, capsys):
    (planned,) = scratch(pictures).plan(store)

    def stop(epoch):
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            do_run(planned.config, store, checkpoint_every=0.0, on_epoch=stop)
    finally:
        torch.set_num_threads(threads)
    do_run(planned.config, store)
    machine = store.read(planned.config.id)["machine"]
    (earlier,) = machine["earlier"]
    assert f"{threads + 1} threads" in earlier
    assert describe_numerics(machine) == f"{describe_numerics({**machine, 'earlier': []})} after {earlier}"
    assert run(["bench", "show", planned.config.id, "--results", str(store.root)]) == 0
    assert f"{threads + 1} threads" in capsys.readouterr().out


def test_corrupt_pictures_are_refused_or_left_out_and_named_in_the_result(pictures, store, capsys):
    experiment = scratch(pictures)
    (planned,) = experiment.plan(store)
    whole = compute_run(planned.config, store, checkpoint=store.partial_path("whole")).metrics
    assert "skipped_pictures" not in whole
    rotten = pictures / "train" / "light" / "3.png"
    rotten.write_bytes(rotten.read_bytes()[:100])

    summary = run_sweep(experiment, store)
    assert "1 of 18 pictures cannot be decoded: train/light/3.png: " in summary.failed[planned.config.id]
    assert "--skip-corrupt" in summary.failed[planned.config.id]

    assert run_sweep(experiment, store, retry_before=time.time(), skip_corrupt=True).done == [planned.config.id]
    metrics = store.read(planned.config.id)["metrics"]
    assert metrics["skipped_pictures"] == ["train/light/3.png"]
    assert metrics["train_pictures"] == whole["train_pictures"] - 1
    assert metrics["data_sha256"] != whole["data_sha256"]
    assert run(["bench", "show", planned.config.id, "--results", str(store.root)]) == 0
    assert "1 pictures that cannot be decoded" in capsys.readouterr().out


def test_a_record_tells_the_versions_that_decide_bytes(pictures, store):
    (planned,) = scratch(pictures).plan(store)
    run_sweep(scratch(pictures), store)
    machine = store.read(planned.config.id)["machine"]
    assert (machine["numpy"], machine["pillow"]) == (np.__version__, PIL.__version__)
    path = store.run_path(planned.config.id)
    result = json.loads(path.read_bytes())
    del result["machine"]["numpy"], result["machine"]["pillow"]  # as older results are
    path.write_text(json.dumps(result))
    assert store.read(planned.config.id) == result


class Drawn(random.Random):
    """Aims at the first write of a kind: below a half it is a checkpoint's."""

    kind = 0.0

    def random(self) -> float:
        self.draws = getattr(self, "draws", -1) + 1
        return self.kind if self.draws % 2 else 0.0

    def uniform(self, low: float, high: float) -> float:
        return low

    def randrange(self, *bounds: int) -> int:
        return 0


# hangs in a write the first time, and goes on from there the second time
_WRITES = """
import pathlib, sys, time
root, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
left = [root / name for name in names]
if left[0].exists():
    [path.unlink() for path in left]
    sys.exit()
for path in left:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("kind", "names", "inside_checkpoint"),
    [
        (0.0, ["partial/a.pt.partial"], 1),
        (0.9, ["runs/.a.json.1a2b.partial"], 0),
        (0.9, ["kept/a/.weights.safetensors.1a2b.partial"], 0),
    ],
)
def test_kills_inside_the_write_of_a_checkpoint_are_counted_apart(
    tmp_path, monkeypatch, kind, names, inside_checkpoint
):
    monkeypatch.setattr(Drawn, "kind", kind)
    monkeypatch.setattr("masterkey.benchmarks.scripts.kill_test.random.Random", Drawn)

    def command(root: Path) -> list[str]:
        return [sys.executable, "-S", "-c", _WRITES, str(root), *names]

    outcome = kill_sweeps(command, {}, tmp_path, kills=1, seed=0, seconds=1.0)
    assert (outcome.kills, outcome.inside_write, outcome.inside_checkpoint) == (1, 1, inside_checkpoint)
    assert outcome.completed == 1


def test_a_checkpoint_that_a_whole_sweep_leaves_is_an_error(tmp_path):
    leaves = "import pathlib, sys; path = pathlib.Path(sys.argv[1]) / 'partial'; path.mkdir(parents=True); "

    def command(root: Path) -> list[str]:
        return [sys.executable, "-S", "-c", leaves + "(path / 'a.pt').touch()", str(root)]

    with pytest.raises(BenchmarkError, match=r"a sweep ended and left the checkpoints a\.pt"):
        kill_sweeps(command, {}, tmp_path, kills=0, seed=0, seconds=1.0)
