"""Whole numbers of any type do what Python's do; others are refused in one sentence."""

import numpy as np
import pytest
import torch
from networks import build, depthwise_weights, equal
from samples import make_bank

from masterkey import inject
from masterkey.bank import Bank
from masterkey.closed_form.banks import ComputedBank
from masterkey.distill import distill
from masterkey.errors import MasterkeyError
from masterkey.extract import from_timm
from masterkey.initial import write_initial
from masterkey.metadata import as_kernel
from masterkey.whole import as_seed, whole_number


def keys() -> Bank:
    """Eight filters of 7x7 that are no noise."""
    bank = Bank.from_pretrained("scale-space-8")
    return Bank(bank.layers, bank.metadata)


STEPS = {
    "shuffled": lambda bank, n: bank.shuffled(n),
    "pixel_shuffled": lambda bank, n: bank.pixel_shuffled(n),
    "signed": lambda bank, n: bank.signed(n),
    "sampled": lambda bank, n: bank.sampled(n, n),
    "repeated": lambda bank, n: bank.repeated(n),
    "resized": lambda bank, n: bank.resized(n),
    "select": lambda bank, n: bank.select(layers=n, kernel=n),
    "distilled": lambda bank, n: keys().distilled(n, "kmeans", n),
}


@pytest.mark.parametrize("step", STEPS)
def test_steps_take_numpys_numbers(step, tmp_path):
    plain, numpys = (STEPS[step](make_bank(), n) for n in (3, np.int64(3)))
    assert (numpys.metadata, numpys.sha256) == (plain.metadata, plain.sha256)
    assert Bank.from_pretrained(numpys.save_pretrained(tmp_path)).metadata == plain.metadata


def test_pruning_takes_numpys_fractions(tmp_path):
    numpys = make_bank().pruned(np.float32(0.5))
    assert numpys.sha256 == make_bank().pruned(0.5).sha256
    assert Bank.from_pretrained(numpys.save_pretrained(tmp_path)).metadata == numpys.metadata


@pytest.mark.parametrize("bank", ["scale-space-8", "random", "shuffled-pixels"])
def test_injection_takes_numpys_seeds(bank):
    one, other = build(), build()
    inject(one, bank, policy="sample", seed=5)
    inject(other, bank, policy="sample", seed=np.uint8(5))
    assert equal(depthwise_weights(one), depthwise_weights(other))


def test_networks_begin_by_numpys_seeds(tmp_path):
    files = [tmp_path / "plain.safetensors", tmp_path / "numpys.safetensors"]
    for file, seed in zip(files, (3, np.int64(3)), strict=True):
        write_initial("test_convnext", "random", file, seed=seed, inject_kwargs={"seed": seed})
    assert files[0].read_bytes() == files[1].read_bytes()
    one, other = (from_timm("test_convnext", pretrained=False, seed=seed) for seed in (3, np.int64(3)))
    assert (one.sha256, one.metadata) == (other.sha256, other.metadata)


@pytest.mark.parametrize("number", [np.int64(1), np.array(1), torch.tensor(1)])
def test_masks_take_numbers_of_any_kind(number):
    for some, plain in (
        (make_bank().select(layers=number), make_bank().select(layers=1)),
        (make_bank().select(stages=number), make_bank().select(stages=1)),
        (make_bank().select(stages=[number]), make_bank().select(stages=1)),
    ):
        assert (some.metadata, some.sha256) == (plain.metadata, plain.sha256)


@pytest.mark.parametrize(
    "seed",
    [-(2**63), 2**63, 2**70, 1.0, "1", None, True, np.float64(1), torch.tensor(0.5), torch.tensor(True), 10**5000],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_seed_is_refused_and_nothing_is_changed(seed):
    with pytest.raises(MasterkeyError, match=r"a seed is a whole number from -2\*\*63 \+ 1 to 2\*\*63 - 1, not"):
        as_seed(seed)
    model = build()
    before = depthwise_weights(model)
    random = Bank.from_pretrained("random")
    assert isinstance(random, ComputedBank)
    for act in (
        lambda: inject(model, "random", seed=seed),
        lambda: make_bank().shuffled(seed),
        lambda: make_bank().sampled(1, seed),
        lambda: random.at(7, seed),
        lambda: distill(make_bank().select(kernel=7), 2, "kmeans", seed),
    ):
        with pytest.raises(MasterkeyError, match="a seed is a whole number"):
            act()
    assert equal(depthwise_weights(model), before)


def test_the_largest_seed_is_taken_and_remembered(tmp_path):
    bank = make_bank().shuffled(2**63 - 1)
    assert Bank.from_pretrained(bank.save_pretrained(tmp_path)).metadata == bank.metadata


@pytest.mark.parametrize(
    "act",
    [
        lambda bank: bank.sampled(0),
        lambda bank: bank.sampled(2.5),
        lambda bank: bank.repeated(0),
        lambda bank: bank.repeated("2"),
        lambda bank: bank.select(stages="first"),
        lambda bank: bank.select(stages=0.5),
        lambda bank: bank.select(layers=2.0),
        lambda bank: bank.select(kernel=3.5),
        lambda bank: bank.resized(np.array([3, 3.5])),
        lambda bank: bank.select(layers=True),
        lambda bank: keys().distilled(2.5, "kmeans"),
        lambda bank: keys().distilled(0, "kmeans"),
    ],
)
def test_what_is_no_number_of_that_kind_is_refused(act):
    with pytest.raises(MasterkeyError):
        act(make_bank())


def test_a_bank_is_added_to_banks_only():
    with pytest.raises(TypeError, match="unsupported operand"):
        make_bank() + 3


def test_bounds_are_said():
    assert whole_number(np.int8(7), "x", 1, 7) == 7 and as_kernel((np.int64(3), 5)) == (3, 5)
    with pytest.raises(MasterkeyError, match=r"^x is a whole number from 1 to 7, not 8$"):
        whole_number(8, "x", 1, 7)
