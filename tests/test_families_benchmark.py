"""The benchmark on families: every bank by kernel with a code line and controls of its own, and layer by layer."""

import json
from functools import partial

import pytest
import torch

from masterkey.analysis.families import LABELS
from masterkey.benchmarks.scripts import families
from masterkey.distill import autoencoder
from masterkey.extract import from_state_dict


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setattr(autoencoder, "train", partial(autoencoder.train, steps=60))


def test_a_bank_has_figures_by_kernel_and_by_layer(tmp_path):
    draw = torch.Generator().manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(20, 1, k, k, generator=draw) for i, k in enumerate((3, 5, 3))}
    found = families.of_bank(from_state_dict(state, name="drawn"))
    assert {kernel: set(sources) for kernel, sources in found["kernels"].items()} == {
        kernel: {"real", "random", "shuffled pixels"} for kernel in ("3x3", "5x5")
    }
    line = found["kernels"]["3x3"]["shuffled pixels"]["code line"]
    assert len(line["losses"]) == 2
    assert sum(line["families of the samples"].values()) == 50
    assert found["kernels"]["3x3"]["real"]["filters"] == 40
    for source in ("real", "random", "shuffled pixels"):
        rows = [dict(zip(found["layers"]["columns"], row, strict=True)) for row in found["layers"][source]]
        assert [(row["layer"], row["kernel"], row["depth"]) for row in rows] == [
            ("layers.0.weight", 3, 0.0),
            ("layers.1.weight", 5, 0.5),
            ("layers.2.weight", 3, 1.0),
        ]
        assert all(sum(row[label] for label in LABELS) == pytest.approx(1, abs=1e-3) for row in rows)
    families.written({"drawn": found}, tmp_path / "families.json")
    assert json.loads((tmp_path / "families.json").read_text())["drawn"]["kernels"] == found["kernels"]
