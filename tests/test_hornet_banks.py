"""HorNet as source and as target of a bank: the factor 1/3 on its way."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from hornet_samples import (
    DEPTHS,
    DIMS,
    VARIANTS,
    narrow,
    narrow_convnext,
    pictures,
    train_steps,
)
from timm.utils import ModelEmaV3
from torch.nn import functional as F

import masterkey
from masterkey import Bank
from masterkey.depthwise import find_layers
from masterkey.extract import from_state_dict
from masterkey.rules import Policy


def test_extraction_records_the_factor_and_a_file_keeps_it(tmp_path: Path) -> None:
    model = narrow()
    bank = Bank.from_model(model)
    assert [layer.factor for layer in bank.metadata.layers] == [1 / 3] * 5
    assert [layer.stage for layer in bank.metadata.layers] == [0, 1, 2, 2, 3]
    assert bank.metadata.order == "forward"
    assert torch.equal(bank.layers["stages.0.0.gnconv.dwconv.weight"], model.stages[0][0].gnconv.dwconv.weight)
    loaded = Bank.from_pretrained(bank.save_pretrained(tmp_path / "bank"))
    assert [layer.factor for layer in loaded.metadata.layers] == [1 / 3] * 5
    assert [layer.factor for layer in Bank.from_model(narrow(scale=0.5)).metadata.layers] == [0.5] * 5
    assert [layer.factor for layer in Bank.from_model(narrow_convnext()).metadata.layers] == [1.0] * 5


def test_the_factor_survives_copies_and_freezing() -> None:
    model = narrow()
    masterkey.inject(model, Bank.from_model(narrow(seed=1)))
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), ModelEmaV3(model).module):
        assert [layer.factor for layer in find_layers(same).layers] == [1 / 3] * 5
    masterkey.eject(model)
    assert [layer.factor for layer in find_layers(model).layers] == [1 / 3] * 5


def test_a_norm_hides_the_factor_of_a_global_local_filter() -> None:
    layers = Bank.from_model(narrow("hornet_tiny_gf")).metadata.layers
    assert [(layer.kernel, layer.filters, layer.factor) for layer in layers] == [
        ((7, 7), 12, 1 / 3),
        ((7, 7), 28, 1 / 3),
        ((3, 3), 30, 1.0),
        ((3, 3), 30, 1.0),
        ((3, 3), 62, 1.0),
    ]


@pytest.mark.parametrize("policy", ["layerwise", "stack"])
@pytest.mark.parametrize("name", VARIANTS)
def test_hornet_into_hornet_is_the_identity(name: str, policy: Policy) -> None:
    source, target = narrow(name, seed=1), narrow(name)
    masterkey.inject(target, Bank.from_model(source), policy=policy)
    for key, filters in masterkey.depthwise_layers(source).items():
        assert torch.equal(target.state_dict()[f"{key}.weight"], filters.weight)


def test_hornet_into_convnext_goes_in_as_a_third() -> None:
    bank = Bank.from_model(narrow())
    target = narrow_convnext()
    report = masterkey.inject(target, bank)
    assert len(report.replaced) == 5
    filters = torch.cat(list(bank.layers.values()))
    first, *_ = masterkey.depthwise_layers(target).values()
    torch.testing.assert_close(first.weight, filters[:8] / 3)
    assert target(pictures()).isfinite().all()


def test_convnext_into_hornet_goes_in_threefold_so_that_its_output_is_the_same() -> None:
    source, target = narrow_convnext(), narrow()
    masterkey.inject(target, Bank.from_model(source))
    filters = torch.cat([layer.weight for layer in masterkey.depthwise_layers(source).values()])[:12]
    gnconv = target.stages[0][0].gnconv
    torch.testing.assert_close(gnconv.dwconv.weight, 3 * filters)
    x = torch.randn(1, 12, 16, 16)
    seen = gnconv.dwconv(x) * gnconv.scale
    torch.testing.assert_close(seen, F.conv2d(x, filters, padding=3, groups=12))  # both biases are zero
    assert masterkey.verify(target) == []


def test_shuffled_filters_take_their_factor_along() -> None:
    bank = Bank.from_model(narrow())
    target = narrow(seed=1)
    masterkey.inject(target, bank.shuffled(3))
    dealt = torch.cat([layer.weight.flatten() for layer in masterkey.depthwise_layers(target).values()])
    before = torch.cat([tensor.flatten() for tensor in bank.layers.values()])
    torch.testing.assert_close(dealt.sort().values, before.sort().values)


def test_the_other_scale_rules_and_the_control_know_no_factor() -> None:
    bank = Bank.from_model(narrow_convnext())
    target = narrow()
    initial = {name: layer.weight.detach().clone() for name, layer in masterkey.depthwise_layers(target).items()}
    masterkey.inject(target, bank, scale="unit")
    for layer in masterkey.depthwise_layers(target).values():
        torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), torch.ones(len(layer.weight)))
    masterkey.inject(target, bank, scale="target")
    for name, layer in masterkey.depthwise_layers(target).items():
        torch.testing.assert_close(layer.weight.std(), initial[name].std())
    masterkey.inject(target, "random")
    for name, layer in masterkey.depthwise_layers(target).items():
        assert not torch.equal(layer.weight, initial[name])
        torch.testing.assert_close(layer.weight.flatten().sort().values, initial[name].flatten().sort().values)


@pytest.mark.parametrize("name", VARIANTS)
def test_frozen_filters_are_bit_identical_after_training(name: str) -> None:
    model = narrow(name, drop_path_rate=0.1, ls_init_value=0.1)
    masterkey.inject(model, Bank.from_model(narrow(name, seed=1)), policy="layerwise")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train_steps(model)
    after = model.state_dict()
    frozen = {f"{key}.weight" for key in masterkey.depthwise_layers(model)}
    assert len(frozen) == 5
    assert {key for key in after if torch.equal(before[key], after[key])} == frozen
    assert masterkey.verify(model) == []


def test_create_model_needs_no_import() -> None:
    script = (
        "import masterkey\n"
        "model = masterkey.create_model('hornet_tiny_7x7', bank='scale-space-8', num_classes=5,\n"
        f"    depths={DEPTHS}, dims={DIMS})\n"
        "print(type(model).__name__, len(masterkey.depthwise_layers(model)), masterkey.verify(model))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["HorNet", "5", "[]"]


def test_factor_is_known_from_the_names_of_a_state_dict():
    model = timm.create_model("hornet_tiny_7x7", depths=DEPTHS, dims=DIMS)
    bank = from_state_dict(model.state_dict(), name="bare")
    assert {layer.factor for layer in bank.metadata.layers} == {1 / 3}
