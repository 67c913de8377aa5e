"""Banks of filters of one's own: tensors and arrays, by layer or not."""

import numpy as np
import pytest
import torch

import masterkey
from masterkey import Bank
from masterkey.errors import BankFormatError, CheckpointError

PLANES = torch.arange(4 * 49, dtype=torch.float32).reshape(4, 7, 7)


@pytest.mark.parametrize(
    "filters", [PLANES, PLANES[:, None], PLANES.double(), PLANES.numpy(), PLANES.tolist(), {"filters": PLANES}]
)
def test_one_layer_in_any_form(filters):
    bank = Bank.from_filters(filters, name="mine", licence="MIT", datasets="pets")
    assert list(bank.layers) == ["filters"] and torch.equal(bank.layers["filters"], PLANES[:, None])
    assert (bank.name, bank.metadata.licence, bank.metadata.datasets) == ("mine", "MIT", ("pets",))


@pytest.mark.parametrize(("kind", "side"), [("pointwise", 7), ("dense", 1)])
def test_filters_of_another_kind_are_refused(kind, side):
    with pytest.raises(BankFormatError, match=f"mine: filters of shape .* holds no {kind} filters"):
        Bank.from_filters(torch.ones(4, 3, side, side), kind, name="mine")


def test_a_network_is_no_state_dict():
    with pytest.raises(CheckpointError, match="a mapping of names to tensors, not a Identity"):
        Bank.from_state_dict(torch.nn.Identity(), name="mine")


def test_layers_stay_in_their_order_and_are_copies():
    given = {"late": torch.ones(2, 3, 3), "early": np.ones((1, 1, 5, 5))}
    bank = Bank.from_filters(given, name="mine")
    given["late"].zero_()
    assert [(name, tuple(layer.shape)) for name, layer in bank.layers.items()] == [
        ("late", (2, 1, 3, 3)),
        ("early", (1, 1, 5, 5)),
    ]
    assert bank.layers["late"].sum() == 18


def test_it_is_saved_and_goes_into_a_network(tmp_path):
    Bank.from_filters(PLANES, name="mine").save_pretrained(tmp_path / "mine")
    bank = Bank.from_pretrained(tmp_path / "mine")
    model = masterkey.create_model("test_convnext", bank)
    assert masterkey.verify(model) == []
    held = Bank.from_model(model).layers
    assert torch.equal(next(iter(held.values()))[:4], PLANES[:, None])


def test_dense_filters_keep_their_channels():
    assert Bank.from_filters(torch.ones(2, 3, 5, 5), "dense", name="stem").layers["filters"].shape == (2, 3, 5, 5)


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        (torch.ones(3, 7), r"filters has shape \[3, 7\]; filters are \(n, kh, kw\) or \(n, c, kh, kw\)"),
        (torch.ones(2, 7, 7, dtype=torch.int64), "filters is torch.int64"),
        ("text", "filters is no tensor and no array of numbers"),
        ([[1.0], [1.0, 2.0]], "filters is no tensor and no array of numbers"),
        ({}, "no filters were given"),
        (torch.ones(0, 7, 7), "holds no weights"),
    ],
)
def test_what_is_none_is_refused(filters, sentence):
    with pytest.raises(CheckpointError, match=f"mine: .*{sentence}"):
        Bank.from_filters(filters, name="mine")


def test_what_no_bank_holds_is_refused():
    with pytest.raises(BankFormatError, match="NaN or infinite"):
        Bank.from_filters(torch.full((1, 3, 3), float("nan")), name="mine")
    with pytest.raises(BankFormatError, match="a depthwise filter has one input channel"):
        Bank.from_filters(torch.ones(2, 3, 5, 5), name="mine")


def test_a_state_dict_has_its_own_way_in():
    state = {"conv.weight": PLANES[:, None], "head.weight": torch.ones(3, 4)}
    assert list(Bank.from_state_dict(state, name="mine").layers) == ["conv.weight"]
    with pytest.raises(CheckpointError, match=r"a state dict goes to Bank\.from_state_dict"):
        Bank.from_model(state)
    with pytest.raises(CheckpointError, match="no depthwise filters: a name that ends in weight, and a shape"):
        Bank.from_state_dict({"keys": PLANES[:, None]}, name="mine")
