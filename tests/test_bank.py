"""The algebra of banks, and what each step remembers."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from samples import make_bank
from torch import Tensor

from masterkey.bank import Bank, join
from masterkey.errors import BankFormatError, MasterkeyError, PlanError
from masterkey.format import filters_sha256
from masterkey.metadata import Layer, Metadata, Source, as_kernel


@pytest.fixture
def bank() -> Bank:
    return make_bank(licence="MIT", base_model="me/net", datasets=("pets",))


def rows(bank: Bank) -> list[tuple[float, ...]]:
    """Every filter as a tuple of its weights, in order of its weights."""
    return sorted(tuple(row.tolist()) for tensor in bank.layers.values() for row in tensor.flatten(1))


def filters(bank: Bank) -> Tensor:
    return torch.cat([tensor.flatten(1) for tensor in bank.layers.values()])


def numbers(bank: Bank) -> list[str]:
    return [name.removesuffix(".weight") for name in bank.layers]


# -- what is in it ------------------------------------------------------------------------------------------


def test_what_it_says_of_itself(bank):
    assert bank.counts() == {(3, 3): 6, (7, 7): 17}
    assert len(bank) == 23
    assert repr(bank) == "Bank('net', depthwise, 4 layers: 6 of 3x3 + 17 of 7x7)"
    assert (bank.name, bank.kind) == ("net", "depthwise")
    assert bank.sha256 == filters_sha256(bank.layers)


def test_the_hash_is_of_names_shapes_order_and_values(bank):
    layers = dict(bank.layers)
    name, tensor = layers.popitem()
    changed = [
        {name: tensor, **layers},
        {**layers, "other": tensor},
        {**layers, name: tensor.view(5, 1, 49, 1)},
        {**layers, name: tensor + 1e-6},
        {**layers, name: tensor.flip(0)},
        layers,
    ]
    assert len({filters_sha256(each) for each in [bank.layers, *changed]}) == 7
    assert bank.renamed("other").sha256 == bank.sha256


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(2, 1, 3, 3, dtype=torch.float64), "a bank holds float32"),
        (torch.ones(2, 3, 3), "has 3 dimensions"),
        (torch.ones(2, 2, 3, 3), "a depthwise filter has one input channel"),
        (torch.ones(0, 1, 3, 3), "holds no filters"),
        (torch.ones(3, 1, 3, 3), "its metadata says 2 filters of 3x3"),
        (torch.ones(2, 1, 3, 4), "its metadata says 2 filters of 3x3"),
        (torch.full((2, 1, 3, 3), float("nan")), "holds 18 weights that are NaN or infinite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tensors_that_metadata_does_not_describe(tensor, words):
    about = Metadata("x", "depthwise", Source("model", "x"), (Layer("a", (3, 3), 2),), "forward")
    with pytest.raises(BankFormatError, match=words):
        Bank({"a": tensor}, about)


def test_layers_and_metadata_name_the_same_in_the_same_order(bank):
    layers = dict(reversed(bank.layers.items()))
    for wrong in (layers, {}, {**bank.layers, "more": torch.ones(1, 1, 3, 3)}):
        with pytest.raises(BankFormatError, match="metadata names the layers"):
            Bank(wrong, bank.metadata)
    with pytest.raises(BankFormatError):
        Bank({}, replace(bank.metadata, layers=()))


# -- select -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"layers": 1}, ["stages.0.a"]),
        ({"layers": 2}, ["stages.0.a", "stages.0.b"]),
        ({"layers": 99}, ["stages.0.a", "stages.0.b", "stages.1.a", "stages.2.a"]),
        ({"layers": -1}, ["stages.2.a"]),
        ({"layers": -3}, ["stages.0.b", "stages.1.a", "stages.2.a"]),
        ({"layers": -99}, ["stages.0.a", "stages.0.b", "stages.1.a", "stages.2.a"]),
        ({"layers": "stages.0.*"}, ["stages.0.a", "stages.0.b"]),
        ({"layers": "*.a.weight"}, ["stages.0.a", "stages.1.a", "stages.2.a"]),
        ({"layers": "stage:1"}, ["stages.1.a"]),
        ({"layers": ["stage:2", "*.b.*"]}, ["stages.0.b", "stages.2.a"]),
        ({"stages": [0]}, ["stages.0.a", "stages.0.b"]),
        ({"stages": {2, 1}}, ["stages.1.a", "stages.2.a"]),
        ({"stages": range(1, 9)}, ["stages.1.a", "stages.2.a"]),
        ({"kernel": 7}, ["stages.0.b", "stages.1.a", "stages.2.a"]),
        ({"kernel": (3, 3)}, ["stages.0.a"]),
        ({"layers": 3, "stages": [0, 1], "kernel": 7}, ["stages.0.b", "stages.1.a"]),
        ({}, ["stages.0.a", "stages.0.b", "stages.1.a", "stages.2.a"]),
    ],
    ids=repr,
)
def test_select(bank, arguments, expected):
    chosen = bank.select(**arguments)
    assert numbers(chosen) == expected
    assert [layer.name for layer in chosen.metadata.layers] == list(chosen.layers)
    assert all(torch.equal(chosen.layers[name], bank.layers[name]) for name in chosen.layers)
    assert chosen.metadata.transformations[-1]["op"] == "select"


@pytest.mark.parametrize(
    "arguments", [{"layers": 0}, {"layers": "nothing"}, {"stages": [7]}, {"kernel": 5}, {"stages": []}]
)
def test_select_nothing(bank, arguments):
    with pytest.raises(PlanError, match="leaves none of the 4 layers of bank net"):
        bank.select(**arguments)


# -- shuffles -----------------------------------------------------------------------------------------------


def test_shuffled_keeps_names_sizes_and_filters(bank):
    shuffled = bank.shuffled(seed=3)
    assert [(name, tensor.shape) for name, tensor in shuffled.layers.items()] == [
        (name, tensor.shape) for name, tensor in bank.layers.items()
    ]
    assert rows(shuffled) == rows(bank)
    assert shuffled.sha256 != bank.sha256
    for name, tensor in shuffled.layers.items():
        moved = [row for row in tensor.flatten(1).tolist() if row not in bank.layers[name].flatten(1).tolist()]
        assert bool(moved) == (tensor.shape[-1] == 7), "only the 7x7 layers have others to change places with"


def test_seeds(bank):
    for step in (Bank.shuffled, Bank.pixel_shuffled, Bank.signed, lambda bank, seed: bank.sampled(5, seed)):
        assert step(bank, 1).sha256 == step(bank, 1).sha256
        assert len({step(bank, seed).sha256 for seed in (0, 1, 2, -1)}) == 4


def test_shuffles_leave_the_global_generator_alone(bank):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    bank.shuffled(1).pixel_shuffled(2)
    assert torch.equal(torch.rand(1), expected)


def test_pixel_shuffled_keeps_values_and_norms_of_each_filter(bank):
    shuffled = bank.pixel_shuffled(seed=3)
    for name, tensor in bank.layers.items():
        before, after = tensor.flatten(1), shuffled.layers[name].flatten(1)
        assert torch.equal(before.sort(dim=1).values, after.sort(dim=1).values)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1))
    order = [row.argsort().tolist() for row in shuffled.layers["stages.0.b.weight"].flatten(1)]
    same = [row.argsort().tolist() for row in bank.layers["stages.0.b.weight"].flatten(1)]
    assert len({tuple(a.index(i) for i in b) for a, b in zip(order, same, strict=True)}) == 4, "each by its own draw"


def test_pixel_shuffled_stays_within_each_slice():
    about = Metadata("x", "dense", Source("model", "x"), (Layer("a", (2, 2), 3),), "forward")
    dense = Bank({"a": torch.arange(24.0).view(3, 2, 2, 2)}, about)
    shuffled = dense.pixel_shuffled(1).layers["a"]
    assert torch.equal(shuffled.flatten(2).sort(dim=2).values, dense.layers["a"].flatten(2))


# -- scales -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "measure"),
    [
        ("unit", lambda flat: flat.norm(dim=1)),
        ("std", lambda flat: flat.std(dim=1, unbiased=False)),
        ("max", lambda flat: flat.abs().amax(dim=1)),
    ],
)
def test_normalized(bank, how, measure):
    for name, tensor in bank.normalized(how).layers.items():
        flat, before = tensor.flatten(1), bank.layers[name].flatten(1)
        torch.testing.assert_close(measure(flat), torch.ones(len(flat)))
        torch.testing.assert_close(flat, before / measure(before)[:, None])


@pytest.mark.parametrize("how", ["unit", "std", "max"])
def test_normalized_leaves_zero_filters_as_they_are(bank, how):
    layers = {name: tensor.clone() for name, tensor in bank.layers.items()}
    layers["stages.1.a.weight"][2:4] = 0
    normal = Bank(layers, bank.metadata).normalized(how)
    assert torch.equal(normal.layers["stages.1.a.weight"][2:4], torch.zeros(2, 1, 7, 7))
    assert torch.equal(normal.layers["stages.1.a.weight"][4:], bank.normalized(how).layers["stages.1.a.weight"][4:])


def test_a_flat_filter_has_no_deviation_to_normalise(bank):
    layers = {**bank.layers, "stages.0.a.weight": torch.full((6, 1, 3, 3), 0.5)}
    assert torch.equal(
        Bank(layers, bank.metadata).normalized("std").layers["stages.0.a.weight"], layers["stages.0.a.weight"]
    )


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-22, 1e19, 1e25, 1e37])
def test_normalized_filters_of_any_size(bank, size):
    """Near-dead filters are real (MCUNet has them), and their squares are below what float32 can hold."""
    scaled = Bank({name: tensor * size for name, tensor in bank.layers.items()}, bank.metadata)
    for how in ("unit", "std", "max"):
        expected = filters(bank.select(kernel=7).normalized(how))
        torch.testing.assert_close(filters(scaled.select(kernel=7).normalized(how)), expected)


def test_pruned_drops_what_is_small_beside_its_layer():
    weights = torch.zeros(6, 1, 3, 3)
    weights[:, 0, 1, 1] = torch.tensor([0.0, -0.09, 0.11, 1.0, -1.0, 2.0])
    layers = {"a": weights, "b": weights[:1], "c": weights * 100}
    about = tuple(Layer(name, (3, 3), len(tensor)) for name, tensor in layers.items())
    bank = Bank(layers, Metadata("mixed", "depthwise", Source("file", "x"), about, "natural"))
    pruned = bank.pruned(0.18)  # the median is 0.555, so a norm must be 0.0999 or more
    assert bank.pruned().layers["a"].flatten(1).sum(1).tolist() == pytest.approx([-0.09, 0.11, 1.0, -1.0, 2.0])
    assert list(pruned.layers) == ["a", "c"]
    assert [layer.filters for layer in pruned.metadata.layers] == [4, 4]
    assert pruned.layers["c"].flatten(1).sum(1).tolist() == pytest.approx([11, 100, -100, 200])
    with pytest.raises(PlanError, match="leaves no filter"):
        bank.pruned(1e9)
    with pytest.raises(PlanError, match="leaves no filter"):
        bank.select(layers=["b"]).pruned(0)


def test_sampled_keeps_order_and_place(bank):
    drawn = bank.sampled(5, seed=1)
    assert len(drawn) == 5
    assert [name for name in bank.layers if name in drawn.layers] == list(drawn.layers)
    assert all(row in rows(bank) for row in rows(drawn))
    for name, tensor in drawn.layers.items():
        own = [tuple(row.tolist()) for row in bank.layers[name].flatten(1)]
        places = [own.index(tuple(row.tolist())) for row in tensor.flatten(1)]
        assert places == sorted(set(places))
    assert rows(bank.sampled(len(bank))) == rows(bank)
    with pytest.raises(PlanError, match=f"{len(bank) + 1} cannot be drawn"):
        bank.sampled(len(bank) + 1)


def test_signed_changes_signs_alone(bank):
    many = bank.select(kernel=7).repeated(20)
    ratios = filters(many.signed(4)) / filters(many)
    signs = ratios[:, 0]
    assert torch.equal(ratios, signs[:, None].expand_as(ratios))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert 0.3 < float((signs > 0).float().mean()) < 0.7


def test_unknown_normalisation(bank):
    with pytest.raises(PlanError, match="unknown normalisation 'loud'; known: unit, std, max"):
        bank.normalized("loud")


def test_the_factor_of_the_architecture():
    """HorNet multiplies its depthwise output by 1/3: steps that mix filters multiply it in, the others keep it."""
    third, plain = make_bank(factor=1 / 3), make_bank()
    for step in (lambda bank: bank.shuffled(1), lambda bank: bank.normalized("max")):
        done = step(third)
        assert {layer.factor for layer in done.metadata.layers} == {1.0}
    torch.testing.assert_close(
        filters(third.select(kernel=7).shuffled(1)) * 3, filters(plain.select(kernel=7).shuffled(1))
    )
    for step in (lambda bank: bank.pixel_shuffled(1), lambda bank: bank.resized(5), lambda bank: bank.repeated(2)):
        done = step(third)
        assert {layer.factor for layer in done.metadata.layers} == {1 / 3}
        assert list(done.layers) == list(step(plain).layers)
        assert all(torch.equal(done.layers[name], tensor) for name, tensor in step(plain).layers.items())


def test_shuffled_mixes_what_the_layers_put_out():
    mixed = join([make_bank(factor=1 / 3).select(kernel=3), make_bank(seed=1).select(kernel=3)])
    expected = sorted(
        tuple((row * layer.factor).tolist())
        for layer in mixed.metadata.layers
        for row in mixed.layers[layer.name].flatten(1)
    )
    assert rows(mixed.shuffled(0)) == expected


# -- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, np.array([2, 2]), 2, 5, 11, (1, 5), (7, 3)])
@pytest.mark.parametrize("how", ["crop", "resample"])
def test_resized(bank, kernel, how):
    resized = bank.resized(kernel, how)
    size = as_kernel(kernel)
    assert resized.counts() == {size: 23}
    assert all(layer.kernel == size for layer in resized.metadata.layers)
    assert resized.metadata.transformations[-1] == {"op": "resized", "kernel": list(size), "how": how}


def test_resized_exactly(bank):
    same = bank.select(kernel=7).resized(7, "exact")
    assert torch.equal(filters(same), filters(bank.select(kernel=7)))
    with pytest.raises(PlanError, match="changes no kernel"):
        bank.resized(7, "exact")


def test_layers_are_selected_by_the_names_that_reports_show(bank):
    name = next(iter(bank.layers))
    assert name.endswith(".weight")
    for pattern in (name, name.removesuffix(".weight")):
        assert list(bank.select(layers=pattern).layers) == [name]
    with pytest.raises(PlanError, match=f"none of the .* layers .*{name}, "):
        bank.select(layers="nothing")


@pytest.mark.parametrize("kernel", [0, -1, 1002, (3,), (3, 3, 3), (3, 0), "7", "77", (3.0, 3)])
def test_impossible_kernels(bank, kernel):
    for step in (bank.resized, lambda size: bank.select(kernel=size)):
        with pytest.raises(MasterkeyError, match=r"kernel size .* whole number"):
            step(kernel)


# -- joins --------------------------------------------------------------------------------------------------


def test_adding_stacks_one_after_the_other(bank):
    other = make_bank("other", seed=1, licence="Apache-2.0", base_model="you/net", datasets=("birds", "pets"))
    both = bank + other
    assert list(both.layers) == [f"0/{name}" for name in bank.layers] + [f"1/{name}" for name in other.layers]
    assert torch.equal(
        filters(both.select(kernel=7)), torch.cat([filters(each.select(kernel=7)) for each in (bank, other)])
    )
    about = both.metadata
    assert (about.name, about.source) == ("net + other", Source("joined", "net + other"))
    assert (about.licence, about.base_model, about.datasets) == (
        "Apache-2.0 AND MIT",
        "me/net, you/net",
        ("birds", "pets"),
    )
    parts = about.transformations[0]["parts"]
    assert [part["sha256"] for part in parts] == [bank.sha256, other.sha256]
    assert [part["licence"] for part in parts] == ["MIT", "Apache-2.0"]


@pytest.mark.parametrize("below", [float("nan"), float("inf"), -1])
def test_pruned_takes_a_share_alone(bank, below):
    with pytest.raises(PlanError, match="below a share of the median norm, from 0 on"):
        bank.pruned(below)


def test_repeated(bank):
    thrice = bank.repeated(3)
    assert list(thrice.layers) == [f"{i}/{name}" for i in range(3) for name in bank.layers]
    assert torch.equal(filters(thrice.select(kernel=7)), filters(bank.select(kernel=7)).repeat(3, 1))
    assert thrice.metadata.licence == "MIT"
    with pytest.raises(MasterkeyError, match=r"from 1 to .* not 0"):
        bank.repeated(0)


def test_a_transfer_of_the_seeds_is_one_expression(bank):
    made = (bank.select(layers=3).repeated(2).shuffled(1) + bank.select(kernel=7)).normalized()
    assert len(made.layers) == 9


# -- memory and immutability --------------------------------------------------------------------------------

STEPS = {
    "select by number": (
        lambda bank: bank.select(layers=-2),
        {"op": "select", "layers": -2, "stages": None, "kernel": None},
    ),
    "select by rest": (
        lambda bank: bank.select(layers=("*.a.*", "stage:0"), stages={1, 0}, kernel=7),
        {"op": "select", "layers": ["*.a.*", "stage:0"], "stages": [0, 1], "kernel": [7, 7]},
    ),
    "shuffled": (lambda bank: bank.shuffled(5), {"op": "shuffled", "seed": 5}),
    "pixel_shuffled": (lambda bank: bank.pixel_shuffled(6), {"op": "pixel_shuffled", "seed": 6}),
    "pruned": (lambda bank: bank.pruned(0.5), {"op": "pruned", "below": 0.5}),
    "sampled": (lambda bank: bank.sampled(3, seed=7), {"op": "sampled", "n": 3, "seed": 7}),
    "signed": (lambda bank: bank.signed(8), {"op": "signed", "seed": 8}),
    "normalized": (lambda bank: bank.normalized("std"), {"op": "normalized", "how": "std"}),
    "resized": (lambda bank: bank.resized((1, 5), "resample"), {"op": "resized", "kernel": [1, 5], "how": "resample"}),
    "repeated": (lambda bank: bank.repeated(2), {"op": "repeated", "n": 2}),
    "join": (lambda bank: bank + bank, None),
    "renamed": (lambda bank: bank.shuffled(1).renamed("other"), {"op": "shuffled", "seed": 1}),
}


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_remembered_and_survives_saving(bank, tmp_path, name):
    step, record = STEPS[name]
    before = (bank.sha256, copy.deepcopy(bank.metadata))
    made = step(bank)
    assert (bank.sha256, bank.metadata) == before, "the bank it was made of changed"
    if record:
        assert made.metadata.transformations[-1] == record
    loaded = Bank.from_pretrained(made.save_pretrained(tmp_path))
    assert loaded.metadata == made.metadata
    assert loaded.sha256 == made.sha256
    again = step(loaded) if name != "join" else loaded + loaded
    assert len(again.metadata.transformations) >= 1
    assert Bank.from_pretrained(again.save_pretrained(tmp_path)).metadata == again.metadata


def test_steps_are_kept_in_order(bank):
    made = bank.select(layers=3).shuffled(1).pixel_shuffled(2).normalized().resized(5).repeated(2)
    steps = [step["op"] for step in made.metadata.transformations]
    assert steps == ["select", "shuffled", "pixel_shuffled", "normalized", "resized", "repeated"]
    assert bank.metadata.transformations == ()


def test_banks_cannot_be_changed(bank):
    with pytest.raises(TypeError):
        bank.layers["stages.0.a.weight"] = torch.ones(1)
    with pytest.raises(AttributeError):
        bank.layers = {}
    with pytest.raises(AttributeError):
        bank.metadata = None
    with pytest.raises(FrozenInstanceError):
        bank.metadata.name = "other"
    layers = dict(bank.layers)
    made = Bank(layers, bank.metadata)
    layers.clear()
    assert len(made.layers) == 4


def test_banks_go_to_other_processes(bank):
    for one in (bank, Bank.from_pretrained("scale-space-8")):
        for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert (other.sha256, other.metadata) == (one.sha256, one.metadata)


def test_what_goes_to_other_processes_is_the_banks_own_weights(bank):
    """Shuffled layers are views of one pool, and pickle takes all of what a view looks at."""
    plain = len(pickle.dumps(bank))
    for one in (bank.shuffled(), bank.shuffled().select(layers=2), bank.shuffled().repeated(1)):
        assert len(pickle.dumps(one)) < plain + 1000
        assert pickle.loads(pickle.dumps(one)).sha256 == one.sha256


def test_a_stage_is_a_number_or_several(bank):
    assert numbers(bank.select(stages=0)) == numbers(bank.select(stages=[0])) == ["stages.0.a", "stages.0.b"]
    some, plain = bank.select(layers=np.int64(2), stages=np.int64(0)), bank.select(layers=2, stages=[0])
    assert (some.metadata, some.sha256) == (plain.metadata, plain.sha256)


@pytest.mark.parametrize(
    "name",
    ["scale-space-8", "gaussian-covariance:scale-space-8", "random", "random-8", "shuffled-pixels", "random-local"],
)
def test_computed_banks_are_pickled(name):
    bank = Bank.from_pretrained(name)
    again = pickle.loads(pickle.dumps(bank))
    assert again.sha256 == bank.sha256 and again.at(5).sha256 == bank.at(5).sha256


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda bank: join("scale-space-8"), "join takes several banks"),
        (lambda bank: join(bank), "join takes several banks"),
        (lambda bank: join(None), "join takes several banks"),
        (lambda bank: bank.pruned("x"), "a share of the median norm"),
        (lambda bank: bank.pruned(None), "a share of the median norm"),
        (lambda bank: bank.normalized(["unit"]), "unknown normalisation"),
        (lambda bank: bank.renamed(3), "name of a bank is a text, not 3"),
        (lambda bank: bank.renamed(""), "name of a bank is a line of text, not ''"),
        (lambda bank: bank.renamed("two\nlines"), r"name of a bank is a line of text, not 'two\\nlines'"),
        (lambda bank: Bank.from_filters(torch.ones(1, 3, 3), name=None), "name of a bank is a text"),
        (lambda bank: Bank.from_filters(torch.ones(1, 3, 3), name="a", licence=5), "licence of a bank is a text"),
        (lambda bank: Bank.from_filters(torch.ones(1, 3, 3), name="a", datasets=5), "datasets are names, not 5"),
        (lambda bank: Bank.from_filters({1: torch.ones(1, 3, 3), "1": torch.ones(1, 3, 3)}, name="a"), "the same name"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(bank, call, words):
    with pytest.raises(MasterkeyError, match=words):
        call(bank)
