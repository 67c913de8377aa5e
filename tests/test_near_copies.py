"""Test pictures that were learnt from: found where they were planted, and nowhere else."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from masterkey.benchmarks import near_copies


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
