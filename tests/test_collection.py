"""Collections: many banks in a folder with their tags, grouped, streamed, and with a broken file among them."""

import os

import numpy as np
import pytest
import torch
from samples import make_bank

from masterkey.analysis import collection
from masterkey.analysis.collection import open_collection, without_degenerate
from masterkey.analysis.drift import drift
from masterkey.analysis.quality import qualities
from masterkey.analysis.structure import measure, survey_all
from masterkey.bank import Bank
from masterkey.errors import MasterkeyError, UnknownNameError

TAGS = "bank,model,family,dataset\none,net-1,nets,cifar10\ntwo,net-2,nets,\nsub/three,,,\n"


@pytest.fixture
def folder(tmp_path):
    """Three banks, one of them deeper and one a bare file, with tags."""
    place = tmp_path / "banks"
    make_bank("first", seed=0).save_pretrained(place / "one")
    make_bank("second", seed=1, datasets=("pets",)).save_pretrained(place / "kept")
    (place / "kept" / "model.safetensors").rename(place / "two.safetensors")
    for rest in (place / "kept").iterdir():
        rest.unlink()
    make_bank("third", seed=2, base_model="org/base").save_pretrained(place / "sub" / "three")
    (place / "collection.csv").write_text(TAGS)
    return place


def test_banks_and_tags(folder):
    collection = open_collection([folder])
    assert [filters.label for filters in collection.banks] == ["one", "sub/three", "two"]
    one, two, three = (collection.tags[label] for label in ("one", "two", "sub/three"))
    assert (one.model, one.family, one.task, one.dataset) == ("net-1", "nets", "unknown", "cifar10")
    assert (two.model, two.dataset) == ("net-2", "pets")
    assert (three.model, three.family, three.dataset) == ("org/base", "unknown", "unknown")


def test_groups(folder):
    collection = open_collection([folder])
    structure = measure(collection.survey(), (7, 7))
    layers = structure.layers
    assert [(layer.bank, layer.position) for layer in layers[:4]] == [
        ("one", 1),
        ("one", 2),
        ("one", 3),
        ("sub/three", 1),
    ]
    assert collection.groups(layers, "bank") == {"one": [0, 1, 2], "sub/three": [3, 4, 5], "two": [6, 7, 8]}
    assert collection.groups(layers, "family") == {"nets": [0, 1, 2, 6, 7, 8], "unknown": [3, 4, 5]}
    assert collection.groups(layers, "dataset").keys() == {"cifar10", "unknown", "pets"}
    # layers 1 to 3 of 4, whose middles lie at 3/8, 5/8 and 7/8
    assert collection.groups(layers, "decile") == {
        "decile  4": [0, 3, 6],
        "decile  7": [1, 4, 7],
        "decile  9": [2, 5, 8],
    }
    assert next(iter(collection.groups(layers, "layer"))) == "one: stages.0.b.weight"


def test_reading_from_files_gives_what_banks_in_memory_give(folder):
    streamed = open_collection([folder]).survey()
    loaded = survey_all([make_bank(name, seed=seed) for name, seed in (("one", 0), ("sub/three", 2), ("two", 1))])
    for kernel in ((3, 3), (7, 7)):
        one, other = measure(streamed, kernel), measure(loaded, kernel)
        assert one.layers == other.layers
        for name in ("explained", "components", "mean", "low", "high", "counts"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_chunks_change_nothing_but_rounding(folder, monkeypatch):
    whole = measure(open_collection([folder]).survey(), (7, 7))
    monkeypatch.setattr("masterkey.analysis.stream.CHUNK", 100)
    parts = measure(open_collection([folder]).survey(), (7, 7))
    np.testing.assert_allclose(parts.explained, whole.explained, atol=1e-12)
    groups = open_collection([folder]).groups(whole.layers, "bank")
    np.testing.assert_allclose(drift(parts, groups).total, drift(whole, groups).total, rtol=1e-6)


def test_the_number_of_threads_changes_nothing(folder):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = measure(open_collection([folder]).survey(), (7, 7))
        torch.set_num_threads(3)
        three = measure(open_collection([folder]).survey(), (7, 7))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(one.counts, three.counts)
    np.testing.assert_array_equal(one.components, three.components)


def test_a_broken_file_is_named_and_the_others_are_read(folder):
    file = folder / "one" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 8
    file.write_bytes(data)
    (folder / "none.safetensors").write_bytes(b"no bank at all")
    collection = open_collection([folder])
    assert [of.filters.label for of in collection.survey()] == ["sub/three", "two"]
    assert [filters.label for filters in collection.banks] == ["sub/three", "two"]
    assert set(collection.broken) == {"none", "one"}
    assert "damaged" in collection.broken["one"] and str(file) in collection.broken["one"]


def test_names_folders_and_files_can_be_mixed(folder, tmp_path):
    collection = open_collection(["scale-space-8", folder / "one", folder / "two.safetensors"])
    assert [filters.label for filters in collection.banks] == ["scale-space-8", "one", "two"]


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ("model\nx\n", "must name the column bank"),
        ("bank,colour\none,red\n", "must name the column bank and any of model, family, task, dataset"),
        ("", "found nothing"),
        ("bank,task\none,a\none,b\n", "describes one more than once"),
        ("model,bank\nfoo\n", "line 2 names no bank"),
        ("bank,model,dataset\none,MCUNet, small,imagenet\n", "line 2 has more cells than the first line"),
        ("bank,model,model\none,a,b\n", "names model more than once"),
        ("bank,task\none,a\n\n,b\n", "line 4 names no bank"),
        ("bank,task\nelsewhere,a\n", "describes elsewhere, but there is no such bank"),
    ],
)
def test_tags_that_cannot_be_right_are_refused(folder, tags, says):
    (folder / "collection.csv").write_text(tags)
    with pytest.raises(MasterkeyError, match=says):
        open_collection([folder])


def test_no_banks_equal_names_and_unknown_names_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MasterkeyError, match="holds neither"):
        open_collection([tmp_path / "empty"])
    for twice in ([folder, folder / "one"], [folder / "one", folder / "one"], ["scale-space-8", "scale-space-8"]):
        with pytest.raises(MasterkeyError, match=r"the bank .* is given twice"):
            open_collection(twice)
    with pytest.raises(UnknownNameError):
        open_collection(["scale-space-9"])


def test_folders_of_one_name_go_by_their_paths(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("run1", "run2"):
        make_bank(run).save_pretrained(f"{run}/bank")
    found = open_collection(["run1/bank", "run2/bank", "banks/one"])
    assert [filters.label for filters in found.banks] == list(found.tags) == ["run1/bank", "run2/bank", "one"]
    assert [of.filters.label for of in found.survey()] == ["run1/bank", "run2/bank", "one"]
    files = [f"{run}/bank/model.safetensors" for run in ("run1", "run2")]
    assert [filters.label for filters in open_collection(files).banks] == ["run1/bank", "run2/bank"]
    assert [filters.label for filters in open_collection(["run1", "run2"]).banks] == ["run1/bank", "run2/bank"]
    for run in ("run1", "run2"):
        (tmp_path / run / "bank" / "model.safetensors").write_bytes(b"no bank")
    assert list(open_collection(["run1/bank", "run2/bank"]).broken) == ["run1/bank", "run2/bank"]


def test_a_bank_and_a_network_of_one_name_are_both_what_the_table_says(folder, monkeypatch):
    (folder / "two").mkdir()
    (folder / "two.safetensors").rename(folder / "two" / "model.safetensors")
    make_bank("again").save_pretrained(folder / "again")
    (folder / "again" / "model.safetensors").rename(folder / "two.safetensors")
    found = open_collection([folder])
    assert {label for label, tags in found.tags.items() if tags.model == "net-2"} == {
        str(folder / "two"),
        str(folder / "two.safetensors"),
    }


def test_a_folder_without_a_bank_does_not_hide_a_built_in_one(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scale-space-8").mkdir()
    assert [filters.label for filters in open_collection(["scale-space-8"]).banks] == ["scale-space-8"]
    (folder / "one").rename(tmp_path / "scale-space-8" / "one")
    assert [filters.label for filters in open_collection(["scale-space-8"]).banks] == ["one"]


def test_the_ablation_leaves_degenerate_layers_out():
    sound = make_bank("sound")
    layers = dict(sound.layers)
    copies = torch.ones(200, 1, 7, 7)
    layers["stages.0.b.weight"] = copies
    described = tuple(
        layer if layer.name != "stages.0.b.weight" else type(layer)(layer.name, (7, 7), 200)
        for layer in sound.metadata.layers
    )
    bank = Bank(layers, type(sound.metadata)("b", "depthwise", sound.metadata.source, described, "forward"))
    read = survey_all([bank])
    (left,) = without_degenerate(read, qualities(read[0].sums))
    assert [layer.info.name for layer in left.sums] == [name for name in layers if name != "stages.0.b.weight"]


def test_folders_below_that_cannot_be_read_are_named(folder, monkeypatch):
    read = os.scandir

    def scandir(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root, as which tests may run, can read whatever the mode says
    monkeypatch.setattr(collection, "TAGS_NAME", "no tags")  # else one of them is of a bank that is not seen
    found = open_collection([folder])
    assert [filters.label for filters in found.banks] == ["one", "two"]
    assert list(found.broken.values()) == [f"{folder / 'sub'} cannot be read: Permission denied"]


def test_a_folder_in_the_home_is_opened(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert [filters.label for filters in open_collection(["~/banks"]).banks] == ["one", "sub/three", "two"]
