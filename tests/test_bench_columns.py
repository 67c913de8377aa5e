"""Data sets whose columns are not called image and label, have several of a kind, or come in configurations."""

import json
from pathlib import Path

import pytest
from hub_server import HubServer, card
from hub_worker import Worker
from picture_folders import hub_folder, image_folder, load

from masterkey.benchmarks.config import ArmConfig, BenchmarkError, DataConfig, RunConfig, TrainConfig
from masterkey.benchmarks.data import load_data
from masterkey.benchmarks.data.catalogue import CATALOGUE, DATA_VARIABLE, HubSet
from masterkey.benchmarks.experiment import load_experiment
from masterkey.benchmarks.own_data import check_folders, check_pictures
from masterkey.benchmarks.store import ResultStore

datasets = pytest.importorskip("datasets")

COARSE = {"train": ["warm", "cold", "warm", "cold"], "test": ["warm", "cold"]}


@pytest.fixture
def two_labels(tmp_path) -> Path:
    """As CIFAR-100 has it: two columns of labels."""
    return hub_folder(tmp_path / "set", {"train": [0, 1, 2, 3], "test": [0, 3]}, names=list("abcd"), coarse=COARSE)


def test_the_column_that_is_named_is_learnt(two_labels, tmp_path):
    plain = load(two_labels, tmp_path / "cache")
    coarse = load(two_labels, tmp_path / "cache", label="coarse")
    assert (plain.classes, coarse.classes) == (("a", "b", "c", "d"), ("cold", "warm"))
    assert coarse.train.labels.tolist() == [1, 0, 1, 0]
    assert load(two_labels, tmp_path / "cache", image="image", label="label").sha256 == plain.sha256


@pytest.mark.parametrize("columns", [{"label": "no"}, {"image": "coarse"}, {"image": "no", "label": "coarse"}])
def test_a_column_that_is_not_there_is_refused_with_what_is(two_labels, tmp_path, columns):
    sentence = r"columns image \(Image\), label \(ClassLabel\), coarse \(Value\); expected"
    with pytest.raises(BenchmarkError, match=sentence):
        load(two_labels, tmp_path / "cache", **columns)


def test_a_label_is_one_value(tmp_path):
    """Several to a picture are refused, and so is a missing number, which is kept as one not equal to itself."""
    folder = hub_folder(tmp_path / "set", {"train": [0, 1, 2, 3]}, names=list("abcd"))
    (file,) = (folder / "data").glob("train*")
    rows = datasets.Dataset.from_parquet(str(file))
    rows.add_column("several", [[0, 1], [1], [0], [1]]).add_column("real", [0.0, 1.0, 0.0, float("nan")]).to_parquet(
        file
    )
    with pytest.raises(BenchmarkError, match=r"several \((List|Sequence)\).*; expected one of images and several"):
        load(folder, tmp_path / "cache", label="several")
    with pytest.raises(BenchmarkError, match="1 of 4 pictures have no label"):
        load(folder, tmp_path / "cache", label="real")


def test_a_known_set_with_other_labels_need_not_have_the_size_published(two_labels, tmp_path, monkeypatch):
    known = HubSet(str(two_labels), "image", "label", ("train",), "test", size=(4, 4, 2))
    monkeypatch.setitem(CATALOGUE, "drawn", known)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "none"))
    assert len(load_data(DataConfig("drawn", pixels=8), tmp_path / "cache").classes) == 4
    coarse = load_data(DataConfig("drawn", pixels=8, label="coarse"), tmp_path / "cache")
    assert coarse.classes == ("cold", "warm")


def test_the_files_of_a_set_that_is_no_image_folder_are_not_said_to_be_passed_over(two_labels, tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))
    experiment = load_experiment("own-pictures", "smoke").only(targets=[str(two_labels)], arms=["scratch"])
    said = check_pictures(experiment, ResultStore(tmp_path / "results"))
    assert not any("passed over" in remark for remark in said)


def test_a_folder_of_pictures_has_no_columns(tmp_path):
    folder = image_folder(tmp_path / "mine")
    with pytest.raises(BenchmarkError, match="is a folder of pictures, which has no label to choose"):
        load(folder, tmp_path / "cache", label="coarse")
    file = tmp_path / "own.toml"
    file.write_text(
        'targets = ["mine"]\nmodels = ["test_convnext"]\nseeds = [0]\nlrs = [1e-3]\n'
        '[data.mine]\nname = "./mine"\nlabel = "coarse"\n[[arms]]\nname = "scratch"\n'
    )
    with pytest.raises(BenchmarkError, match="has no label to choose"):
        check_folders(load_experiment(str(file), "small"))


def test_columns_are_part_of_a_runs_id_only_where_they_are_named():
    def run(**columns: str) -> RunConfig:
        return RunConfig(DataConfig("pets", **columns), "test_convnext", ArmConfig(), TrainConfig(), seed=0)

    assert run().to_dict()["data"].keys().isdisjoint({"image", "label", "subset"})
    ids = {run().id, run(label="species").id, run(image="species").id, run(subset="species").id}
    assert len(ids) == 4


def test_a_configuration_of_a_repository(hub: HubServer, tmp_path):
    folders = {
        "small": hub_folder(tmp_path / "a", {"train": [0, 1], "test": [0]}, names=["ant", "bee"]),
        "large": hub_folder(tmp_path / "b", {"train": [0, 1, 2], "test": [0]}, names=["ant", "bee", "cat"]),
    }
    files = {
        f"{name}/{path.name}": path.read_bytes()
        for name, folder in folders.items()
        for path in folder.rglob("*.parquet")
    }
    described = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"{name}/{split}-*"} for split in ("train", "test")],
        }
        for name in folders
    ]
    hub.add("datasets/org/sizes", {**files, "README.md": card(configs=described)})
    local = tmp_path / "local"
    for path, content in {**files, "README.md": card(configs=described)}.items():
        (local / path).parent.mkdir(parents=True, exist_ok=True)
        (local / path).write_bytes(content)
    assert load(local, tmp_path / "cache", subset="large").classes == ("ant", "bee", "cat")
    with pytest.raises(BenchmarkError, match=r"\['small', 'large'\]; name it as subset in \[data.KEY\]"):
        load(local, tmp_path / "cache")
    (tmp_path / "no-data").mkdir()
    with Worker(hub, tmp_path, MASTERKEY_DATA=str(tmp_path / "no-data"), MASTERKEY_CACHE=str(tmp_path / "c")) as bench:
        found = {}
        for subset in ("small", "large", None):
            found[subset] = bench.python(
                "import json\nfrom masterkey.benchmarks.config import DataConfig\n"
                "from masterkey.benchmarks.data import load_data\n"
                f"print(json.dumps(load_data(DataConfig('org/sizes', pixels=8, subset={subset!r})).classes))"
            )
    assert json.loads(found["small"].out) == ["ant", "bee"], found["small"].err
    assert json.loads(found["large"].out) == ["ant", "bee", "cat"]
    assert found[None].code != 0
    assert "available configs: ['small', 'large']; name it as subset in [data.KEY]" in found[None].err
