"""Every experiment runs, at size smoke, on the real data sets, and makes a report."""

import pytest

from masterkey.benchmarks.experiment import experiment_names, load_experiment
from masterkey.benchmarks.report import write_report
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import expected_runs, run_sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ResultStore:
    """One for all: experiments share runs."""
    return ResultStore(tmp_path_factory.mktemp("results"))


@pytest.fixture
def pictures(data_dir, tmp_path_factory, monkeypatch) -> None:
    """The data sets at hand, decoded once for all processes that test."""
    monkeypatch.setenv("MASTERKEY_DATA", str(data_dir))
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path_factory.getbasetemp().parent / "decoded"))


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_runs_at_size_smoke(name, pictures, store, tmp_path):
    experiment = load_experiment(name, "smoke")
    summary = run_sweep(experiment, store)
    assert (summary.failed, summary.blocked) == ({}, [])
    runs = expected_runs(experiment, store)
    assert {run.stage for run in runs} <= {"tune", "final"}
    for run in runs:
        metrics = store.read(run.config.id)["metrics"]
        assert metrics["curve"][-1]["top1"] == metrics["top1"]
        assert (metrics["injection"] is None) == (run.config.arm.bank is None)
    page, *_ = write_report([experiment], store, tmp_path)
    text = page.read_text()
    assert all(run.config.id in text for run in runs)


def test_at_size_small_the_tables_take_the_networks_of_sources(store):
    sources = {run.config.id: run for run in expected_runs(load_experiment("sources", "small"), store)}
    assert {run.config.seed for run in sources.values()} == {0}
    taken = set()
    for name in experiment_names():
        experiment = load_experiment(name, "small")
        if "source_seed" not in experiment.raw:
            continue
        for run in expected_runs(experiment, store):
            for need in run.needs:
                if need.target != run.target:  # not selffer
                    assert need.config.id in sources, f"{name}: {need.target} {need.config.model}"
                    taken.add(need.config.id)
    assert {(of.config.data.name, of.config.model) for of in map(sources.get, taken) if of} >= {
        ("tiny_imagenet", "convnext_atto"),
        ("tiny_imagenet", "convnext_femto"),
        ("tiny_imagenet", "hornet_tiny_7x7"),
        ("pacs_sketch", "hornet_tiny_7x7"),
        ("cifar10", "convnext_atto"),
    }
