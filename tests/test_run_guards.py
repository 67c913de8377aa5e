"""What must not go by without a word: another bank, other filters, folders, files and locks that cannot be had."""

import errno
import fcntl
import signal
from dataclasses import replace

import pytest
import torch
from sweep_files import make_pictures, tiny_experiment
from test_training import PLAIN, network_with_bank, stop
from tints import tints

import masterkey
from masterkey.benchmarks.checkpoint import load_checkpoint
from masterkey.benchmarks.claim import claim
from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.data.source import visible_files
from masterkey.benchmarks.dry_run import dry_run
from masterkey.benchmarks.errors import DivergedError
from masterkey.benchmarks.runs import compute_run, do_run, record_run
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.training import train
from masterkey.benchmarks.workers import _record_death
from masterkey.errors import SaveError


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))
    return make_pictures(tmp_path / "pictures")


def planned(pictures, store, lr=1e-3):
    experiment = tiny_experiment(pictures, seeds=[0], lrs=[lr], arms=[{"name": "scratch"}])
    return experiment.plan(store)[0].config


def test_the_average_is_frozen_with_the_network():
    model, seen = network_with_bank(freeze=False), []
    layer = next(iter(masterkey.depthwise_layers(model).values()))
    config = replace(PLAIN, epochs=4, freeze_epoch=2, model_ema=True)
    train(model, tints(), config, seed=0, on_epoch=lambda _: seen.append(layer.weight.detach().clone()))
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(layer.weight, seen[1])  # what is left in the network at the end is the average


def test_a_checkpoint_of_another_bank_is_not_gone_on_from(tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(
            network_with_bank(), tints(), PLAIN, seed=0, checkpoint=path, checkpoint_every=0.0, on_epoch=stop, bank="a"
        )
    with pytest.raises(BenchmarkError, match="its bank is 'a', this run's is 'b'"):
        train(network_with_bank(), tints(), PLAIN, seed=0, checkpoint=path, bank="b")
    train(network_with_bank(), tints(), PLAIN, seed=0, checkpoint=path, bank="a")


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(tmp_path):
    with pytest.raises(BenchmarkError, match=r"cannot be read now .* left alone"):
        load_checkpoint(tmp_path, {})  # a folder


def test_a_run_hands_its_bank_to_its_checkpoint(pictures, store):
    experiment = tiny_experiment(pictures, seeds=[0], lrs=[1e-3], arms=[{"name": "random", "bank": "random"}])
    (run,) = experiment.plan(store)
    path = store.partial_path(run.config.id)
    finished = compute_run(run.config, store, checkpoint=path, checkpoint_every=0.0)
    assert torch.load(path, weights_only=True)["run"]["bank"] == finished.metrics["bank_sha256"]


def test_a_source_that_comes_out_otherwise_is_told(pictures, store, recwarn):
    config = planned(pictures, store)
    finished = compute_run(config, store, checkpoint=store.partial_path(config.id))
    record_run(config, finished, store)
    record_run(config, finished, store)
    assert not recwarn.list
    recorded = store.run_path(config.id).read_bytes()
    with pytest.warns(UserWarning, match=r"trained again for its weights, ends at 0\.00 % where"):
        record_run(config, replace(finished, metrics={**finished.metrics, "top1": 0.0}), store)
    assert store.run_path(config.id).read_bytes() == recorded


def test_a_run_that_diverges_leaves_no_checkpoint(pictures, store):
    config = planned(pictures, store, lr=1e30)
    with pytest.raises(DivergedError):
        do_run(config, store, checkpoint_every=0.0)
    assert not store.partial_path(config.id).exists()


def test_a_process_that_dies_after_its_result_is_no_failure(pictures, store):
    config = planned(pictures, store)
    assert _record_death(config, store, -signal.SIGSEGV, 1).state == "failed"
    store.failed_path(config.id).unlink()
    do_run(config, store)
    assert _record_death(config, store, -signal.SIGSEGV, 1).state == "done"
    assert not store.failed_path(config.id).exists()


def test_a_file_system_without_locks_is_named(store, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(SaveError, match=r"cannot lock .*No locks available; runs need a file system with locks"),
        claim(store, "abc"),
    ):
        pass


def test_a_folder_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match=r"cannot read the folder .*absent: No such file"):
        list(visible_files(tmp_path / "absent"))


def test_a_network_that_refuses_the_size_is_one_row(pictures, store):
    experiment = tiny_experiment(pictures, seeds=[0], lrs=[1e-3], arms=[{"name": "scratch"}])
    fixed = replace(experiment, raw={**experiment.raw, "models": ["vit_tiny_patch16_224"], "networks": {}})
    rows = dry_run(fixed, store)
    assert ["vit_tiny_patch16_224 does not take [1, 3, " in (row.problem or "") for row in rows] == [True]
