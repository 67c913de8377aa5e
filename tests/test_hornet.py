"""HorNet: the authors' sizes and names, and timm's conventions."""

from pathlib import Path

import pytest
import timm
import torch
from hornet_samples import (
    DEPTHS,
    DIMS,
    VARIANTS,
    authors_checkpoint,
    authors_shapes,
    narrow,
    pictures,
)
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F

import masterkey
from masterkey.create import build_timm
from masterkey.depthwise import find_layers
from masterkey.models.global_filter import GlobalLocalFilter, resize_filter
from masterkey.models.gnconv import RecursiveGatedConv
from masterkey.models.hornet import checkpoint_filter_fn

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
    with pytest.raises(ValueError, match="maps of 0x0 leave a global filter nothing"):
        narrow("hornet_tiny_gf", img_size=30)
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


@pytest.mark.parametrize("name", ["hornet_tiny_7x7", "hornet_tiny_gf"])
def test_features_by_fx(name: str) -> None:
    by_fx, plain = (narrow(name, features_only=True, **how).eval() for how in ({"feature_cls": "fx"}, {}))
    by_fx.load_state_dict(
        {name.replace("stages_", "stages."): each for name, each in plain.state_dict().items()}, strict=False
    )
    assert [tuple(each.shape) for each in by_fx(pictures())] == [tuple(each.shape) for each in plain(pictures())]


@pytest.mark.parametrize("name", ["hornet_tiny_7x7", "hornet_tiny_gf"])
def test_scripted(name: str) -> None:
    model = narrow(name).eval()
    with torch.inference_mode():
        assert torch.equal(torch.jit.script(model)(pictures()), model(pictures()))


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
