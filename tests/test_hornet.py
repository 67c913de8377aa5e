"""HorNet: the authors' sizes and names, timm's conventions, and the factor 1/3 on its way through a bank."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

import masterkey
from masterkey import Bank
from masterkey.create import build_timm
from masterkey.depthwise import find_layers
from masterkey.extract import from_state_dict
from masterkey.models.global_filter import GlobalLocalFilter, resize_filter
from masterkey.models.gnconv import RecursiveGatedConv
from masterkey.models.hornet import HorNet, checkpoint_filter_fn
from masterkey.rules import Policy

torch.set_num_threads(2)

DEPTHS, DIMS = (1, 1, 2, 1), (8, 16, 32, 64)
VARIANTS = ("hornet_tiny_7x7", "hornet_tiny_gf")


def narrow(name: str = "hornet_tiny_7x7", seed: int = 0, **kwargs: object) -> HorNet:
    torch.manual_seed(seed)
    kwargs = {"depths": DEPTHS, "dims": DIMS, "num_classes": 5, **kwargs}
    if name.endswith("_gf"):
        kwargs.setdefault("img_size", 64)
    return timm.create_model(name, **kwargs)


def narrow_convnext(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("convnext_atto", depths=DEPTHS, dims=DIMS, num_classes=5)


def pictures(n: int = 2, side: int = 64, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def train_steps(model: nn.Module, steps: int = 3) -> None:
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.5)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(pictures(4)), torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()


def authors_shapes(depths: Sequence[int], dims: Sequence[int], classes: int, side: int | None) -> dict[str, list[int]]:
    """Name -> shape in the authors' checkpoints; ``side`` of the pictures for a ``_gf`` model."""
    shapes: dict[str, list[int]] = {}

    def layer(name: str, out: int, *rest: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [out, *rest], [out]

    layer("downsample_layers.0.0", dims[0], 3, 4, 4)
    layer("downsample_layers.0.1", dims[0])
    for i, (before, dim) in enumerate(pairwise(dims), start=1):
        layer(f"downsample_layers.{i}.0", before)
        layer(f"downsample_layers.{i}.1", dim, before, 2, 2)
    for i, j in ((i, j) for i, depth in enumerate(depths) for j in range(depth)):
        block, dim = f"stages.{i}.{j}", dims[i]
        gnconv = f"{block}.gnconv"
        widths = [dim // 2**k for k in reversed(range(i + 2))]
        total = sum(widths)
        shapes[f"{block}.gamma1"] = shapes[f"{block}.gamma2"] = [dim]
        layer(f"{block}.norm1", dim)
        layer(f"{block}.norm2", dim)
        layer(f"{block}.pwconv1", 4 * dim, dim)
        layer(f"{block}.pwconv2", dim, 4 * dim)
        layer(f"{gnconv}.proj_in", 2 * dim, dim, 1, 1)
        layer(f"{gnconv}.proj_out", dim, dim, 1, 1)
        for k, (narrower, wider) in enumerate(pairwise(widths)):
            layer(f"{gnconv}.pws.{k}", wider, narrower, 1, 1)
        if side is None or i < 2:
            layer(f"{gnconv}.dwconv", total, 1, 7, 7)
        else:
            height = side // (4 * 2**i)
            shapes[f"{gnconv}.dwconv.dw.weight"] = [total // 2, 1, 3, 3]
            shapes[f"{gnconv}.dwconv.complex_weight"] = [total // 2, height, height // 2 + 1, 2]
            layer(f"{gnconv}.dwconv.pre_norm", total)
            layer(f"{gnconv}.dwconv.post_norm", total)
    layer("norm", dims[-1])
    layer("head", classes, dims[-1])
    return shapes


def authors_checkpoint(classes: int = 5, side: int | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = authors_shapes(DEPTHS, DIMS, classes, side)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


# -- sizes and names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "filters"),
    [
        ("hornet_tiny_7x7", 22_409_512, 11_488),
        ("hornet_small_7x7", 49_528_264, 17_232),
        ("hornet_base_7x7", 87_256_680, 22_976),
        ("hornet_large_7x7", 194_542_504, 34_464),
        ("hornet_tiny_gf", 22_991_848, None),
        ("hornet_small_gf", 50_401_768, None),
        ("hornet_base_gf", 88_421_352, None),
        ("hornet_large_gf", 196_289_512, None),
    ],
)
def test_as_many_weights_and_filters_as_the_authors(name: str, parameters: int, filters: int | None) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    found = find_layers(model).layers
    sevens = [layer for layer in found if layer.kernel == (7, 7)]
    if filters is not None:
        assert sum(len(layer.weight) for layer in sevens) == filters
        assert len(found) == len(sevens) == 25
        return
    dims = [info["num_chs"] for info in model.feature_info]
    threes = [layer for layer in found if layer.kernel == (3, 3)]
    assert [layer.stage for layer in sevens] == [0, 0, 1, 1, 1]
    assert [layer.stage for layer in threes] == [2] * 18 + [3] * 2
    assert all(layer.name.endswith("gnconv.dwconv.dw") for layer in threes)
    halves = {2: dims[2] * 15 // 16, 3: dims[3] * 31 // 32}  # (1 + 1/2 + …) of the channels, halved
    assert all(len(layer.weight) == halves[layer.stage or 0] for layer in threes)


@pytest.mark.parametrize(("name", "side"), [("hornet_tiny_7x7", None), ("hornet_tiny_gf", 224)])
def test_parameters_have_the_authors_names_and_shapes(name: str, side: int | None) -> None:
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    expected = authors_shapes((2, 3, 18, 2), (64, 128, 256, 512), 1000, side)
    assert {key: list(value.shape) for key, value in state.items()} == expected


def test_registered_without_links() -> None:
    names = timm.list_models("hornet_*")
    sizes = ("tiny", "small", "base", "large")
    assert names == sorted(f"hornet_{size}_{kind}" for size in sizes for kind in ("7x7", "gf"))
    assert not timm.list_models("hornet_*", pretrained=True)
    for name in names:
        cfg = timm.get_pretrained_cfg(name)
        assert cfg is not None
        assert not (cfg.url or cfg.hf_hub_id or cfg.has_weights)
    with pytest.raises(masterkey.MasterkeyError, match="No pretrained weights"):
        build_timm("hornet_tiny_7x7", pretrained=True, depths=DEPTHS, dims=DIMS)


def test_the_wrapped_file_of_the_authors_loads(tmp_path: Path) -> None:
    state = authors_checkpoint()
    path = tmp_path / "hornet.pth"
    torch.save({"model": state}, path)
    overlay = {"file": str(path), "num_classes": 5}
    for model in (narrow(checkpoint_path=str(path)), narrow(pretrained=True, pretrained_cfg_overlay=overlay)):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    other = narrow(pretrained=True, num_classes=3, in_chans=1, pretrained_cfg_overlay=overlay)
    key = "stages.2.1.gnconv.dwconv.weight"
    assert torch.equal(other.state_dict()[key], state[key])
    stem = "downsample_layers.0.0.weight"
    torch.testing.assert_close(other.state_dict()[stem], state[stem].sum(1, keepdim=True))


def test_a_checkpoint_for_another_picture_size_is_resampled_as_a_forward_pass_would() -> None:
    state = authors_checkpoint(side=64)
    small, large = narrow("hornet_tiny_gf").eval(), narrow("hornet_tiny_gf", img_size=(96, 128)).eval()
    for model in (small, large):
        model.load_state_dict(checkpoint_filter_fn({"model": state}, model))
    key = "stages.2.0.gnconv.dwconv.complex_weight"
    assert large.state_dict()[key].shape[1:3] == (6, 5)
    assert torch.equal(small.state_dict()[key], state[key])
    x = torch.randn(1, 3, 96, 128)
    torch.testing.assert_close(small(x), large(x))


# -- the parts, by their formulas -----------------------------------------------------------------------------


def test_gnconv_is_the_papers_recursion() -> None:
    torch.manual_seed(0)
    gnconv = RecursiveGatedConv(16, order=3, scale=1 / 3, filter_size=None)
    x = torch.randn(2, 16, 9, 9)
    p, *q = gnconv.proj_in(x).split([4, 4, 8, 16], dim=1)
    start = 0
    for k, features in enumerate(q):
        rows = slice(start, start + features.shape[1])
        start = rows.stop
        weight, bias = gnconv.dwconv.weight[rows], gnconv.dwconv.bias[rows]
        gate = F.conv2d(features, weight, bias, padding=3, groups=len(weight))
        p = (gnconv.pws[k - 1](p) if k else p) * gate / 3
    torch.testing.assert_close(gnconv(x), gnconv.proj_out(p))


def test_a_neutral_global_local_filter_only_interleaves_and_normalises() -> None:
    filter_ = GlobalLocalFilter(8, (6, 6))
    with torch.no_grad():
        filter_.dw.weight.zero_()[:, :, 1, 1] = 1
        filter_.complex_weight.zero_()[..., 0] = 1
    for size in ((6, 6), (5, 9)):
        x = torch.randn(2, 8, *size)
        normed = filter_.pre_norm(x)
        interleaved = normed[:, [0, 4, 1, 5, 2, 6, 3, 7]]
        torch.testing.assert_close(filter_(x), filter_.post_norm(interleaved))


def test_a_global_filter_is_a_circular_convolution() -> None:
    torch.manual_seed(0)
    filter_ = GlobalLocalFilter(2, (4, 4))
    kernel = torch.randn(4, 4)
    with torch.no_grad():
        filter_.dw.weight.zero_()
        filter_.complex_weight.copy_(torch.view_as_real(torch.fft.rfft2(kernel))[None])
    x = torch.randn(1, 2, 4, 4)
    spread = filter_.pre_norm(x)[0, 1]
    expected = sum(
        spread[i, j] * kernel.roll((i, j), (0, 1)) for i in range(4) for j in range(4)
    )  # each pixel spreads as the kernel, round the edges
    assert isinstance(expected, Tensor)
    both = torch.stack((torch.zeros(4, 4), expected))[None]
    torch.testing.assert_close(filter_(x), filter_.post_norm(both), rtol=1e-4, atol=1e-5)


def test_resizing_keeps_the_corners_of_a_filter() -> None:
    weight = torch.randn(3, 14, 8, 2)
    resized = resize_filter(weight, (24, 13))
    assert resized.shape == (3, 24, 13, 2)
    torch.testing.assert_close(resized[:, [0, -1]][:, :, [0, -1]], weight[:, [0, -1]][:, :, [0, -1]])
    assert resize_filter(weight, (14, 8)) is weight


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="order 5"):
        narrow(dims=(8, 16, 32, 40))
    with pytest.raises(ValueError, match="odd"):
        narrow("hornet_tiny_gf", dims=(8, 16, 24, 48))
    with pytest.raises(ValueError, match="catavgmax"):
        narrow(global_pool="catavgmax")
    with pytest.raises(ValueError, match="NCHW"):
        narrow().forward_intermediates(pictures(), output_fmt="NLC")


# -- timm's conventions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("side", [64, 96])
def test_forward_and_backward(name: str, side: int) -> None:
    model = narrow(name, ls_init_value=0.1)
    x = pictures(side=side)
    features = model.forward_features(x)
    assert features.shape == (2, 64, side // 32, side // 32)
    logits = model(x)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(model.forward_head(features), logits)
    assert model.forward_head(features, pre_logits=True).shape == (2, 64)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_narrow_types(name: str) -> None:
    model = narrow(name).eval()
    expected = model(pictures())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (model(pictures()).float() - expected).abs().max() < 0.05
    model = model.to(torch.bfloat16)
    output = model(pictures().bfloat16())
    assert output.dtype == torch.bfloat16
    assert (output.float() - expected).abs().max() < 0.05
    model.reset_classifier(2)
    assert model.head.weight.dtype == torch.bfloat16


def test_the_gf_model_runs_at_its_own_size_and_another() -> None:
    model = narrow("hornet_tiny_gf", img_size=224).eval()
    assert model.state_dict()["stages.2.0.gnconv.dwconv.complex_weight"].shape[1:3] == (14, 8)
    assert model.state_dict()["stages.3.0.gnconv.dwconv.complex_weight"].shape[1:3] == (7, 4)
    with torch.no_grad():
        for side in (224, 160):
            assert model(pictures(1, side)).isfinite().all()


@pytest.mark.parametrize("name", VARIANTS)
def test_features_only(name: str) -> None:
    backbone = narrow(name, features_only=True).eval()
    assert backbone.feature_info.channels() == list(DIMS)
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    assert backbone.feature_info.module_name() == [f"stages.{i}" for i in range(4)]
    maps = backbone(pictures())
    assert [tuple(each.shape) for each in maps] == [(2, dim, 16 >> i, 16 >> i) for i, dim in enumerate(DIMS)]
    model = narrow(name).eval()
    torch.testing.assert_close(maps[-1], model.forward_features(pictures()))
    last, intermediates = model.forward_intermediates(pictures(), indices=[1, 3])
    assert last is intermediates[1]
    torch.testing.assert_close(intermediates[0], maps[1])
    early = model.forward_intermediates(pictures(), indices=[0], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], maps[0])


def test_features_of_the_first_stages_leave_the_rest_out() -> None:
    backbone = narrow(features_only=True, out_indices=(0, 1))
    assert [each.shape[1] for each in backbone(pictures())] == [8, 16]
    names = {name.split(".")[1] for name in backbone.state_dict()}
    assert names == {"downsample_layers", "stages"}
    assert len(backbone.model.stages) == len(backbone.model.downsample_layers) == 2
    assert len(masterkey.depthwise_layers(backbone)) == 2


def test_input_channels_and_no_classes() -> None:
    assert narrow(in_chans=1)(pictures(channels=1)).shape == (2, 5)
    model = narrow(num_classes=0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(pictures()).shape == (2, 64)
    assert narrow(num_classes=0, global_pool="")(pictures()).shape == (2, 64, 2, 2)
    assert "head.weight" not in model.state_dict()


def test_reset_classifier() -> None:
    model = narrow().eval()
    model.reset_classifier(7)
    assert model.get_classifier() is model.head
    assert model(pictures()).shape == (2, model.num_classes) == (2, 7)
    model.reset_classifier(3, global_pool="")
    assert model(pictures()).shape == (2, 3, 2, 2)
    model.reset_classifier(3, global_pool="max")
    assert model(pictures()).shape == (2, 3)
    model.reset_classifier(0)
    assert model(pictures()).shape == (2, 64)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    plain, checkpointed = narrow(name), narrow(name)
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        model(pictures()).square().sum().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_drop_rates() -> None:
    model = narrow(drop_path_rate=0.4, drop_rate=0.3, ls_init_value=1.0)
    probabilities = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage]
    assert probabilities == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert model.head_drop.p == 0.3
    assert not torch.equal(model.train().forward_features(pictures(8)), model.forward_features(pictures(8)))
    model.eval()
    assert torch.equal(model(pictures()), model(pictures()))


def test_layer_decay() -> None:
    model = narrow()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.05, layer_decay=0.5)
    settings = {
        id(parameter): (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    by_name = {name: settings[id(parameter)] for name, parameter in model.named_parameters()}
    scales = [
        by_name[f"{layer}.weight"][0]
        for layer in (
            "downsample_layers.0.0",
            "stages.0.0.gnconv.dwconv",
            "downsample_layers.1.1",
            "stages.1.0.pwconv1",
            "downsample_layers.2.1",
            "stages.2.0.gnconv.pws.0",
            "stages.2.1.pwconv2",
            "stages.3.0.pwconv1",
            "head",
        )
    ]
    assert scales == pytest.approx([2.0**-k for k in (6, 5, 4, 4, 3, 3, 2, 1, 0)])
    assert by_name["norm.weight"] == (1.0, 0.0)
    assert by_name["stages.0.0.gamma1"][1] == 0.0
    assert by_name["stages.0.0.gnconv.dwconv.weight"][1] == 0.05
    coarse = timm.models.group_parameters(model, model.group_matcher(coarse=True))
    assert len(coarse) == 6
    assert {name.split(".")[1] for name in coarse[2]} == {"1"}  # downsampling and blocks of one stage


@pytest.mark.parametrize("name", VARIANTS)
def test_state_dict_roundtrip(name: str) -> None:
    model, other = narrow(name), narrow(name, seed=1)
    assert not torch.equal(model(pictures()), other(pictures()))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(pictures()), other(pictures()))


# -- banks ----------------------------------------------------------------------------------------------------


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
