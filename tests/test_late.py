"""The algebra of computed banks: its steps are taken with the filters of the network that they go into."""

import pickle

import pytest
import torch
from networks import CONVNEXT, MOBILENET, build, depthwise_weights, equal
from samples import make_bank

from masterkey import Bank, inject
from masterkey.bank import join
from masterkey.closed_form.scale_space import scale_space_filters
from masterkey.errors import MasterkeyError, PlanError

COMPUTED = ["scale-space-8", "gaussian-covariance", "random", "random-8", "shuffled-pixels", "random-local"]


def filled(bank, name=MOBILENET, **options):
    model = build(name)
    inject(model, bank, **options)
    return depthwise_weights(model)


@pytest.mark.parametrize("name", COMPUTED)
def test_another_name_changes_no_filter(name):
    bank = Bank.from_pretrained(name)
    renamed = bank.renamed("mine")
    assert renamed.name == "mine" == renamed.at(5).name and renamed.kind == "depthwise"
    assert equal(filled(renamed, seed=3), filled(bank, seed=3))


def test_random_filters_are_the_networks_own_after_a_step():
    own, signed = depthwise_weights(build(MOBILENET)), filled(Bank.from_pretrained("random").signed(1))
    for name, weight in signed.items():
        # signs change, sizes do not: the weights of the layer itself, dealt out anew
        assert torch.equal(weight.abs().flatten().sort().values, own[name].abs().flatten().sort().values)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_step_is_taken_at_the_networks_kernels(kernel):
    keys = Bank.from_pretrained("scale-space-8").normalized("max")
    expected = scale_space_filters((kernel, kernel))
    expected = expected / expected.abs().amax((1, 2, 3), keepdim=True)
    for weight in filled(keys).values():
        if weight.shape[-1] == kernel:
            assert torch.allclose(weight, expected.repeat(len(weight) // 8 + 1, 1, 1, 1)[: len(weight)])


def test_steps_follow_each_other_and_are_remembered():
    bank = Bank.from_pretrained("scale-space-8").repeated(3).signed(2).select(kernel=3)
    with pytest.raises(PlanError, match="leaves none"):  # what it shows is 7x7
        _ = bank.layers
    shown = bank.at(3)
    assert len(shown) == 24 and list(shown.layers) == [f"{i}/keys.3x3.weight" for i in range(3)]
    assert [step["op"] for step in shown.metadata.transformations] == ["computed", "repeated", "signed", "select"]
    assert len({weight.shape[-1] for weight in filled(bank).values()}) == 2  # its 3x3 filters went into 5x5 as well
    with pytest.raises(PlanError, match="leaves none"):
        inject(build(CONVNEXT), bank)


@pytest.mark.parametrize("order", [1, -1])
def test_joined_with_stored_filters_they_are_still_drawn_for_the_network(order):
    random, stored = Bank.from_pretrained("random"), make_bank()
    joined = [random + stored, stored + random][::order][0]
    assert joined.name == [f"random + {stored.name}", f"{stored.name} + random"][::order][0]
    weights, own = filled(joined), depthwise_weights(build(MOBILENET))
    first = next(iter(own))
    if order == 1:
        assert torch.equal(weights[first].flatten().sort().values, own[first].flatten().sort().values)
    else:
        assert torch.equal(
            weights[first][: len(stored.select(kernel=3))],
            next(iter(stored.select(kernel=3).layers.values()))[: len(weights[first])],
        )


def test_they_are_pickled():
    bank = join([Bank.from_pretrained("random").signed(seed=4), make_bank()]).renamed("mixture")
    again = pickle.loads(pickle.dumps(bank))
    assert (again.name, again.sha256) == (bank.name, bank.sha256) and equal(filled(again), filled(bank))


@pytest.mark.parametrize(
    "step",
    [
        lambda bank: bank.shuffled(0.5),
        lambda bank: bank.repeated(0),
        lambda bank: bank.select(kernel=3.5),
        lambda bank: bank.select(layers=True),
        lambda bank: bank.normalized("bogus"),
        lambda bank: bank.resized(7, "bogus"),
    ],
)
def test_what_is_no_argument_is_refused_at_once(step):
    with pytest.raises(MasterkeyError):
        step(Bank.from_pretrained("random"))


def test_arguments_stay_what_they_were():
    bank, several = Bank.from_pretrained("random"), ["depth-0.0"]
    chosen, once = bank.select(layers=several), bank.select(layers=(name for name in ["depth-0.0"]))
    several[0] = "depth-1.0"
    assert list(chosen.layers) == list(once.layers) == list(once.at(5).layers) == ["depth-0.0.weight"]


def test_a_number_of_filters_and_a_kernel_are_of_what_it_shows():
    bank = Bank.from_pretrained("scale-space-8")
    for stored in (bank.sampled(4), bank.resized(5)):
        assert type(stored) is Bank
    assert bank.resized(5).sha256 == bank.at(7).resized(5).sha256 and len(bank.sampled(4)) == 4


def test_what_shows_nothing_has_a_name_and_goes_into_a_network():
    bank = Bank.from_pretrained("scale-space-8").select(kernel=3).renamed(name="three")
    assert bank.name == "three" and repr(bank).endswith(".renamed(name='three')")
    assert equal(filled(bank), filled(Bank.from_pretrained("scale-space-8").at(3)))


def test_what_is_saved_is_what_it_shows(tmp_path):
    bank = Bank.from_pretrained("scale-space-8").signed(1)
    assert Bank.from_pretrained(bank.save_pretrained(tmp_path)).sha256 == bank.sha256 == bank.at(7).sha256
