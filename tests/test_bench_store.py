"""Results that were altered, cut short or written by others: refused with one sentence, and left alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_runs import BANK, SCRATCH, experiment, finish

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import expected_runs, run_sweep
from masterkey.cli.main import run

WHAT = experiment([SCRATCH, BANK], lrs=[1e-3, 3e-3])


@pytest.fixture
def store(tmp_path) -> ResultStore:
    store = ResultStore(tmp_path)
    finish(WHAT, store, lambda run: 50.0)
    return store


def altered(path: Path, alter: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(path.read_bytes())
    alter(content)
    path.write_text(json.dumps(content))
    return path.read_bytes()


def put(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    *tables, last = keys

    def alter(content: dict[str, Any]) -> None:
        place: Any = content
        for key in tables:
            place = place[key]
        place[last] = to

    return alter


ALTERED = {
    "epochs as a fraction": (
        put("metrics", "config", "train", "epochs", to=4.0),
        "epochs is 4.0, which is no whole number",
    ),
    "epochs": (put("metrics", "config", "train", "epochs", to=5), "that was changed: it is that of run"),
    "seed": (put("metrics", "config", "seed", to=9), "that was changed"),
    "seed as text": (put("metrics", "config", "seed", to="0"), "seed is '0', which is no whole number"),
    "an unknown option": (put("metrics", "config", "train", "tempo", to=1), "[train] has no 'tempo'"),
    "no arm": (lambda content: content["metrics"]["config"].pop("arm"), "no 'arm'"),
    "no configuration": (lambda content: content["metrics"].pop("config"), "no 'config'"),
    "a list for a configuration": (put("metrics", "config", to=[]), "no configuration"),
    "no metrics": (lambda content: content.pop("metrics"), "has no metrics"),
    "no machine": (lambda content: content.pop("machine"), "has no machine"),
    "metrics as a list": (put("metrics", to=[]), "has no metrics"),
    "top1 as text": (put("metrics", "top1", to="50.0"), "has top1 '50.0' in metrics"),
    "top1 that is none": (put("metrics", "top1", to=float("nan")), "has top1 nan"),
    "another top1": (put("metrics", "top1", to=51.0), "its curve ends in 50"),
    "classes as a truth": (put("metrics", "classes", to=True), "has classes True"),
    "a short curve": (
        lambda content: content["metrics"]["curve"].pop(),
        "a curve of 3 epochs, its configuration has 4",
    ),
    "an epoch twice": (put("metrics", "curve", 2, "epoch", to=1), "no epoch 2"),
    "an epoch without loss": (lambda content: content["metrics"]["curve"][1].pop("loss"), "no loss in epoch 1"),
    "mistakes as a count": (put("metrics", "mistakes", to=2), "has mistakes 2 in metrics"),
    "a mistake without its class": (put("metrics", "mistakes", to=[[3]]), "has a mistake [3], which is no"),
    "a mistake in a picture too many": (put("metrics", "mistakes", to=[[3669, 0]]), "has a mistake [3669, 0]"),
    "a mistake for no class": (put("metrics", "mistakes", to=[[0, 37]]), "has a mistake [0, 37]"),
    "a mistake twice": (put("metrics", "mistakes", to=[[3, 1], [3, 2]]), "not in the order of their pictures"),
    "another number of mistakes": (put("metrics", "mistakes", to=[[3, 1]]), "has 1 mistakes in 3669 pictures"),
    "an injection without rows": (put("metrics", "injection", to={"bank": "x"}), "an injection without rows"),
    "a row of an injection without its layer": (
        put("metrics", "injection", to={"rows": [{"replaced": True, "sources": []}]}),
        "has no layer in row 0 of the injection",
    ),
    "more than all are right": (
        lambda content: (
            put("metrics", "top1", to=150.0)(content),
            put("metrics", "curve", 3, "top1", to=150.0)(content),
        ),
        "has a top1 of 150.0 in epoch 3, which is no percentage",
    ),
    "load as text": (put("machine", "load_average", to=["high"]), "has 0 'high' in load_average"),
    "cores as text": (put("machine", "cores", to="two"), "has cores 'two' in machine"),
    "an empty machine": (put("machine", to={}), "has no cpu in machine"),
    "seconds as text": (put("machine", "seconds", to="9"), "has seconds '9' in machine"),
    "an epoch's time missing": (lambda content: content["machine"]["epoch_seconds"].pop(), "no 3 in epoch_seconds"),
    "another run": (put("metrics", "id", to="0" * 12), "holds run '000000000000'"),
    "another version": (put("version", to="1"), "is of version '1'"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_result_is_one_sentence_wherever_it_is_met(store, what, capsys):
    alter, says = ALTERED[what]
    run_id = WHAT.plan(store)[0].config.id
    path = store.run_path(run_id)
    content = altered(path, alter)
    for meet in (lambda: store.read(run_id), lambda: expected_runs(WHAT, store), lambda: run_sweep(WHAT, store)):
        with pytest.raises(BenchmarkError) as caught:
            meet()
        assert str(path) in str(caught.value)
        assert says in str(caught.value)
    assert run(["bench", "show", run_id, "--results", str(store.root)]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert says in sentence
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b'{"version": 1, ', b"\xff\xfe", b"[" * 100_000, b"7", b"null"])
def test_a_file_that_is_no_result_is_one_sentence(store, content, capsys):
    run_id = store.run_ids()[0]
    store.run_path(run_id).write_bytes(content)
    with pytest.raises(BenchmarkError, match=rf"{run_id}.json (cannot be read|holds no record)"):
        store.read(run_id)
    assert run(["bench", "show", run_id, "--results", str(store.root)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


FAILURES = {
    b'{"id": "': "cannot be read",
    b"[]": "holds no record of a run but a list",
    b"{}": "holds run None",
}


@pytest.mark.parametrize("content", FAILURES)
def test_a_damaged_record_of_a_failure_is_one_sentence(store, content, capsys):
    planned = WHAT.plan(store)[0]
    run_id = planned.config.id
    store.run_path(run_id).unlink()
    store.write_failure(planned.config, ValueError("no luck"))
    failure = store.read_failure(run_id)
    assert (failure["error"], failure["message"]) == ("ValueError", "no luck")
    path = store.failed_path(run_id)
    damaged = {
        content: FAILURES[content],
        json.dumps({**failure, "message": None}).encode(): "has message None in the failure",
        json.dumps(
            {**failure, "config": {**failure["config"], "seed": 9}}
        ).encode(): "has a configuration that was changed",
    }
    for written, says in damaged.items():
        path.write_bytes(written)
        for meet in (lambda: store.read_failure(run_id), lambda: run_sweep(WHAT, store)):
            with pytest.raises(BenchmarkError, match=f"{run_id}.json {says}"):
                meet()
        assert run(["bench", "show", run_id, "--results", str(store.root)]) == 1
        assert says in capsys.readouterr().err
        assert path.read_bytes() == written


def test_every_result_of_this_repository_is_believed():
    committed = ResultStore(Path(__file__).resolve().parent.parent / "benchmarks" / "results")
    assert all(committed.read(run_id) for run_id in committed.run_ids())
