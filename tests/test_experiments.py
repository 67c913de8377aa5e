"""Every experiment runs, at size smoke, on the real data sets, and makes a report."""

import pytest

from masterkey.benchmarks.experiment import SIZES, experiment_names, load_experiment
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


def _ids(name: str, size: str, store: ResultStore, **wanted: str) -> set[str]:
    """Runs of an experiment by arm, network or data set."""
    found = expected_runs(load_experiment(name, size), store)
    of = [{"arm": run.arm, "target": run.target, "model": run.config.model, "id": run.config.id} for run in found]
    return {run["id"] for run in of if run.items() >= wanted.items()}


@pytest.mark.parametrize(
    ("size", "convnext", "resnet"), [("small", "convnext_atto", "resnet18"), ("paper", "convnext_tiny", "resnet50")]
)
def test_the_halves_of_imagenet_are_learnt_once(store, size, convnext, resnet):
    """Table 1 and Figures 3 to 5 share what is trained from scratch on either half."""
    for half in ("natural", "man-made"):
        scratch = {"arm": "scratch", "target": half}
        table1, fig3 = (_ids(name, size, store, **scratch, model=convnext) for name in ("table1", "fig3"))
        assert table1 == fig3 and len(table1) == 3
        fig3, fig5 = (_ids(name, size, store, **scratch, model=resnet) for name in ("fig3", "fig5"))
        assert fig3 == fig5 and len(fig3) == 3
        assert _ids("fig4", size, store, **scratch) == _ids("fig5", size, store, **scratch, model="resnet18")


@pytest.mark.parametrize("name", ["fig3", "fig4", "fig5", "fig6", "table5"])
@pytest.mark.parametrize("size", SIZES)
def test_random_filters_are_put_into_the_same_layers(name, size):
    """Every arm that puts in another network's filters has its control: as many layers, of the same kind."""
    arms = load_experiment(name, size).arms

    def place(arm):
        everywhere = 12 if name == "fig6" else None  # depthwise layers of ConvNeXt-Atto and -Femto
        return [arm.get("kind"), arm.get("models"), arm.get("inject", {}).get("layers", everywhere)]

    random = [place(arm) for arm in arms if arm.get("bank") == "random"]
    for arm in arms:
        if str(arm.get("bank")).startswith("scratch:"):
            assert place(arm) in random, arm["name"]
