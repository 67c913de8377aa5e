"""What an arm does to a network before it is trained."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save, save_file

import masterkey
from masterkey.benchmarks.arms import build_arm
from masterkey.benchmarks.config import ArmConfig, BenchmarkError, DataConfig, RunConfig, TrainConfig, run_config
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.weight_selection import even_indices, select_weights
from masterkey.errors import UnknownNameError

SMALL = {"dims": (8, 12, 16, 24), "depths": (1, 1, 2, 1)}
LARGE = {"dims": (16, 18, 40, 48), "depths": (2, 1, 3, 1)}


def config(seed: int = 0, **arm) -> RunConfig:
    return RunConfig(DataConfig("pets"), "convnext_atto", ArmConfig("it", **arm), TrainConfig(), seed, SMALL)


def build(store, seed=0, **arm):
    return build_arm(config(seed, **arm), 3, store)


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path)


def states_equal(one, other) -> list[str]:
    """Names of the tensors that are not the same."""
    return [name for name, value in one.state_dict().items() if not torch.equal(value, other.state_dict()[name])]


def network(**kwargs):
    torch.manual_seed(7)
    return timm.create_model("convnext_atto", num_classes=3, **kwargs)


# --- arms ---


def test_the_arms_of_a_seed_differ_in_the_arm_alone(store):
    scratch, bank = build(store).model, build(store, bank="scale-space-8").model
    assert set(states_equal(scratch, bank)) == {f"{name}.weight" for name in masterkey.depthwise_layers(bank)}
    assert states_equal(scratch, build(store).model) == []
    assert len(states_equal(scratch, build(store, seed=1).model)) == 20


def test_steps_are_taken_in_order(store):
    keys = masterkey.Bank.from_pretrained("scale-space-8")
    steps = (("repeated", {"n": 40}), ("signed", {"seed": 3}))
    arm = build(store, bank="scale-space-8", steps=steps)
    assert arm.bank_sha256 == keys.repeated(40).signed(3).sha256
    with pytest.raises(BenchmarkError, match="unknown step 'squared'"):
        build(store, bank="scale-space-8", steps=(("squared", {}),))


def test_the_bias_may_be_frozen_too(store):
    for bias in (True, False):
        layers = masterkey.depthwise_layers(build(store, bank="scale-space-8", bias=bias).model).values()
        assert {layer.bias.requires_grad for layer in layers} == {bias}


@pytest.mark.parametrize(("kind", "layers", "first"), [("pointwise", None, "mlp.fc1"), ("all", 3, "stem.0")])
def test_random_filters_of_other_kinds_are_those_that_the_network_begins_with(store, kind, layers, first):
    inject = {"policy": "layerwise"} if layers is None else {"policy": "layerwise", "layers": layers}
    arm, scratch = build(store, bank="random", kind=kind, inject=inject), build(store).model
    assert states_equal(arm.model, scratch) == []
    filled = [row["layer"] for row in arm.injection["rows"] if row["sources"]]
    assert len(filled) == (layers or 10)  # two 1x1 convolutions or linear layers in each of five blocks
    assert any(first in name for name in filled)
    learning = {name for name, _ in arm.model.named_parameters()}
    frozen = {name for name, _ in scratch.named_parameters()} - learning
    assert frozen == {f"{name}.weight" for name in filled}
    other = build(store, seed=1, bank="random", kind=kind, inject=inject)
    assert other.bank_sha256 != arm.bank_sha256


def test_small_depthwise_filters_are_a_tenth_of_those_drawn_and_nothing_else_changes(store):
    plain, small = build(store).model, build(store, initial="small-depthwise").model
    depthwise = {f"{name}.weight" for name in masterkey.depthwise_layers(plain)}
    assert len(depthwise) == 5
    state = small.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(state[name], value * 0.1 if name in depthwise else value), name
    assert all(layer.weight.requires_grad for layer in masterkey.depthwise_layers(small).values())


def test_a_network_that_begins_small_is_a_source(store):
    assert config(initial="small-depthwise").is_source
    assert not config(initial="pretrained").is_source
    assert not config(initial="small-depthwise", bank="random").is_source


def test_a_description_that_means_nothing(store):
    with pytest.raises(BenchmarkError, match="weight selection needs a teacher"):
        build(store, initial="weight-selection")
    with pytest.raises(BenchmarkError, match="initial is 'pretraind'; did you mean pretrained"):
        run_config(config(initial="pretraind").to_dict())
    with pytest.raises(BenchmarkError, match=r"arm it: inject\(\) got an unexpected keyword argument 'polcy'"):
        build(store, bank="random", inject={"polcy": "stack"})
    with pytest.raises(BenchmarkError, match=r"step shuffled: .* unexpected keyword argument 'sed'"):
        build(store, bank="scale-space-8", steps=(("shuffled", {"sed": 1}),))
    with pytest.raises(UnknownNameError):
        build(store, bank="no-such-bank")
    with pytest.raises(BenchmarkError, match="run 0123456789ab, whose filters are wanted, has not been done"):
        build(store, bank="run:0123456789ab")


@pytest.mark.parametrize("weights", [b"", save({"of another network": torch.zeros(1)})])
def test_damaged_weights_are_one_sentence(store, weights):
    source = config()
    result = {"metrics": {"config": source.to_dict(), "classes": 3}}
    path = store.kept_path(source.id) / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResultStore, "read", lambda store, run_id: result)
        with pytest.raises(BenchmarkError, match=f"{path} is damaged; remove it, and run {source.id} is trained again"):
            build(store, bank=f"run:{source.id}")


def test_a_run_says_how_its_bank_goes_in_whatever_the_defaults_become():
    raw = config(bank="random", inject={"scale": "unit"}).to_dict()
    described = run_config(raw)
    assert described.arm.inject == {"policy": "stack", "kernel": "crop", "scale": "unit", "freeze": True}
    assert run_config(described.to_dict()) == replace(described, arm=replace(described.arm, name=""))
    assert run_config(config().to_dict()).arm.inject == {}


# --- weight selection (arXiv:2311.18823) ---


def test_a_field_that_came_later_changes_a_run_only_where_it_is_said():
    run = config()
    sharp = replace(run, train=replace(run.train, train_interpolation="bicubic"))
    larger = replace(run, data=replace(run.data, train_size=80))
    assert len({run.id, sharp.id, larger.id}) == 3
    assert replace(sharp, train=replace(run.train, train_interpolation="bilinear")).id == run.id
    for made in (run, sharp, larger):
        again = run_config(made.to_dict())
        assert (again.id, again.to_dict()) == (made.id, made.to_dict())


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (6, 3, [0, 2, 4]),
        (96, 48, list(range(0, 96, 2))),
        (5, 5, [0, 1, 2, 3, 4]),
        (7, 3, [0, 3, 6]),
        (10, 4, [0, 3, 6, 9]),
        (9, 1, [0]),
    ],
)
def test_indices_are_taken_evenly(teacher, student, expected):
    assert even_indices(teacher, student).tolist() == expected


def test_weights_are_picked_out_of_the_larger_network():
    student, teacher = network(**SMALL), network(**LARGE)
    initial = {name: value.clone() for name, value in student.state_dict().items()}
    taken = teacher.state_dict()
    written = select_weights(student, taken)
    state = student.state_dict()
    assert set(written) == {name for name in state if not name.startswith("head.fc.")}
    assert all(torch.equal(state[name], initial[name]) for name in state if name.startswith("head.fc."))
    second = taken["stages.2.blocks.1.conv_dw.weight"]  # the student's second block of a stage is the teacher's second
    rows = [round(i * 39 / 15) for i in range(16)]  # 16 of 40, which 16 does not divide
    assert torch.equal(state["stages.2.blocks.1.conv_dw.weight"], second[rows])
    halves = taken["stages.0.blocks.0.mlp.fc1.weight"][::2, ::2]
    assert torch.equal(state["stages.0.blocks.0.mlp.fc1.weight"], halves)


@pytest.mark.parametrize("student_has_convolutions", [True, False])
def test_linear_layers_and_pointwise_convolutions_are_the_same(student_has_convolutions):
    student = network(**SMALL, conv_mlp=student_has_convolutions)
    teacher = network(**LARGE, conv_mlp=not student_has_convolutions)
    select_weights(student, teacher.state_dict())
    name = "stages.1.blocks.0.mlp.fc2.weight"
    picked = teacher.state_dict()[name].flatten(1)[even_indices(18, 12)][:, even_indices(72, 48)]
    assert torch.equal(student.state_dict()[name].flatten(1), picked)


def test_a_teacher_that_is_none():
    with pytest.raises(BenchmarkError, match="not of the student's family"):
        select_weights(network(**{**SMALL, "depths": LARGE["depths"]}), network(**SMALL).state_dict())
    with pytest.raises(BenchmarkError, match=r"is \[8, 3, 4, 4\] in the teacher, \[16, 3, 4, 4\] in the student"):
        select_weights(network(**{**SMALL, "dims": LARGE["dims"]}), network(**SMALL).state_dict())


def test_the_arm_takes_a_teacher_from_a_file(store, tmp_path):
    teacher = network(**LARGE)
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    arm = build(store, initial="weight-selection", teacher=f"checkpoint:{tmp_path / 'teacher.safetensors'}")
    stem = arm.model.state_dict()["stem.0.weight"]
    assert torch.equal(stem, teacher.state_dict()["stem.0.weight"][::2])
    assert (arm.injection, arm.bank_sha256) == (None, None)
