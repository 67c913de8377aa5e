"""Test pictures that were learnt from: found where they were planted, nowhere else, and left out where asked."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from report_runs import BANK, RANDOM, SCRATCH, experiment, write_run

from masterkey.benchmarks import near_copies
from masterkey.benchmarks.config import BenchmarkError, DataConfig
from masterkey.benchmarks.data import load_data
from masterkey.benchmarks.scripts import without_copies
from masterkey.benchmarks.store import ResultStore


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Ten smooth pictures of two classes in either part; test's b/0 is train's a/3, brighter, smaller, compressed."""
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    folder = tmp_path / "mine"
    for part in ("train", "test"):
        for name in ("a", "b"):
            (folder / part / name).mkdir(parents=True)
            for i in range(5):
                coarse = Image.fromarray(generator.integers(0, 200, (6, 6, 3), dtype=np.uint8))
                coarse.resize((96, 96), Image.Resampling.BICUBIC).save(folder / part / name / f"{i}.png")
    original = Image.open(folder / "train" / "a" / "3.png")
    copied = original.point(lambda value: min(255, value + 20)).resize((80, 80), Image.Resampling.BILINEAR)
    (folder / "test" / "b" / "0.png").unlink()
    copied.save(folder / "test" / "b" / "0.jpg", quality=80)
    return folder


def test_a_copy_is_found_and_nothing_else(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["near_copies", str(pictures), "-o", str(tmp_path / "found.json")])
    near_copies.main()
    assert "1 of 10 test pictures have a near copy in train" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "found.json").read_text())["sets"].values()
    assert found == {"test_pictures": 10, "near_copies": 1, "of_the_same_class": 0}


def test_pictures_of_one_colour_are_copies_of_each_other_alone():
    plain = np.full((2, 40, 40, 3), 255, dtype=np.uint8)
    plain[1, :, :, 0] = 7
    drawn = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    likeness = near_copies.thumbnails(plain) @ near_copies.thumbnails(np.concatenate([plain, drawn])).T
    assert likeness.numpy() == pytest.approx(np.array([[1, 1, 0, 0]] * 2), abs=1e-4)


def finish(what, store, mistakes):
    """Write a run of ten test pictures for every arm and seed in ``mistakes``: wrong rows, None if not told."""
    for run in what.plan(store):
        rows, told = mistakes.get((run.arm, run.config.seed), (None, True))
        if rows is not None:
            known = {"mistakes": [[row, 1] for row in rows]} if told else {}
            write_run(run, store, 100 - 10 * len(rows), 1.0, classes=2, evaluated_pictures=10, **known)


def test_accuracies_and_differences_without_the_copies(pictures, tmp_path, monkeypatch, capsys):
    data = load_data(DataConfig(str(pictures), pixels=64))
    ((copy, _, _),) = near_copies.near_copies(data)
    other, another, third = [row for row in range(10) if row != copy][:3]
    what = experiment([SCRATCH, RANDOM, BANK], targets=["mine"], data={"mine": {"name": str(pictures), "pixels": 64}})
    store = ResultStore(tmp_path / "results")
    wrong = {
        ("scratch", 0): sorted([other, copy]),
        ("scratch", 1): sorted([other, another, copy]),
        ("bank", 0): [other],  # the copy right, and so 10 points above scratch; without it none
        ("bank", 1): sorted([other, third]),
    }
    told = {place: (rows, True) for place, rows in wrong.items()}
    finish(what, store, {**told, ("random", 0): ([other], False), ("random", 1): ([other], False)})

    (row,) = [row for row in without_copies.compare(what, store) if row["arm"] == "bank"]
    assert (row["control"], row["pairs"]) == ("scratch", 2)  # random did not tell
    assert row["top1"] == [85.0, pytest.approx(100 * 7.5 / 9)]
    assert row["difference"] == [10.0, 0.0]
    assert row["low"][0] is row["high"][0] is None  # the same in both seeds, which proves nothing

    monkeypatch.setattr(without_copies, "load_experiment", lambda name, size: what)
    monkeypatch.setattr(without_copies, "default_store", lambda: store)
    monkeypatch.setattr(sys, "argv", ["without_copies", "tiny:mine", "-o", str(tmp_path / "w.json")])
    without_copies.main()
    line = "convnext_atto mine bank against scratch, 2 seeds: 85.0 %, +10.0"
    assert line in capsys.readouterr().out
    recorded = json.loads((tmp_path / "w.json").read_text())
    assert recorded["rows"] == without_copies.compare(what, store)
    assert recorded["command"].endswith(f"tiny:mine -o {tmp_path / 'w.json'}")


def test_runs_that_tell_no_mistakes_are_one_sentence(pictures, tmp_path):
    what = experiment([SCRATCH, RANDOM], targets=["mine"], data={"mine": {"name": str(pictures), "pixels": 64}})
    store = ResultStore(tmp_path / "results")
    finish(what, store, {("scratch", 0): ([1], False), ("random", 0): ([2], False)})
    with pytest.raises(BenchmarkError, match="no finished run of tiny at size small recorded its mistakes"):
        without_copies.compare(what, store)
