"""Freezing that sticks: a whole model, real training steps, filters identical to the last bit."""

import copy
import io
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.models._features_fx import create_feature_extractor
from timm.optim import create_optimizer_v2
from timm.utils import ModelEma, ModelEmaV2, ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

from masterkey import inject, verify
from masterkey.errors import PlanError
from masterkey.frozen import Frozen, freeze_module, is_frozen, thaw_module


def make_model(freeze: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), num_classes=5)
    if freeze:
        for layer in depthwise(model).values():
            freeze_module(layer)
    return model


def depthwise(model: nn.Module) -> dict[str, nn.Conv2d]:
    layers = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    return {name: layer for name, layer in layers if layer.groups == layer.in_channels > 1}


def filters(model: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight.detach().clone() for name, layer in depthwise(model).items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, autocast: bool = False, after: Callable = lambda: None):
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        after()


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize(
    "make_optimizer",
    [
        adamw,
        lambda model: create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.5, layer_decay=0.7),
        lambda model: create_optimizer_v2(model, opt="lamb", lr=1e-2, weight_decay=0.5),
    ],
    ids=["AdamW", "layer-decay", "lamb"],
)
def test_training_changes_everything_but_the_filters(make_optimizer, autocast):
    model = make_model()
    before, state = filters(model), copy.deepcopy(model.state_dict())
    model.requires_grad_(True)
    model.eval().train()
    train(model, make_optimizer(model), autocast)
    assert same(filters(model), before)
    unchanged = {key for key, value in model.state_dict().items() if torch.equal(value, state[key])}
    assert unchanged == {f"{name}.weight" for name in before}  # so the biases beside the filters do learn


def test_an_optimizer_made_before_the_freeze():
    model = make_model(freeze=False)
    optimizer = adamw(model)
    F.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 3])).backward()
    before = filters(model)
    for layer in depthwise(model).values():
        freeze_module(layer)
    optimizer.step()  # the abandoned parameters have gradients, and the optimizer still knows them
    train(model, optimizer)
    assert same(filters(model), before)


@pytest.mark.parametrize(
    "make_ema",
    [
        lambda model: ModelEma(model, decay=0.9),
        lambda model: ModelEmaV2(model, decay=0.9),
        lambda model: ModelEmaV3(model, decay=0.9),
        lambda model: ModelEmaV3(model, decay=0.9, foreach=False),
        lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
    ],
    ids=["V1", "V2", "V3", "V3-loop", "torch"],
)
def test_moving_average(make_ema):
    model = make_model()
    before = filters(model)
    ema = make_ema(model)
    averaged = ema.ema if isinstance(ema, ModelEma) else ema.module
    update = ema.update_parameters if isinstance(ema, AveragedModel) else ema.update
    start = averaged.head.fc.weight.clone()
    train(model, adamw(model), after=lambda: update(model))
    assert same(filters(averaged), before)
    assert same(filters(model), before)
    assert not torch.equal(averaged.head.fc.weight, start)


def test_an_average_whose_function_writes_buffers_rounds_and_verify_notices():
    model = make_model(freeze=False)
    inject(model, "scale-space-8")
    before = filters(model)
    ema = AveragedModel(model, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)
    for _ in range(5):
        ema.update_parameters(model)
    assert verify(model) == []
    assert verify(ema) == [f"module.{name}" for name in before]
    for name, moved in filters(ema.module).items():
        torch.testing.assert_close(moved, before[name], rtol=1e-5, atol=0)


def test_a_moving_average_made_before_the_freeze_still_pairs_the_right_tensors():
    model = make_model(freeze=False)
    ema = ModelEmaV2(model, decay=0.5)
    for layer in depthwise(model).values():
        freeze_module(layer)
    train(model, adamw(model), after=lambda: ema.update(model))
    for got, want in zip(filters(ema.module).values(), filters(model).values(), strict=True):
        torch.testing.assert_close(got, want)


def test_state_dict_is_that_of_timm():
    model, plain = make_model(), make_model(freeze=False)
    assert list(model.state_dict()) == list(model.state_dict(keep_vars=True)) == list(plain.state_dict())
    train(model, adamw(model))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    plain.load_state_dict(state, strict=True)
    assert same(filters(plain), filters(model))
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(plain.eval()(images), model.eval()(images))


def test_loading_a_state_dict_replaces_the_filters():
    model, other = make_model(), make_model(freeze=False)
    for layer in depthwise(other).values():
        layer.weight.data.normal_()
    for assign in (False, True):
        model.load_state_dict(other.state_dict(), strict=True, assign=assign)
        assert same(filters(model), filters(other))
        assert all(is_frozen(layer) for layer in depthwise(model).values())


def test_state_dict_hands_out_copies_unless_asked_for_the_tensors():
    layer = nn.Conv2d(2, 2, 3, groups=2)
    freeze_module(layer)
    before = layer.weight.clone()
    layer.state_dict()["weight"].zero_()
    assert torch.equal(layer.weight, before)
    assert layer.state_dict(keep_vars=True)["weight"] is layer.weight


def test_deepcopy_and_pickle_stay_frozen():
    model = make_model()
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same(filters(clone), filters(model))
        assert [type(layer) for layer in clone.modules()] == [type(layer) for layer in model.modules()]
        before = filters(clone)
        train(clone, adamw(clone))
        assert same(filters(clone), before)


def test_a_saved_model_loads_in_another_process(tmp_path: Path):
    model = make_model().eval()
    images = torch.randn(1, 3, 32, 32)
    torch.save((model, images, model(images)), tmp_path / "model.pt")
    code = (
        "import sys, torch; model, images, output = torch.load(sys.argv[1], weights_only=False); "
        "torch.testing.assert_close(model(images), output); print(type(model.stages[0].blocks[0].conv_dw).__name__)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.pt"], capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() == "FrozenConv2d"


@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_compile_without_graph_break():
    block = make_model().stages[1].blocks[0]
    images = [torch.randn(2, 16, 8, 8).requires_grad_() for _ in range(2)]
    images[1].data.copy_(images[0].data)
    block(images[0]).square().sum().backward()
    expected = block.conv_dw.bias.grad.clone()
    block.zero_grad()
    before = block.conv_dw.weight.clone()
    torch.compile(block, fullgraph=True)(images[1]).square().sum().backward()
    torch.testing.assert_close(images[1].grad, images[0].grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(block.conv_dw.bias.grad, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(block.conv_dw.weight, before)


def test_tracing(tmp_path: Path):
    model, images = make_model().eval(), torch.randn(1, 3, 32, 32)
    expected = model(images)
    torch.jit.save(torch.jit.trace(model, images), tmp_path / "traced.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "traced.pt")(images), expected)
    exported = torch.export.export(model, (images,))
    assert sorted(exported.state_dict) == sorted(model.state_dict())
    torch.testing.assert_close(exported.module()(images), expected)
    assert list(create_feature_extractor(model, {"stages.3": "last"})(images)) == ["last"]


# The switch itself.


def test_frozen_layer_looks_like_what_it_was():
    layer = Conv2dSame(4, 4, 3, stride=2, groups=4)
    before = layer.weight
    freeze_module(layer)
    assert isinstance(layer, Conv2dSame) and isinstance(layer, Frozen) and is_frozen(layer)
    assert repr(layer).startswith("FrozenConv2dSame(4, 4, kernel_size=(3, 3)")
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert torch.equal(layer.weight, before) and layer.weight.data_ptr() != before.data_ptr()
    other = Conv2dSame(2, 2, 3, groups=2)
    freeze_module(other)
    assert type(other) is type(layer)


@pytest.mark.parametrize(
    "make", [lambda: nn.Conv2d(4, 4, 3, groups=4), lambda: nn.Conv2d(4, 2, 1), lambda: nn.Linear(4, 2)]
)
def test_thaw_undoes_freeze(make):
    layer = make()
    cls, weight, order = type(layer), layer.weight.clone(), [name for name, _ in layer.named_parameters()]
    for _ in range(2):
        freeze_module(layer)
        assert is_frozen(layer)
    for _ in range(2):
        thaw_module(layer)
        assert not is_frozen(layer)
    assert type(layer) is cls
    assert isinstance(layer.weight, nn.Parameter) and layer.weight.requires_grad
    assert torch.equal(layer.weight, weight)
    assert [name for name, _ in layer.named_parameters()] == order == ["weight", "bias"]
    train_step = layer(torch.randn(2, 4, 5, 5) if cls is nn.Conv2d else torch.randn(2, 4)).sum()
    train_step.backward()
    assert layer.weight.grad is not None


def test_a_new_parameter_ends_the_freeze():
    layer = nn.Conv2d(2, 2, 3, groups=2)
    freeze_module(layer)
    layer.weight = nn.Parameter(torch.zeros_like(layer.weight))
    assert not is_frozen(layer)
    assert layer.state_dict()["weight"].data_ptr() == layer.weight.data_ptr()
    freeze_module(layer)
    assert is_frozen(layer)
    thaw_module(layer)
    assert type(layer) is nn.Conv2d


@pytest.mark.parametrize("switch", [freeze_module, thaw_module])
def test_refusals(switch):
    with pytest.raises(PlanError, match="BatchNorm2d"):
        switch(nn.BatchNorm2d(4))
    for wrap in (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm):
        layer = wrap(nn.Conv2d(2, 2, 3, groups=2))
        with pytest.raises(PlanError, match="computed from other tensors"):
            switch(layer)


def test_a_parametrized_frozen_layer_still_saves():
    layer = nn.Conv2d(2, 2, 3, groups=2)
    freeze_module(layer)
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Identity())
    assert not is_frozen(layer)
    assert set(layer.state_dict()) == {"bias", "parametrizations.weight.original"}


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, and says so at every turn
def test_torchscript_traces_frozen_layers_and_scripts_thawed_ones(tmp_path):
    model = make_model().eval()
    images = torch.randn(1, 3, 64, 64)
    torch.jit.trace(model, images).save(tmp_path / "traced.pt")
    assert torch.equal(torch.jit.load(tmp_path / "traced.pt")(images), model(images))
    for layer in depthwise(model).values():
        thaw_module(layer)
    assert torch.equal(torch.jit.script(model)(images), model(images))
