"""Extraction from live networks, timm names and state dicts: which layers, in which order, as what."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from samples import DEPTHWISE, state
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from masterkey.bank import Bank
from masterkey.errors import BankFormatError, CheckpointError, NoTargetLayersError, UnknownNameError
from masterkey.extract import from_model, from_state_dict

# -- live networks ------------------------------------------------------------------------------------------


class Crossed(nn.Module):
    """Registers its layers in another order than it calls them, and calls one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(8, 8, 7, padding=3, groups=8, stride=2)
        self.unused = nn.Conv2d(8, 8, 3, groups=8)
        self.first = nn.Conv2d(8, 16, (1, 5), padding=(0, 2), groups=8)
        self.mix = nn.Conv2d(16, 8, 1)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.first(self.stem(x)))
        return self.last(self.mix(self.first(x)))


def test_live_network_in_forward_order():
    model = Crossed()
    bank = Bank.from_model(model)
    assert bank.metadata.order == "forward"
    assert list(bank.layers) == ["first.weight", "last.weight", "unused.weight"]
    first, last, _ = bank.metadata.layers
    assert (first.kernel, first.filters, first.groups, first.stride) == ((1, 5), 16, 8, (1, 1))
    assert (last.kernel, last.filters, last.groups, last.stride) == ((7, 7), 8, 8, (2, 2))
    assert torch.equal(bank.layers["last.weight"], model.last.weight)


def test_a_live_network_that_cannot_run_without_data_gives_registration_order():
    class Fussy(Crossed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum().item() > 0 else x

    bank = Bank.from_model(Fussy())
    assert bank.metadata.order == "registration"
    assert list(bank.layers) == ["last.weight", "unused.weight", "first.weight"]


def test_the_bank_is_a_copy():
    model = Crossed()
    bank = Bank.from_model(model)
    before = bank.sha256
    with torch.no_grad():
        model.last.weight.zero_()
    assert bank.sha256 == before
    assert not any(tensor.requires_grad for tensor in bank.layers.values())


def test_extraction_leaves_the_network_as_it_was():
    model = Crossed().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Bank.from_model(model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda model: torch.compile(nn.DataParallel(model)), AveragedModel]
)
def test_wrappers_leave_no_trace(wrap):
    model = Crossed()
    wrapped, plain = from_model(wrap(model), name="x"), from_model(model, name="x")
    assert wrapped.metadata == plain.metadata
    assert wrapped.sha256 == plain.sha256
    assert set(from_state_dict(wrap(model).state_dict(), name="x").layers) == set(plain.layers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_becomes_float32(dtype):
    model = Crossed().to(dtype)
    bank = Bank.from_model(model)
    assert all(tensor.dtype == torch.float32 for tensor in bank.layers.values())
    assert torch.equal(bank.layers["last.weight"], model.last.weight.float())


def test_networks_without_such_layers():
    with pytest.raises(NoTargetLayersError, match="no spatial depthwise convolution"):
        Bank.from_model(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, groups=8)))
    with pytest.raises(NoTargetLayersError, match="unknown kind 'sideways'"):
        Bank.from_model(Crossed(), kind="sideways")


def test_networks_without_weights():
    with pytest.raises(CheckpointError, match=r"Crossed: first\.weight has no values"):
        Bank.from_model(Crossed().to("meta"))


def test_networks_with_broken_weights():
    model = Crossed()
    nn.init.constant_(model.last.weight, float("nan"))
    with pytest.raises(BankFormatError, match=r"Crossed: layer last\.weight holds 392 weights that are NaN"):
        Bank.from_model(model)


# -- kinds --------------------------------------------------------------------------------------------------

SMALL = {"depths": (1, 1, 1, 2), "dims": (8, 16, 24, 32), "num_classes": 3}


@pytest.fixture(scope="module")
def convnexts() -> dict[str, nn.Module]:
    """ConvNeXt tiny writes its 1x1 convolutions as Linear layers, femto as convolutions."""
    return {name: timm.create_model(name, **SMALL) for name in ("convnext_tiny", "convnext_femto")}


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_femto"])
def test_kinds_from_a_live_network(convnexts, name):
    model = convnexts[name]
    banks = {kind: Bank.from_model(model, kind) for kind in ("depthwise", "pointwise", "dense", "all")}
    assert banks["depthwise"].counts() == {(7, 7): 8 + 16 + 24 + 2 * 32}
    assert [layer.filters for layer in banks["pointwise"].metadata.layers] == [
        width for dim in (8, 16, 24, 32, 32) for width in (4 * dim, dim)
    ]
    assert banks["pointwise"].counts().keys() == {(1, 1)}
    assert banks["dense"].counts() == {(2, 2): 16 + 24 + 32, (4, 4): 8}
    assert set(banks["all"].layers) == {name for kind, bank in banks.items() if kind != "all" for name in bank.layers}
    assert not any("head" in name for name in banks["all"].layers)
    assert all(bank.metadata.order == "forward" for bank in banks.values())


@pytest.mark.parametrize("kind", ["depthwise", "pointwise", "dense", "all"])
def test_every_kind_survives_saving(convnexts, tmp_path, kind):
    bank = Bank.from_model(convnexts["convnext_tiny"], kind)
    loaded = Bank.from_pretrained(bank.save_pretrained(tmp_path))
    assert (loaded.metadata, loaded.sha256) == (bank.metadata, bank.sha256)


def test_kinds_from_a_state_dict_are_convolutions_only(convnexts):
    states = {name: model.state_dict() for name, model in convnexts.items()}
    assert len(from_state_dict(states["convnext_femto"], "pointwise", name="x").layers) == 10
    with pytest.raises(CheckpointError, match="no pointwise filters"):
        from_state_dict(states["convnext_tiny"], "pointwise", name="x")
    bank = from_state_dict(state(), "all", name="x")
    assert list(bank.layers) == ["stem.weight", *DEPTHWISE[:1], "stages.0.pw.weight", *DEPTHWISE[1:]]
    assert list(from_state_dict(state(), "dense", name="x").layers) == ["stem.weight"]
    with pytest.raises(CheckpointError, match="unknown kind 'sideways'"):
        from_state_dict(state(), "sideways", name="x")


# -- timm names ---------------------------------------------------------------------------------------------


def test_timm_name_without_pretrained_weights_is_reproducible():
    torch.manual_seed(1)
    first = Bank.from_model("test_convnext", pretrained=False)
    torch.manual_seed(2)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    second = Bank.from_model("test_convnext", pretrained=False)
    assert torch.equal(torch.rand(1), drawn), "the caller's generator moved"
    assert (first.sha256, first.metadata) == (second.sha256, second.metadata)
    assert "random initial weights" in first.metadata.source.revision
    assert first.metadata.licence is None


@pytest.mark.parametrize("name", ["convnext_femtoo", "resnet50 ", "../../etc/passwd", "a\0b", "", "x" * 10_000])
def test_unknown_timm_names(name):
    with pytest.raises(UnknownNameError) as caught:
        Bank.from_model(name, pretrained=False)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_near_timm_names_are_given():
    with pytest.raises(UnknownNameError, match="convnext_femto"):
        Bank.from_model("convnext_femtoo", pretrained=False)


# -- state dicts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_no_part_of_a_name(tmp_path, prefix):
    wrapped = {prefix + name: tensor for name, tensor in state().items()}
    bank = from_state_dict(wrapped, name="x")
    assert list(bank.layers) == DEPTHWISE
    assert bank.sha256 == from_state_dict(state(), name="x").sha256
    assert [layer.stage for layer in bank.metadata.layers] == [0, 10, 2, 2]
    save_file(wrapped, tmp_path / "x.safetensors")
    assert set(Bank.from_checkpoint(tmp_path / "x.safetensors").layers) == set(DEPTHWISE)


def test_a_prefix_that_only_some_have_is_part_of_the_name():
    assert "module.dw.weight" in from_state_dict(state(**{"module.dw.weight": torch.ones(4, 1, 3, 3)}), name="x").layers


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.ones(4, 1, 3, 3, dtype=torch.int8), "is torch.int8"),
        (torch.ones(4, 1, 3, 3, dtype=torch.complex64), "is torch.complex64"),
        (torch.ones(4, 1, 3, 3, device="meta"), "has no values"),
        (torch.ones(4, 1, 3, 3).to_sparse(), "torch.sparse_coo"),
        (torch.ones(4, 1, 0, 3), "holds no weights"),
        (torch.ones(1).expand(10**7, 1, 1000, 1000), "claims 10,000,000,000,000 weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_that_are_no_filters(weight, words):
    with pytest.raises(CheckpointError, match=words):
        from_state_dict({"a.weight": weight}, name="net")


@pytest.mark.parametrize("name", ["a\nb.weight", "\x1b[2J.weight", "\ud800.weight", "a" * 1000 + ".weight"])
def test_names_that_no_bank_can_hold(name):
    with pytest.raises(CheckpointError, match="net: "):
        from_state_dict({name: torch.ones(4, 1, 3, 3)}, name="net")


def test_odd_state_dicts():
    odd = {0: torch.ones(4, 1, 3, 3), None: 1, "a.weight": "text", "b.weight": None}
    with pytest.raises(CheckpointError, match="holds 0 tensors"):
        from_state_dict(odd, name="x")
    with pytest.raises(CheckpointError, match="no depthwise filters"):
        from_state_dict({}, name="x")
    assert len(from_state_dict({**odd, **state()}, name="x").layers) == 4


def test_data_sets_given_as_a_list_are_kept_as_they_are_read_back(tmp_path):
    bank = from_state_dict(state(), name="net", datasets=["pets", "cifar10"])
    assert bank.metadata.datasets == ("pets", "cifar10")
    assert Bank.from_pretrained(bank.save_pretrained(tmp_path)).metadata == bank.metadata
    assert from_state_dict(state(), name="net", datasets="pets").metadata.datasets == ("pets",)
