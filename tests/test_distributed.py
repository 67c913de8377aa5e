"""Training in several processes, and in one that is killed."""

import json
import multiprocessing
import os
import random
import socket
import time
from dataclasses import replace

import pytest
import timm
import torch
from tints import (
    PLAIN,
    RICH,
    curve_bytes,
    model_without_drop_path,
    network,
    network_with_bank,
    one_thread,  # noqa: F401
    tints,
)

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.distributed import Group
from masterkey.benchmarks.training import _check as training_check
from masterkey.benchmarks.training import train


def run_in_child(checkpoint, result, config, environment):
    os.environ.update(environment)
    torch.set_num_threads(1)
    model = network_with_bank(freeze=False)
    if environment:  # processes draw different paths to drop
        model = model_without_drop_path()
    outcome = train(model, tints(), config, seed=5, checkpoint=checkpoint, checkpoint_every=0.0)
    if os.environ.get("RANK", "0") == "0":
        result.write_bytes(curve_bytes(outcome))


@pytest.fixture(scope="module")
def processes():
    """Where to start real processes from that have torch and timm imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["masterkey.benchmarks.training"])
    return context


def test_a_network_with_batch_norm_is_not_shared():
    """Every process would have statistics of its share: another training under the same id."""
    model = timm.create_model("mobilenetv3_small_050")
    assert Group(0, 1, torch.device("cpu")).parallel(model) is model
    with pytest.raises(BenchmarkError, match=r"bn1 is a BatchNorm.*, whose statistics are those of a whole batch"):
        Group(0, 2, torch.device("cpu")).parallel(model)


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_run_killed_at_random_moments_gives_the_same_curve(tmp_path, processes):
    seed = random.SystemRandom().randrange(10**6)
    print(f"random.Random({seed})")
    moments = random.Random(seed)
    checkpoint, result = tmp_path / "run.pt", tmp_path / "curve.json"
    config = replace(RICH, epochs=10, freeze_epoch=4)
    arguments = (checkpoint, result, config, {})
    positions = []
    for _ in range(5):
        process = processes.Process(target=run_in_child, args=arguments)
        process.start()
        written = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_mtime_ns > written, process)  # noqa: B023
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.join()
        if result.exists():
            break
        state = torch.load(checkpoint, weights_only=True)
        positions.append((state["epoch"], state["step"]))
    process = processes.Process(target=run_in_child, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert len(positions) >= 3 and positions == sorted(set(positions))  # it was killed, and each time got further
    unbroken = train(network_with_bank(freeze=False), tints(), config, seed=5)
    assert result.read_bytes() == curve_bytes(unbroken)


def test_two_processes_learn_what_one_does(tmp_path, processes):
    config = replace(RICH, clip_grad=None)
    result = tmp_path / "curve.json"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # as torchrun sets them
    children = [
        processes.Process(
            target=run_in_child,
            args=(tmp_path / "run.pt", result, config, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}),
        )
        for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0]
    alone = train(
        model_without_drop_path(), tints(), config, seed=5, checkpoint=tmp_path / "alone.pt", checkpoint_every=0.0
    )
    together = json.loads(result.read_bytes())
    for one, two in zip(alone.curve, together, strict=True):
        assert two["train_loss"] == pytest.approx(one.train_loss, rel=2e-3)
        assert two["loss"] == pytest.approx(one.loss, rel=1e-2)
        assert two["lr"] == one.lr
        assert two["top1"] == pytest.approx(one.top1, abs=7)  # two of the thirty pictures, which two processes share
    # Adam hides a gradient of the wrong size from the losses, its moments show it
    states = [torch.load(tmp_path / name, weights_only=True)["optimizer"]["state"] for name in ("alone.pt", "run.pt")]
    one, two = (torch.cat([moments["exp_avg"].flatten() for moments in state.values()]) for state in states)
    assert float(two.norm()) == pytest.approx(float(one.norm()), rel=0.05)


def fail_in_child(checkpoint, said, config, environment):
    """As on a machine that does not see the others' folder of results: only the first finds the checkpoint."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        train(model_without_drop_path(), tints(), config, seed=5, checkpoint=checkpoint)
    except BenchmarkError as error:
        said.write_text(str(error))


def test_processes_that_would_go_on_from_different_steps_are_refused(tmp_path, processes):
    config = replace(RICH, clip_grad=None)
    train(model_without_drop_path(), tints(), config, seed=5, checkpoint=tmp_path / "run0.pt", checkpoint_every=0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    children = [
        processes.Process(target=fail_in_child, args=(tmp_path / f"run{rank}.pt", tmp_path / f"said{rank}", config, of))
        for rank, of in enumerate(ranks)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    for rank in range(2):
        assert "go on from different steps" in (tmp_path / f"said{rank}").read_text()


def test_a_batch_too_small_to_share_is_refused():
    with pytest.raises(BenchmarkError, match="4 processes cannot share batches of 7"):
        training_check(replace(PLAIN, batch_size=7), network(), 70, 4)
