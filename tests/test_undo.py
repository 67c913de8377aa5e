"""Undoing an injection, verifying it, and freezing and thawing later."""

import copy
import io

import pytest
import torch
from networks import CONVNEXT, MOBILENET, assert_same, build, depthwise_weights, equal, snapshot, train
from timm.utils import ModelEmaV3
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh

import masterkey
from masterkey import eject, freeze, inject, thaw, verify
from masterkey.errors import NotInjectedError, PlanError
from masterkey.frozen import is_frozen

UNDO = [eject, verify, freeze, thaw]


class TestEject:
    @pytest.mark.parametrize("frozen", [True, False])
    @pytest.mark.parametrize("name", [CONVNEXT, MOBILENET])
    def test_everything_is_as_it_was(self, name, frozen):
        model = build(name)
        list(masterkey.depthwise_layers(model).values())[1].weight.requires_grad_(False)
        before = snapshot(model)
        inject(model, "scale-space-8", freeze=frozen)
        assert set(model.state_dict()) == set(before["state"])
        assert not equal(depthwise_weights(model), depthwise_weights(build(name)))
        eject(model)
        assert_same(snapshot(model), before)

    def test_after_training_only_the_depthwise_weights_come_back(self):
        model = build()
        original = depthwise_weights(model)
        inject(model, "scale-space-8")
        train(model)
        trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        eject(model)
        assert equal(depthwise_weights(model), original)
        inside = {f"{name}.weight" for name in original}
        assert all(torch.equal(t, trained[name]) for name, t in model.state_dict().items() if name not in inside)

    def test_a_deepcopy_can_be_ejected_alone(self):
        model = build()
        before = snapshot(model)
        inject(model, "scale-space-8")
        inside = depthwise_weights(model)
        twin = copy.deepcopy(model)
        eject(twin)
        assert_same(snapshot(twin), before)
        assert verify(model) == []
        assert equal(depthwise_weights(model), inside)
        train(twin)
        eject(model)
        assert_same(snapshot(model), before)

    def test_a_pickled_network_can_be_ejected(self):
        model = build()
        before = snapshot(model)
        inject(model, "scale-space-8")
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        assert verify(loaded) == []
        eject(loaded)
        assert_same(snapshot(loaded), before)

    def test_a_second_bank_replaces_and_keeps_the_first_originals(self):
        model = build()
        before = snapshot(model)
        inject(model, "scale-space-8")
        first = depthwise_weights(model)
        inject(model, "gaussian-covariance", layers=4, freeze=False)
        second = depthwise_weights(model)
        changed = [name for name in first if not torch.equal(first[name], second[name])]
        assert changed == list(first)[:4]
        layers = masterkey.depthwise_layers(model).values()
        assert [is_frozen(layer) for layer in layers] == [False] * 4 + [True] * 5
        assert all(layer.weight.requires_grad for layer in list(layers)[:4])
        assert verify(model) == []
        eject(model)
        assert_same(snapshot(model), before)

    def test_a_layer_that_did_not_learn_does_not_learn_after_an_unfrozen_second_bank(self):
        model = build()
        model.requires_grad_(False)
        inject(model, "scale-space-8")
        inject(model, "gaussian-covariance", freeze=False)
        assert not any(p.requires_grad for p in model.parameters())

    @pytest.mark.parametrize("act", UNDO)
    def test_without_a_bank_it_is_one_clear_error(self, act):
        with pytest.raises(NotInjectedError, match="none of its layers holds a bank"):
            act(build())

    @pytest.mark.parametrize("act", UNDO)
    def test_saved_and_loaded_it_is_one_clear_error(self, act):
        model = build()
        inject(model, "scale-space-8")
        loaded = build(seed=1)
        loaded.load_state_dict(model.state_dict())
        assert equal(depthwise_weights(loaded), depthwise_weights(model))
        with pytest.raises(NotInjectedError, match="state dict"):
            act(loaded)

    def test_twice_is_an_error(self):
        model = build()
        inject(model, "scale-space-8")
        eject(model)
        with pytest.raises(NotInjectedError):
            eject(model)


class TestVerify:
    def test_frozen_filters_survive_training_and_moving_averages(self):
        model = build()
        inject(model, "scale-space-8")
        model.requires_grad_(True)
        average = ModelEmaV3(model, decay=0.5)
        inside = depthwise_weights(model)
        for _ in range(2):
            train(model, steps=1)
            average.update(model)
        assert verify(model) == verify(average.module) == []
        assert equal(depthwise_weights(model), inside)
        assert equal(depthwise_weights(average.module), inside)

    def test_a_state_dict_loaded_later_wins_and_is_named(self):
        model = build()
        other = build(seed=1).state_dict()
        inject(model, "scale-space-8")
        names = list(masterkey.depthwise_layers(model))
        model.load_state_dict({f"{names[2]}.weight": other[f"{names[2]}.weight"]}, strict=False)
        assert verify(model) == [names[2]]
        model.load_state_dict(other)
        assert verify(model) == names

    def test_training_unfrozen_is_named(self):
        model = build()
        inject(model, "scale-space-8", layers=2, freeze=False)
        assert verify(model) == []
        train(model, steps=1)
        assert verify(model) == list(masterkey.depthwise_layers(model))[:2]

    def test_fewer_bits_and_back_is_named(self):
        model = build()
        inject(model, "scale-space-8")
        assert verify(model.half()) == []
        assert len(verify(model.float())) == 9

    def test_a_layer_that_was_replaced_or_removed_is_named(self):
        model = build()
        inject(model, "scale-space-8", layers=4)
        names = list(masterkey.depthwise_layers(model))[:4]
        old = model.get_submodule(names[1])
        model.set_submodule(names[1], nn.Conv2d(old.in_channels, old.out_channels, 7, padding=3, groups=old.groups))
        assert verify(model) == [names[1]]
        wrapped = nn.Sequential(copy.deepcopy(model))
        assert verify(wrapped) == [f"0.{names[1]}"]
        model.set_submodule(names[3], nn.Identity())
        assert verify(model) == [names[1], names[3]]
        eject(model)  # what is still there gets its weights back
        with pytest.raises(NotInjectedError):
            verify(model)

    def test_with_every_layer_replaced_all_are_named(self):
        model = build()
        inject(model, "scale-space-8", layers=2)
        names = list(masterkey.depthwise_layers(model))[:2]
        for name in names:
            model.set_submodule(name, nn.Identity())
        assert verify(model) == names

    def test_layers_of_a_second_bank_are_missed_too(self):
        model = build()
        inject(model, "scale-space-8", layers=1)
        inject(model, "gaussian-covariance", layers=-1)
        names = list(masterkey.depthwise_layers(model))
        model.set_submodule(names[-1], nn.Identity())
        assert verify(model) == [names[-1]]

    def test_on_the_meta_device_no_layer_holds_anything(self):
        model = build()
        inject(model, "scale-space-8", layers=2)
        assert verify(model.to("meta")) == list(masterkey.depthwise_layers(model))[:2]


class TestEjectRefuses:
    """What cannot be put back; then nothing is changed."""

    @pytest.mark.parametrize("what", ["meta", "pruned"])
    def test_and_changes_nothing(self, what):
        model = build()
        inject(model, "scale-space-8")
        names = list(masterkey.depthwise_layers(model))
        if what == "meta":
            model.to("meta")
        else:
            layer = model.get_submodule(names[4])
            layer.weight = layer.weight[:5].clone()
        sentence = {"meta": "meta device", "pruned": r"has become one of \(5, 1"}[what]
        with pytest.raises(PlanError, match=sentence):
            eject(model)
        assert all(is_frozen(model.get_submodule(name)) for name in names)
        if what == "pruned":
            assert verify(model) == [names[4]]


@pytest.fixture
def alone(tmp_path):
    """A group of one process, as large ones are made of."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch knows no processes")
@pytest.mark.parametrize("act", [lambda model: inject(model, "scale-space-8"), *UNDO[:1], *UNDO[2:]])
def test_a_sharded_network_is_refused_and_left_alone(alone, act):
    from torch.distributed.fsdp import fully_shard

    model = build()
    inject(model, "scale-space-8")
    fully_shard(model, mesh=alone)
    with pytest.raises(PlanError, match=r"distributed already \(FSDP.*distribute it then"):
        act(model)
    assert verify(model) == []


class TestFreezeAndThaw:
    @pytest.mark.parametrize("keep_vars", [True, False])
    def test_parameters_that_are_assigned_stay_frozen(self, keep_vars):
        model, other = build(), build(seed=1)
        inject(model, "scale-space-8")
        inject(other, "scale-space-8", freeze=False)
        model.load_state_dict(other.state_dict(keep_vars=keep_vars), assign=True)
        inside = depthwise_weights(model)
        assert verify(model) == [] and not any("conv_dw.weight" in name for name, _ in model.named_parameters())
        train(model, steps=1)
        assert verify(model) == [] and equal(depthwise_weights(model), inside)

    def test_thaw_lets_filters_learn_that_were_never_frozen(self):
        model = build()
        inject(model, "scale-space-8", freeze=False)
        model.requires_grad_(False)
        thaw(model)
        assert all(layer.weight.requires_grad for layer in masterkey.depthwise_layers(model).values())

    def test_later(self):
        model = build()
        inject(model, "scale-space-8", layers=-3, freeze=False)
        freeze(model)
        layers = list(masterkey.depthwise_layers(model).values())
        assert [is_frozen(layer) for layer in layers] == [False] * 6 + [True] * 3
        train(model, steps=1)
        assert verify(model) == []
        thaw(model)
        assert not any(is_frozen(layer) for layer in layers)
        assert all(layer.weight.requires_grad for layer in layers)
        train(model, steps=1)
        assert len(verify(model)) == 3

    def test_freeze_keeps_what_was_learnt(self):
        model = build()
        inject(model, "scale-space-8", freeze=False)
        train(model, steps=1)
        learnt = depthwise_weights(model)
        freeze(model)
        train(model, steps=1)
        assert equal(depthwise_weights(model), learnt)
        assert len(verify(model)) == 9

    def test_without_values(self):
        model = build()
        inject(model, "scale-space-8")
        model.to("meta")
        thaw(model)
        freeze(model)
        assert is_frozen(model.stages[0].blocks[0].conv_dw)


@pytest.mark.parametrize("through", ["the network", "the compiled one"])
def test_a_network_is_verified_by_its_own_names_and_through_its_compiled_self(through):
    model = build()
    compiled = torch.compile(model, backend="eager")
    inject(model if through == "the network" else compiled, "scale-space-8")
    assert verify(model) == verify(compiled) == []
    with torch.no_grad():
        model.stages[0].blocks[0].conv_dw.weight[0] = 0
    assert verify(model) == ["stages.0.blocks.0.conv_dw"]
    assert verify(compiled) == ["_orig_mod.stages.0.blocks.0.conv_dw"]
    model.stages[0].blocks[0].conv_dw = nn.Conv2d(1, 1, 1)
    assert verify(model) == ["stages.0.blocks.0.conv_dw"]
    assert verify(compiled) == ["_orig_mod.stages.0.blocks.0.conv_dw"]
    eject(model)
    for one in (model, compiled):
        with pytest.raises(NotInjectedError):
            verify(one)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


WRAPPERS = {
    "compiled": lambda stage: torch.compile(stage, backend="eager"),
    "in a DataParallel": nn.DataParallel,
    "checkpointed": checkpoint_wrapper,
    "in a module of one's own": Wrapped,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_layers_that_were_wrapped_are_there_under_other_names(wrap):
    model = build()
    inject(model, "scale-space-8")
    model.stages[0] = wrap(model.stages[0])
    assert verify(model) == verify(nn.Sequential(model)) == verify(copy.deepcopy(model)) == []
    names = list(masterkey.depthwise_layers(model))
    with torch.no_grad():
        masterkey.depthwise_layers(model)[names[0]].weight[0] = 0
    assert verify(model) == names[:1]
    inject(model, "scale-space-8")
    assert verify(model) == []
    eject(model)
    model.stages[0] = next(model.stages[0].children())
    assert equal(depthwise_weights(model), depthwise_weights(build()))


def test_a_copy_in_a_layers_place_is_not_that_layer():
    model = build()
    inject(model, "scale-space-8")
    model.stages[1].blocks[1] = copy.deepcopy(model.stages[1].blocks[0])
    assert verify(model) == ["stages.1.blocks.1.conv_dw"]
    inject(model, "scale-space-8")
    assert verify(model) == []
    for number in (0, 1):  # each of the two is missed for itself now
        broken = copy.deepcopy(model)
        broken.stages[1].blocks[number].conv_dw = nn.Conv2d(1, 1, 1)
        assert verify(broken) == [f"stages.1.blocks.{number}.conv_dw"]


@pytest.mark.parametrize("refill", ["whole", "part"])
def test_a_part_and_the_whole_may_both_be_injected(refill):
    model = build()
    parts = {"whole": model, "part": model.stages[0]}
    for part in parts.values():
        inject(part, "scale-space-8")
    model.stages[0].blocks[0].conv_dw = nn.Conv2d(24, 24, 7, padding=3, groups=24)
    assert verify(model) == ["stages.0.blocks.0.conv_dw"] and verify(model.stages[0]) == ["blocks.0.conv_dw"]
    inject(parts[refill], "scale-space-8")
    assert verify(model) == []


def test_a_layer_in_a_lost_ones_place_is_missed_no_longer_once_it_is_filled():
    model = build()
    inject(model, "scale-space-8")
    layer = model.stages[0].blocks[0].conv_dw
    model.stages[0].blocks[0].conv_dw = nn.Conv2d(24, 24, 7, padding=3, groups=24)
    assert verify(model) == ["stages.0.blocks.0.conv_dw"]
    inject(model, "scale-space-8", layers=1)
    assert verify(model) == []
    model.stages[0].blocks[0].conv_dw = layer
    assert verify(model) == ["stages.0.blocks.0.conv_dw"]


@pytest.mark.parametrize("act", [*UNDO, lambda model: inject(model, "scale-space-8")])
@pytest.mark.parametrize("model", [None, "convnext_atto", nn.Conv2d])
def test_what_is_no_network_is_refused(act, model):
    with pytest.raises(PlanError, match=r"a network is a torch.nn.Module, not "):
        act(model)


def test_a_module_under_two_names_is_not_lost():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))
    inject(model, "scale-space-8")
    assert verify(nn.ModuleDict({"layer": model[1], "net": model})) == []


def test_a_weight_that_is_computed_since_is_named_and_not_computed():
    """Spectral norm takes a step of its iteration whenever the weight is read in training."""
    model = build().train()
    inject(model, "scale-space-8", freeze=False)
    name, layer = next(iter(masterkey.depthwise_layers(model).items()))
    nn.utils.parametrizations.spectral_norm(layer)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert verify(model) == [name]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Pair(nn.Module):
    """A network and its slow copy, as in self-supervised learning."""

    def __init__(self, online):
        super().__init__()
        self.online, self.target = online, copy.deepcopy(online)

    def forward(self, images):
        return self.online(images), self.target(images)


def stages():
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), *(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, padding=1)) for _ in range(2))
    )


@pytest.mark.parametrize("layers", [None, "online.*", "target.*"])
def test_a_copy_beside_its_network_is_known_by_its_new_marks(layers):
    online = stages()
    inject(online, "scale-space-8")
    pair = Pair(online)
    inject(pair, "random", layers=layers)
    assert verify(pair) == verify(pair.online) == verify(pair.target) == []
    with torch.no_grad():
        pair.target[1][0].weight.add_(1)
    assert verify(pair) == ["target.1.0"] and verify(pair.target) == ["1.0"] and verify(pair.online) == []


def test_what_is_taken_out_of_a_part_is_not_missed_by_the_whole():
    model = stages()
    before = snapshot(model)
    inject(model, "scale-space-8")
    eject(model[2])
    assert verify(model) == []
    model[1][0] = nn.Conv2d(8, 8, 3, groups=8, padding=1)  # but this is gone
    assert verify(model) == ["1.0"]
    again = stages()
    inject(again, "scale-space-8")
    eject(again[2])
    eject(again[1])
    with pytest.raises(NotInjectedError):
        verify(again)
    inject(again, "scale-space-8")
    eject(again)
    assert {**before, "state": {}} == {**snapshot(again), "state": {}}


def test_a_layer_of_another_shape_than_before_its_first_bank_is_refused_in_a_sentence():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(6, 6, 3, groups=6))
    inject(model, "scale-space-8")
    model[0].weight = model[0].weight[:6].clone()
    model[0].in_channels = model[0].out_channels = model[0].groups = 6
    with pytest.raises(PlanError, match=r"the weight of 0 has become one of \(6, 1, 3, 3\) since its first bank"):
        inject(model, "scale-space-8")
    assert inject(model, "random", layers="1").rows[1].replaced
