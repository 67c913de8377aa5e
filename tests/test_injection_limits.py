"""What an injection leaves out, and numbers that are too small, too narrow or mere rounding."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations

from masterkey import Bank, inject, verify
from masterkey.errors import PlanError


def test_layers_that_are_left_out_may_be_of_any_kind():
    """Computed, without values, shared, of few bits: what nobody asks to fill is nobody's hindrance."""
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3, groups=8) for _ in range(6)))
    parametrizations.weight_norm(model[1])
    parametrizations.spectral_norm(model[2])
    model[3].to("meta")
    model[4].weight = model[5].weight
    power = model[2].parametrizations.weight[0]._u.clone()
    for bank in ("scale-space-8", "random"):
        report = inject(model, bank, layers="0")
        assert [row.replaced for row in report.rows] == [True] + [False] * 5
        assert verify(model) == []
    assert torch.equal(model[2].parametrizations.weight[0]._u, power)  # looking at it changes nothing
    for layer, words in {"1": "computes its weight", "3": "meta device", "4": "shares its weight with 5"}.items():
        with pytest.raises(PlanError, match=words):
            inject(model, "scale-space-8", layers=layer)


def test_numbers_that_cannot_hold_filters_are_refused():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8)).half()
    tiny = Bank.from_filters(torch.full((8, 3, 3), 1e-9), name="tiny")
    with pytest.raises(PlanError, match="in which nothing is left of its filters, which are too small"):
        inject(model, tiny)
    assert inject(model, tiny, scale="unit").rows[0].replaced
    narrow = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8)).to(torch.float8_e4m3fn)
    with pytest.raises(PlanError, match="weights of float8_e4m3fn; filters are real numbers of 16 bits"):
        inject(narrow, "scale-space-8")
    broken = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    nn.init.constant_(broken[0].weight, torch.nan)
    with pytest.raises(PlanError, match="do not vary, or are no numbers"):
        inject(broken, "scale-space-8", scale="target")


def test_rounding_is_not_blown_up():
    """A filter that averages, fitted to another kernel, varies by its last bits alone."""
    flat = Bank.from_filters(torch.full((8, 7, 7), 0.1), name="flat")
    scaled = flat.resized(5, "resample").normalized("std")
    assert scaled.layers["filters"].abs().max() < 1
    model = nn.Sequential(nn.Conv2d(8, 8, 5, groups=8))
    inject(model, flat, kernel="resample", scale="target")
    assert model[0].weight.abs().max() < 1


def test_a_rule_that_fits_no_kernel_says_so_of_local_noise_too(tmp_path):
    folder = Bank.from_filters(torch.randn(6, 3, 3), name="k3").save_pretrained(tmp_path / "k3")
    for control in ("random-local", "shuffled-pixels"):
        with pytest.raises(PlanError, match="the filters are 3x3, the target needs 7x7"):
            inject(nn.Sequential(nn.Conv2d(8, 8, 7, groups=8)), f"{control}:{folder}", kernel="exact")


def test_a_checkpoints_order_is_not_taken_for_that_of_the_forward_pass():
    """Where the shapes agree, the filters of its own checkpoint would go into other layers of the network."""
    model = timm.create_model("efficientvim_m1", num_classes=3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    bank = Bank.from_state_dict(model.state_dict(), name="mine")
    with pytest.raises(PlanError, match=r"in registration order, not in that of its forward pass; .*Bank\.from_model"):
        inject(model, bank, policy="layerwise")
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    inject(model, Bank.from_model(model), policy="layerwise")
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    same = timm.create_model("test_convnext")  # the two orders are one here
    inject(same, Bank.from_state_dict(same.state_dict(), name="same"), policy="layerwise")
