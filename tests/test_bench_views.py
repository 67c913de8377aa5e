"""The man-made and the natural half of ImageNet: the list, and data with the classes of one side."""

import numpy as np
import pytest
from picture_folders import image_folder, load

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.data.views import classes_in_view, view_list

datasets = pytest.importorskip("datasets")


def test_the_list_follows_its_rule_and_has_the_counts_of_yosinski():
    listed = view_list()
    sides = [side for side, _, _ in listed.values()]
    assert (sides.count("man-made"), sides.count("natural")) == (551, 449)
    natural = {"animal", "object", "person", "plant", "produce"}
    assert all((side == "natural") == (branch in natural) for side, branch, _ in listed.values())
    # what everybody agrees on
    side = {name.split(",")[0]: side for side, _, name in listed.values()}
    for name in ("goldfish", "golden retriever", "volcano", "daisy", "broccoli", "banana", "bolete"):
        assert side[name] == "natural"
    for name in ("abacus", "airliner", "pizza", "street sign", "comic book", "toilet tissue", "castle"):
        assert side[name] == "man-made"


def test_the_list_has_imagenets_ids_and_names():
    info = pytest.importorskip("timm.data.imagenet_info").ImageNetInfo()
    ours = view_list()
    assert list(ours) == info.label_names()
    assert [name for _, _, name in ours.values()] == [info.label_name_to_description(i, detailed=False) for i in ours]


def test_a_view_keeps_its_classes_and_renumbers_them(tmp_path, cache):
    names = ["n01443537", "n02666196 abacus", "n07753592 banana", "n07873807"]
    folder = image_folder(
        tmp_path / "tiny", {"train": {name: 3 + i for i, name in enumerate(names)}, "test": dict.fromkeys(names, 1)}
    )
    everything, natural, made = (load(folder, cache, view=view) for view in (None, "natural", "man-made"))
    assert natural.classes == ("n01443537", "n07753592 banana")
    assert natural.train.labels.tolist() == [0] * 3 + [1] * 5
    assert (natural.train.images == everything.train.images[np.isin(everything.train.labels, [0, 2])]).all()
    assert made.classes == ("n02666196 abacus", "n07873807")
    assert made.train.labels.tolist() == [0] * 4 + [1] * 6
    assert (made.evaluate.images == everything.evaluate.images[[1, 3]]).all()
    assert len({everything.sha256, natural.sha256, made.sha256}) == 3


def test_imagenet_by_names_alone_is_known_by_its_order():
    names = [name for _, _, name in view_list().values()]
    names[517] = "crane2"  # as some editions tell the machine from the bird
    assert len(classes_in_view(names, "natural")) == 449
    assert 134 in classes_in_view(names, "natural")
    assert 517 in classes_in_view(names, "man-made")
    with pytest.raises(BenchmarkError, match="1000 of 1000 classes are none of them"):
        classes_in_view(sorted(names), "natural")


@pytest.mark.parametrize(
    ("classes", "view", "says"),
    [
        (["n01443537", "Abyssinian"], "natural", "1 of 2 classes .* 'Abyssinian'"),
        (["n00000001"], "natural", "none of them"),
        (["n02666196"], "natural", "not one of the 1 classes"),
    ],
)
def test_a_view_of_something_else_is_refused(classes, view, says):
    with pytest.raises(BenchmarkError, match=says):
        classes_in_view(classes, view)
