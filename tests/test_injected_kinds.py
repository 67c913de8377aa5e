"""Banks of pointwise, dense and all convolutions in networks."""

import pytest
import torch
from networks import CONVNEXT, build, snapshot, train
from torch import nn

from masterkey import Bank, eject, inject, verify
from masterkey.errors import PlanError


class TestKinds:
    @pytest.mark.parametrize(
        ("name", "kind", "layers", "linear"),
        [
            (CONVNEXT, "pointwise", 18, 18),
            (CONVNEXT, "dense", 4, 0),
            (CONVNEXT, "all", 31, 18),
            ("resnet18", "pointwise", 3, 0),
            ("resnet18", "dense", 17, 0),
            ("resnet18", "all", 20, 0),
        ],
    )
    def test_layerwise(self, name, kind, layers, linear):
        source, target = build(name, seed=1), build(name, seed=2)
        bank = Bank.from_model(source, kind)
        before = snapshot(target)
        report = inject(target, bank, policy="layerwise")
        assert all(row.replaced for row in report.rows)
        assert len(report.rows) == layers
        assert sum(isinstance(target.get_submodule(row.layer), nn.Linear) for row in report.rows) == linear
        inside = {f"{row.layer}.weight" for row in report.rows}
        for key, tensor in target.state_dict().items():
            expected = source.state_dict()[key] if key in inside else before["state"][key]
            assert torch.equal(tensor, expected), key
        train(target, steps=1)
        assert verify(target) == []
        eject(target)
        assert all(torch.equal(target.state_dict()[key], before["state"][key]) for key in inside)

    def test_convolutions_and_linear_layers_mask_alike(self):
        bank = Bank.from_model(build(seed=1), "pointwise")
        report = inject(build(), bank, policy="layerwise", layers=["stage:0", "stage:3"])
        assert len(report.replaced) == 6

    def test_other_widths_are_refused(self):
        bank = Bank.from_model(build(), "pointwise")
        with pytest.raises(PlanError, match="layerwise"):
            inject(build("test_convnext2"), bank, policy="layerwise")
