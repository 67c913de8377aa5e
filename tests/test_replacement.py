"""Families replaced in a planted network, and what filters respond with."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from masterkey.analysis.activations import slice_outputs, statistics, watch
from masterkey.analysis.replacement import GROUPS, census, replaced
from masterkey.errors import MasterkeyError
from masterkey.shapes import shapes_of


def bell(width: float, side: int = 7) -> torch.Tensor:
    at = torch.arange(side) - (side - 1) / 2
    return torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * width**2))


def slope(width: float, side: int = 7) -> torch.Tensor:
    """Derivative along x."""
    at = torch.arange(side) - (side - 1) / 2
    return -at[None] * bell(width, side)


def layers() -> dict[str, torch.Tensor]:
    """Two layers: ten Gaussians, then ten derivatives of either sign, one dead filter and nine of noise."""
    generator = torch.Generator().manual_seed(0)
    sizes = 1 + torch.rand(20, generator=generator)
    gaussians = torch.stack([sizes[i] * bell(1.2 + 0.02 * i) for i in range(10)])
    slopes = torch.stack([(-1) ** i * sizes[i] * slope(1.3 + 0.02 * i) for i in range(10)])
    noise = torch.randn(9, 7, 7, generator=generator)
    return {
        "one.weight": torch.cat([gaussians, noise[:4]]).unsqueeze(1),
        "two.weight": torch.cat([slopes, 1e-4 * bell(1.0)[None], noise[4:]]).unsqueeze(1),
    }


def group(name: str) -> int:
    return GROUPS.index(name)


def test_the_census_finds_what_was_planted():
    of = census(layers())
    assert dict(of.layers) == {"one.weight": 14, "two.weight": 16}
    expected = [group("gaussian")] * 10 + [group("none")] * 4 + [group("derivative")] * 10 + [group("dead")]
    assert of.group.tolist() == expected + [group("none")] * 5
    assert int(of.members("gaussian", 7).sum()) == 10 and not of.members("gaussian", 3).any()
    with pytest.raises(MasterkeyError, match="no group 'gabor'"):
        of.members("gabor")
    with pytest.raises(MasterkeyError, match="no layer"):
        census({})


def test_the_control_takes_as_many_from_every_layer():
    of = census(layers())
    chosen = of.members("derivative")
    drawn = of.as_many(chosen, 0)
    assert drawn[:14].sum() == 0 and drawn[14:].sum() == 10
    assert not (drawn & of.members("dead")).any()
    assert not torch.equal(drawn, of.as_many(chosen, 1)) and torch.equal(drawn, of.as_many(chosen, 0))


@pytest.mark.parametrize("how", ["noise", "mean", "pixels"])
def test_replaced_filters_keep_mean_and_norm_and_no_other_changes(how):
    before = layers()
    of = census(before)
    chosen = of.members("derivative")
    after = replaced(before, of, chosen, how, 0)
    assert torch.equal(after["one.weight"], before["one.weight"])
    assert torch.equal(after["two.weight"][10:], before["two.weight"][10:])
    old, new = shapes_of(before["two.weight"][:10]), shapes_of(after["two.weight"][:10])
    assert torch.allclose(old.norm, new.norm, rtol=1e-5) and torch.allclose(old.mean, new.mean, atol=1e-6)
    cosines = (old.unit * new.unit).sum(1)
    if how == "mean":  # the sign of each filter stays, though half of them are turned round
        assert (cosines > 0.99).all()
    else:
        assert cosines.abs().max() < 0.6
    again = replaced(before, of, chosen, how, 0)
    assert torch.equal(after["two.weight"], again["two.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_replaced_filters_keep_their_type(dtype):
    before = {name: weight.to(dtype) for name, weight in layers().items()}
    of = census(layers())
    for how in ("noise", "mean"):
        assert {weight.dtype for weight in replaced(before, of, of.members("derivative"), how, 0).values()} == {dtype}


def test_an_unknown_way_is_refused():
    of = census(layers())
    with pytest.raises(MasterkeyError, match="noise, mean or pixels"):
        replaced(layers(), of, of.members("none"), "zero")


def test_statistics_of_known_distributions():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(50, 1, 40, 40, generator=generator)
    uniform = torch.rand(50, 1, 40, 40, generator=generator)
    found = statistics(torch.cat([normal, uniform, normal * 0 + 2, normal.exp()], dim=1))
    assert found.mean.tolist() == pytest.approx([0, 0.5, 2, 1.6487], abs=0.02)
    assert found.offset.tolist()[:3] == pytest.approx([0, 0.75**0.5, 1], abs=0.01)
    assert found.kurtosis.tolist()[:2] == pytest.approx([0, -1.2], abs=0.05)
    assert found.skewness.tolist()[:2] == pytest.approx([0, 0], abs=0.02) and found.skewness[3] > 3
    assert found.sparsity.tolist()[:2] == pytest.approx([0.0797, 0.0577], abs=0.005)
    assert found.skewness[2].isnan() and found.deviation[2] == 0
    nothing = statistics(torch.zeros(2, 1, 4, 4))
    assert nothing.offset.isnan() and nothing.sparsity.isnan()


@pytest.mark.parametrize(("groups", "out"), [(6, 6), (6, 12), (1, 4), (2, 4)])
def test_slices_add_up_to_the_layer(groups, out):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, out, 3, stride=2, padding=1, groups=groups, bias=False)
    inputs = torch.randn(2, 6, 9, 9)
    filters = layer.weight.detach().flatten(0, 1)
    slices = slice_outputs(layer, inputs, filters, torch.arange(len(filters)))
    assert torch.allclose(slices.unflatten(1, (out, -1)).sum(2), layer(inputs), atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        Conv2dSame(6, 6, 3, stride=2, groups=6),
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect", groups=6),
        nn.Conv2d(6, 6, 5, padding="same", dilation=2, groups=6, bias=False),
    ],
    ids=["same, as in TensorFlow", "reflected", "dilated"],
)
def test_slices_are_padded_as_the_layer_pads(layer):
    inputs = torch.randn(2, 6, 10, 10, generator=torch.Generator().manual_seed(0))
    filters = layer.weight.detach().flatten(0, 1)
    slices = slice_outputs(layer, inputs, filters, torch.tensor([4, 1, 4]))
    whole = layer(inputs) if layer.bias is None else layer(inputs) - layer.bias.view(-1, 1, 1)
    assert torch.allclose(slices, whole[:, [4, 1, 4]], atol=1e-6)
    assert (layer.groups, len(layer.weight)) == (6, 6) and layer.weight.requires_grad


def test_derivatives_respond_about_zero_and_gaussians_do_not():
    planted = layers()
    model = nn.Sequential(
        nn.Conv2d(14, 14, 7, padding=3, groups=14, bias=False),
        nn.Conv2d(14, 16, 1),
        nn.Softplus(),
        nn.Conv2d(16, 16, 7),
    )
    two = nn.Conv2d(16, 16, 7, padding=3, groups=16, bias=False)
    model[3] = two
    with torch.no_grad():
        model[0].weight.copy_(planted["one.weight"])
        two.weight.copy_(planted["two.weight"])
    seen = {}

    def look(name, layer, inputs):
        filters = layer.weight.flatten(0, 1)
        seen[name] = statistics(slice_outputs(layer, inputs, filters, torch.arange(len(filters))))

    torch.manual_seed(0)
    pictures = torch.rand(4, 14, 32, 32)
    watch(model, pictures, {"one": model[0], "two": two}, look)
    watch(model, pictures, {}, look)  # the hooks are gone
    assert list(seen) == ["one", "two"]
    model[1].eval()
    watch(model, pictures, {}, look)  # each part stays in the mode it was in
    assert [module.training for module in model] == [True, False, True, True]
    assert (seen["one"].take(torch.arange(10))["offset"] > 0.9).all()
    assert (seen["two"].offset[:10] < 0.2).all()
