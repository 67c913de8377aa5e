"""What the caller has made PyTorch's default does not reach the filters."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from networks import CONVNEXT, MOBILENET, build
from torch import nn

from masterkey import Bank, inject
from masterkey.analysis.drift import drift
from masterkey.analysis.families import classify
from masterkey.analysis.quality import assess
from masterkey.analysis.structure import measure, survey_all
from masterkey.catalog import recipes
from masterkey.depthwise import find_layers
from masterkey.distill import match, mean_match, prepare
from masterkey.host import on_host
from masterkey.initial import write_initial


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


# meta stands for any other device: what is made there by mistake has no numbers
CALLERS = {
    "device": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference": torch.inference_mode,
}
COMPUTED = [recipe.name for recipe in recipes().values() if recipe.rule == "computed"]
STEPS = {
    "shuffled": lambda bank: bank.shuffled(1),
    "pixel_shuffled": lambda bank: bank.pixel_shuffled(1),
    "unit": lambda bank: bank.normalized("unit"),
    "std": lambda bank: bank.normalized("std"),
    "pruned": lambda bank: bank.pruned(),
    "sampled": lambda bank: bank.sampled(5),
    "denoised": lambda bank: bank.denoised(),
    "signed": lambda bank: bank.signed(),
    "smaller": lambda bank: bank.resized(3, "resample"),
    "larger": lambda bank: bank.resized(11, "resample"),
    "row": lambda bank: bank.resized((1, 7)),
    "joined": lambda bank: (bank + bank).repeated(2),
    "distilled": lambda bank: bank.select(layers=2).distilled(4, "kmeans"),
}


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> AbstractContextManager:
    return CALLERS[request.param]()


def test_computed_banks(caller):
    expected = {name: Bank.from_pretrained(name).at(5, seed=3).sha256 for name in COMPUTED}
    with caller:
        assert {name: Bank.from_pretrained(name).at(5, seed=3).sha256 for name in COMPUTED} == expected


def test_the_algebra(caller):
    bank = Bank.from_pretrained("convnext-atto.tiny-imagenet").select(layers=4)
    expected = {name: step(bank).sha256 for name, step in STEPS.items()}
    with caller:
        assert {name: step(bank).sha256 for name, step in STEPS.items()} == expected


@pytest.mark.parametrize("bank", ["scale-space-8", "random", "convnext-atto.tiny-imagenet"])
@pytest.mark.parametrize("name", [CONVNEXT, MOBILENET])
@pytest.mark.parametrize("caller", [caller for caller in CALLERS if caller != "inference"])
def test_injection(bank, name, caller):
    arguments = {"scale": "target", "policy": "sample", "kernel": "resample"}
    plain, other = build(name, seed=1), build(name, seed=1)
    expected = inject(plain, bank, **arguments)
    with CALLERS[caller]():
        found = inject(other, bank, **arguments)
    assert found == expected
    state = other.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in plain.state_dict().items())


def test_analysis(caller):
    filters = next(iter(Bank.from_pretrained("scale-space-8").at(7).layers.values()))
    other = Bank.from_pretrained("convnext-atto.tiny-imagenet").select(layers=2)
    prepared = prepare(other, "kmeans")

    def found() -> list[object]:
        keys = filters.flatten(1)
        return [
            classify(filters[:, 0]).cosines.tolist(),
            assess(filters),
            prepared.curve([2, 4]),
            (match(keys, keys.flip(0)), mean_match(keys, keys.flip(0))),
            drift(measure(survey_all([other]), (7, 7)), {"a": [0], "b": [1]}).total.tolist(),
        ]

    expected = found()
    with caller:
        assert found() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["depthwise", "pointwise"])
def test_the_order_is_found_whatever_the_networks_type(dtype, kind):
    expected = find_layers(build(CONVNEXT), kind)
    assert expected.order == "forward"
    found = find_layers(build(CONVNEXT).to(dtype), kind)
    assert (found.order, [layer.name for layer in found.layers]) == ("forward", [lay.name for lay in expected.layers])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_order_is_found_where_a_network_casts_to_its_own_type(dtype):
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.early = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.stem = nn.Conv2d(3, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.late(self.early(self.stem(x.to(dtype))))

    found = find_layers(Casting().to(dtype))
    assert (found.order, [layer.name for layer in found.layers]) == ("forward", ["early", "late"])


def test_networks_that_are_built_for_a_bank(caller, tmp_path):
    def made() -> tuple[str, bytes]:
        write_initial(CONVNEXT, "scale-space-8", tmp_path / "x.safetensors", inject_kwargs={})
        return Bank.from_model(CONVNEXT, pretrained=False).sha256, (tmp_path / "x.safetensors").read_bytes()

    expected = made()
    with caller:
        assert made() == expected


def test_the_defaults_are_as_they_were():
    with torch.device("meta"), default_dtype(torch.float64), torch.autocast("cpu", dtype=torch.bfloat16):
        for problem in (None, ValueError):
            with contextlib.suppress(ValueError), on_host():
                assert torch.empty(1).device.type == "cpu" and torch.empty(1).dtype == torch.float32
                assert not torch.is_autocast_enabled("cpu")
                if problem:
                    raise problem
            assert torch.empty(1).device.type == "meta" and torch.empty(1).dtype == torch.float64
            assert torch.is_autocast_enabled("cpu")
