"""Which pictures are learnt from and which are judged on: parts of a data set, and shares that are carved out of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_folders import image_folder, load

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.data.splits import carve, limit

datasets = pytest.importorskip("datasets")


def test_a_third_split_is_for_validation_or_learnt_from(tmp_path, cache):
    folder = image_folder(
        tmp_path / "set", {"train": {"a": 4, "b": 4}, "val": {"a": 1, "b": 2}, "test": {"a": 2, "b": 1}}
    )
    final, tuning = load(folder, cache), load(folder, cache, evaluate="validation")
    assert final.train.labels.tolist() == [0] * 4 + [1] * 4 + [0] + [1] * 2
    assert final.evaluate.labels.tolist() == [0, 0, 1]
    assert tuning.train.labels.tolist() == [0] * 4 + [1] * 4
    assert (tuning.evaluate.images == final.train.images[8:]).all()
    assert isinstance(final.train.images, np.memmap)


def test_a_second_split_by_any_name_is_the_test_part(tmp_path, cache):
    folder = image_folder(tmp_path / "set", {"train": {"a": 5, "b": 5}, "validation": {"a": 2, "b": 1}})
    assert len(load(folder, cache).evaluate.labels) == 3
    tuning = load(folder, cache, evaluate="validation")
    assert (len(tuning.train.labels), len(tuning.evaluate.labels)) == (8, 2)


def test_validating_never_opens_the_test_part(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    for path in (folder / "test").rglob("*.png"):
        path.write_bytes(b"rotten")
    tuning = load(folder, cache, evaluate="validation")
    assert len(tuning.train.labels) + len(tuning.evaluate.labels) == 11
    assert not list(cache.rglob("test-*"))
    with pytest.raises(BenchmarkError, match="split test: not one picture can be decoded"):
        load(folder, cache)


def test_a_class_of_one_stays_in_train_and_is_mentioned(tmp_path, cache, capsys):
    folder = image_folder(tmp_path / "set", {"train": {"a": 1, "b": 6}, "test": {"a": 1, "b": 1}})
    data = load(folder, cache, evaluate="validation")
    assert set(data.train.labels) == {0, 1}
    assert set(data.evaluate.labels) == {1}
    assert "1 classes have a single picture" in capsys.readouterr().err


def test_the_seed_and_nothing_else_decides_what_is_held_out():
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 2, 2])
    # drawn once and written down: these must not change with a version of NumPy
    assert carve(labels, 0.4, 0)[1].tolist() == [0, 2, 3, 6, 10]
    assert carve(labels, 0.4, 1)[1].tolist() == [0, 3, 8, 9, 11]
    assert limit(labels, 2, 5).tolist() == [0, 1, 3, 8, 10, 11]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=60), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_carving_keeps_every_class_on_both_sides(values, share, seed):
    labels = np.array(values, dtype=np.int64)
    train, held_out = carve(labels, share, seed)
    assert sorted([*train, *held_out]) == list(range(len(labels)))
    for number in set(values):
        count, kept = values.count(number), int((labels[train] == number).sum())
        assert kept >= 1
        assert count == 1 or count - kept == min(max(int(count * share + 0.5), 1), count - 1)
    assert set(held_out) <= set(carve(labels, min(share * 1.5, 0.99), seed)[1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_fewer_pictures_of_a_class_are_among_more(values, per_class, seed):
    labels = np.array(values, dtype=np.int64)
    rows = limit(labels, per_class, seed)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert all((labels[rows] == number).sum() == min(values.count(number), per_class) for number in set(values))
    assert set(rows) <= set(limit(labels, per_class + 1, seed))


def test_per_class_applies_to_both_parts_and_takes_pictures_with_their_labels(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    everything, few = load(folder, cache), load(folder, cache, per_class=2)
    assert few.train.labels.tolist() == few.evaluate.labels.tolist() == [0, 0, 1, 1]
    for image, label in zip(few.train.images, few.train.labels, strict=True):
        same = (everything.train.images == image).all(axis=(1, 2, 3))
        assert everything.train.labels[same].tolist() == [label]
    assert isinstance(few.train.images.pictures, np.memmap)
