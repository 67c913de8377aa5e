import resource
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.scheduler import CosineLRScheduler
from tints import (
    PLAIN,
    RICH,
    curve_bytes,
    measure,
    mislabelled,
    model_without_drop_path,
    network,
    network_with_bank,
    one_thread,  # noqa: F401
    tints,
)
from torch import nn

import masterkey
from masterkey.benchmarks import training
from masterkey.benchmarks.checkpoint import load_checkpoint, save_checkpoint
from masterkey.benchmarks.config import BenchmarkError, TrainConfig
from masterkey.benchmarks.data import Part
from masterkey.benchmarks.errors import DivergedError
from masterkey.benchmarks.feed import Feed, fit, to_device
from masterkey.benchmarks.memory import is_out_of_memory
from masterkey.benchmarks.optimization import learning_rate, new_optimizer
from masterkey.benchmarks.training import train

# --- what is learnt ---


def test_a_frozen_bank_learns_everything_but_its_filters():
    model = network_with_bank()
    before = {name: layer.weight.clone() for name, layer in masterkey.depthwise_layers(model).items()}
    biases = {name: layer.bias.detach().clone() for name, layer in masterkey.depthwise_layers(model).items()}
    outcome = train(model, tints(), replace(PLAIN, epochs=6), seed=0)
    assert outcome.top1 >= 90  # chance is 33
    assert outcome.curve[-1].train_loss < outcome.curve[0].train_loss
    assert masterkey.verify(model) == []
    for name, layer in masterkey.depthwise_layers(model).items():
        assert torch.equal(layer.weight, before[name])
        assert not torch.equal(layer.bias, biases[name])


def test_the_outcome_describes_the_run():
    seen = []
    outcome = train(network(), tints(), PLAIN, seed=0, on_epoch=seen.append)
    assert tuple(seen) == outcome.curve and [epoch.epoch for epoch in seen] == [0, 1]
    assert outcome.top1 == outcome.curve[-1].top1
    assert len(outcome.epoch_seconds) == 2 and min(outcome.epoch_seconds) > 0
    assert outcome.peak_memory > 50e6
    assert outcome.curve[0].lr == pytest.approx(learning_rate(PLAIN, 4, 5))
    assert outcome.curve[0].to_dict() == asdict(seen[0])


# in a process of its own, since that of the tests has freed memory that it cannot give back
_PEAKS = """
import numpy as np, torch
from masterkey.benchmarks.memory import forget_peak_memory, keep_freed_memory, peak_memory

cpu = torch.device("cpu")
keep_freed_memory()  # as a training does
blocks = [np.ones(1 << 20, np.uint8) for _ in range(400)]  # resident, freed again, and kept
del blocks
before = peak_memory(cpu)
forget_peak_memory()
anew = peak_memory(cpu)
held = np.ones(400 << 20, np.uint8)
print(before, anew, peak_memory(cpu))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel's counter of resident memory")
def test_peak_memory_is_that_of_the_run_and_not_of_what_came_before():
    done = subprocess.run([sys.executable, "-c", _PEAKS], capture_output=True, text=True, check=True)
    before, anew, after = map(int, done.stdout.split())
    assert anew < before - (300 << 20)
    assert after > anew + (300 << 20)


def test_the_figure_is_the_last_epochs_and_the_networks():
    model = network()
    outcome = train(model, mislabelled(), replace(PLAIN, epochs=3), seed=0)
    loss, top1, mistakes = measure(model, mislabelled())
    assert outcome.top1 == pytest.approx(top1)
    assert outcome.mistakes == mistakes and mistakes
    assert outcome.curve[-1].loss == pytest.approx(loss, abs=1e-4)


def test_evaluated_now_and_then():
    often, seldom = (train(network(), tints(), replace(PLAIN, epochs=5, val_interval=n), seed=0) for n in (1, 2))
    assert [epoch.top1 is not None for epoch in seldom.curve] == [False, True, False, True, True]
    for one, other in zip(often.curve, seldom.curve, strict=True):
        assert other == (one if other.top1 is not None else replace(one, loss=None, top1=None))


# --- determinism ---


@pytest.mark.parametrize("config", [PLAIN, replace(RICH, freeze_epoch=None, epochs=2), replace(PLAIN, amp=True)])
def test_a_seed_gives_the_same_bytes_and_another_seed_others(config):
    first, again = (curve_bytes(train(network(), tints(), config, seed=3)) for _ in range(2))
    assert first == again
    assert first != curve_bytes(train(network(), tints(), config, seed=4))


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    model = network()
    torch.manual_seed(7)
    train(model, tints(), replace(PLAIN, epochs=1), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_read_only_pictures_are_learnt_from_without_a_warning(tmp_path, recwarn):
    data = tints()
    np.save(tmp_path / "images.npy", data.train.images)
    expected = train(network(), data, replace(PLAIN, epochs=1), seed=0)
    mapped = replace(data, train=Part(np.load(tmp_path / "images.npy", mmap_mode="r"), data.train.labels))
    assert train(network(), mapped, replace(PLAIN, epochs=1), seed=0).curve == expected.curve
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_the_same_bytes_from_wherever_they_are(tmp_path, resident):
    images = tints().train.images
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    feed = Feed.of(mapped, torch.device("cpu"), resident=resident)
    assert feed.images.data_ptr() == mapped.ctypes.data  # nothing was copied
    rows = torch.tensor([69, 0, 7, 7])
    assert np.array_equal(feed.take(rows), images[rows])
    assert np.array_equal(feed.part(60, 70), images[60:])


def test_pictures_on_the_host_give_the_same_curve(monkeypatch):
    expected = curve_bytes(train(network_with_bank(freeze=False), tints(), RICH, seed=0))
    asked, made = [], []
    make = Feed.of

    def make_and_note(*arguments, resident):
        made.append(resident)
        return make(*arguments, resident=resident)

    monkeypatch.setattr(training, "fit", lambda device, *arrays: bool(asked.append(len(arrays))))
    monkeypatch.setattr(Feed, "of", make_and_note)
    assert curve_bytes(train(network_with_bank(freeze=False), tints(), RICH, seed=0)) == expected
    assert (asked, made) == ([2], [False, False])


def test_pictures_stay_on_the_host_if_they_take_more_than_half_of_what_is_free_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (150, 1_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60)  # of which a run before has left 50
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10)
    gpu, array = torch.device("cuda"), np.zeros(50, dtype=np.uint8)
    assert fit(gpu, array, array)
    assert not fit(gpu, array, array, array[:1])
    assert fit(torch.device("cpu"), *[array] * 9)


def test_a_lack_of_memory_for_the_pictures_is_told_apart(monkeypatch):
    def full(tensor, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 200 MiB")

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(BenchmarkError, match=r"no room for 2 MiB of pictures or labels.* batch_size does not help"):
        to_device(np.zeros(2**21, dtype=np.uint8), torch.device("cuda"))


# --- the recipe ---


@pytest.mark.parametrize("warmup_epochs", [0, 2, 5])
def test_the_schedule_is_timms(warmup_epochs):
    config = TrainConfig(epochs=5, warmup_epochs=warmup_epochs, lr=2e-3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.lr)
    steps = 7
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=config.epochs * steps,
        lr_min=config.min_lr,
        warmup_t=warmup_epochs * steps,
        warmup_lr_init=config.warmup_lr,
        t_in_epochs=False,
    )
    for step in range(config.epochs * steps):
        assert learning_rate(config, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        scheduler.step_update(step + 1)


def test_norms_and_biases_do_not_decay():
    model = network()
    decays = {}
    for group in new_optimizer(model, TrainConfig(weight_decay=0.05)).param_groups:
        decays.update({id(parameter): group["weight_decay"] for parameter in group["params"]})
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.0 if parameter.ndim <= 1 else 0.05), name


def test_one_step_is_one_step_of_adamw_at_the_scheduled_rate():
    config = TrainConfig(epochs=1, batch_size=70, warmup_epochs=0, lr=1e-2, smoothing=0.0)
    model, start = model_without_drop_path(), model_without_drop_path()
    train(model, tints(), config, seed=0)
    moved = torch.cat([(a - b).abs().flatten() for a, b in zip(model.parameters(), start.parameters(), strict=True)])
    # Adam's first step is the rate for every parameter, plus decay
    assert moved.median().item() == pytest.approx(1e-2, rel=0.02)


def test_clipping_bounds_the_gradient(monkeypatch):
    norms = []
    clip = nn.utils.clip_grad_norm_

    def clip_and_note(parameters, limit):
        parameters = list(parameters)
        before = clip(parameters, limit)
        norms.append((float(before), float(nn.utils.get_total_norm([p.grad for p in parameters]))))

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", clip_and_note)
    train(network(drop_path_rate=0.0), tints(), replace(PLAIN, epochs=1), seed=0)
    assert norms == []
    train(network(drop_path_rate=0.0), tints(), replace(PLAIN, epochs=1, clip_grad=0.05), seed=0)
    assert len(norms) == 5
    assert max(before for before, _ in norms) > 0.05
    assert max(after for _, after in norms) <= 0.05 * 1.001


def test_amp_computes_in_bfloat16_and_channels_last_in_that_layout():
    outputs, inputs = [], []
    model = network()
    model.register_forward_hook(lambda module, args, output: outputs.append(output.dtype))
    model.register_forward_pre_hook(
        lambda module, args: inputs.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    plain = train(model, tints(), replace(PLAIN, epochs=1), seed=0)
    assert set(outputs) == {torch.float32} and not any(inputs)
    outputs.clear()
    inputs.clear()
    fast = train(model, tints(), replace(PLAIN, epochs=1, amp=True, channels_last=True), seed=0)
    assert set(outputs) == {torch.bfloat16} and all(inputs)
    assert model.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert fast.curve[0].train_loss != plain.curve[0].train_loss


def test_channels_last_changes_nothing_but_rounding():
    plain, fast = (
        train(network(), tints(), replace(PLAIN, channels_last=layout), seed=0).curve for layout in (False, True)
    )
    assert fast[-1].train_loss == pytest.approx(plain[-1].train_loss, rel=1e-3)


def test_the_average_is_what_is_evaluated_and_what_stays():
    last = train(network(), tints(), PLAIN, seed=0)
    no_memory = train(network(), tints(), replace(PLAIN, model_ema=True, model_ema_decay=0.0), seed=0)
    assert no_memory.curve == last.curve
    model = network_with_bank()
    averaged = train(model, tints(), replace(PLAIN, model_ema=True, model_ema_decay=0.95), seed=0)
    assert averaged.curve[-1].loss != last.curve[-1].loss
    loss, top1, _ = measure(model)
    assert averaged.curve[-1].loss == pytest.approx(loss, abs=1e-4) and averaged.top1 == pytest.approx(top1)
    assert masterkey.verify(model) == []


@pytest.mark.parametrize("model_ema", [False, True])
def test_filters_learn_until_the_freeze_epoch(model_ema):
    model = network_with_bank(freeze=False)
    config = replace(PLAIN, epochs=4, freeze_epoch=2, model_ema=model_ema)
    layer = next(iter(masterkey.depthwise_layers(model).values()))
    filters, biases = [layer.weight.detach().clone()], [layer.bias.detach().clone()]

    def note(epoch):
        filters.append(layer.weight.detach().clone())
        biases.append(layer.bias.detach().clone())

    outcome = train(model, tints(), config, seed=0, on_epoch=note)
    assert [torch.equal(a, b) for a, b in pairwise(filters)] == [False, False, True, True]
    assert not any(torch.equal(a, b) for a, b in pairwise(biases))
    assert [epoch.lr for epoch in outcome.curve] == [learning_rate(config, 5 * e + 4, 5) for e in range(4)]


def test_a_new_optimizer_keeps_the_moments_of_what_still_learns():
    model = network_with_bank(freeze=False)
    before = new_optimizer(model, PLAIN)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    before.step()
    masterkey.freeze(model)
    after = new_optimizer(model, PLAIN, before)
    parameters = [parameter for group in after.param_groups for parameter in group["params"]]
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters()}
    assert len(parameters) == len(before.state) - len(masterkey.depthwise_layers(model))
    assert all(after.state[p]["exp_avg"] is before.state[p]["exp_avg"] for p in parameters)


# --- refusals ---


class Failing(nn.Module):
    """A classifier whose n-th training step does something else."""

    def __init__(self, step, action):
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.calls, self.step, self.action = 0, step, action

    def forward(self, images):
        logits = self.head(images.mean((2, 3)))
        if self.training:
            self.calls += 1
        return self.action(logits) if self.training and self.calls > self.step else logits


def test_a_loss_that_is_not_finite_is_named_with_its_step():
    with pytest.raises(DivergedError, match="the loss is nan in epoch 1, step 2"):
        train(Failing(7, lambda logits: logits * float("nan")), tints(), replace(PLAIN, epochs=3), seed=0)


def allocate_too_much(logits):
    return logits + torch.empty(1 << 50).sum()


def raise_as_cuda_does(logits):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def raise_memory_error(logits):
    raise MemoryError


@pytest.mark.parametrize("action", [allocate_too_much, raise_as_cuda_does, raise_memory_error])
def test_out_of_memory_says_which_batch_size_to_try(action):
    with pytest.raises(BenchmarkError, match="out of memory with batch_size 16 at 32 pixels; try 8"):
        train(Failing(1, action), tints(), PLAIN, seed=0)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="multi-target"):
        train(network(num_classes=4), tints(), PLAIN, seed=0)


def test_freeze_epoch_needs_a_bank():
    with pytest.raises(BenchmarkError, match="freeze_epoch is 1, but"):
        train(network(), tints(), replace(PLAIN, freeze_epoch=1), seed=0)


def test_no_epochs_is_no_run():
    with pytest.raises(BenchmarkError, match="val_interval is 0"):
        train(network(), tints(), replace(PLAIN, val_interval=0), seed=0)
    with pytest.raises(BenchmarkError, match="epochs is 0"):
        train(network(), tints(), replace(PLAIN, epochs=0), seed=0)


# --- checkpoints ---


def test_time_and_memory_are_of_all_starts(broken_off):
    state = torch.load(broken_off, weights_only=True)
    assert state["spent"] >= sum(state["seconds"]) > 0
    save_checkpoint(broken_off, {**state, "spent": 1000.0, "peak_memory": 2**50})
    with pytest.raises(KeyboardInterrupt):
        train(network(), tints(), PLAIN, seed=0, checkpoint=broken_off, checkpoint_every=0.0, on_epoch=stop)
    again = torch.load(broken_off, weights_only=True)
    assert 1000 < again["spent"] < 1100
    outcome = train(network(), tints(), PLAIN, seed=0, checkpoint=broken_off)
    assert outcome.earlier_seconds == again["spent"]
    assert outcome.peak_memory == 2**50


def test_a_start_may_have_begun_before_its_training(tmp_path):
    path = tmp_path / "run.pt"
    began = time.perf_counter() - 500
    outcome = train(network(), tints(), PLAIN, seed=0, checkpoint=path, checkpoint_every=0.0, began=began)
    assert 500 < torch.load(path, weights_only=True)["spent"] < 600
    assert outcome.earlier_seconds == 0


def test_memory_of_another_kind_of_device_is_not_carried_on(broken_off):
    state = torch.load(broken_off, weights_only=True)
    save_checkpoint(broken_off, {**state, "device": "cuda", "peak_memory": 2**50})
    assert train(network(), tints(), PLAIN, seed=0, checkpoint=broken_off).peak_memory < 2**45


@pytest.mark.parametrize(
    ("sentence", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_what_says_that_memory_ran_out(sentence, is_memory):
    assert is_out_of_memory(RuntimeError(sentence)) is is_memory


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(broken_off):
    state = torch.load(broken_off, weights_only=True)
    save_checkpoint(broken_off, {key: value for key, value in state.items() if key not in ("spent", "peak_memory")})
    outcome = train(network(), tints(), PLAIN, seed=0, checkpoint=broken_off)
    assert outcome.earlier_seconds == pytest.approx(sum(state["seconds"]))
    assert curve_bytes(outcome) == curve_bytes(train(network(), tints(), PLAIN, seed=0))


def stop(epoch):
    raise KeyboardInterrupt


@pytest.fixture
def broken_off(tmp_path):
    """The checkpoint of a run that was stopped after its first epoch."""
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(network(), tints(), PLAIN, seed=0, checkpoint=path, checkpoint_every=0.0, on_epoch=stop)
    return path


@pytest.mark.parametrize(
    ("what", "model", "config", "seed"),
    [
        ("its lr is 0.003, this run's is 0.1", network, replace(PLAIN, lr=0.1), 0),
        ("its seed is 0, this run's is 1", network, PLAIN, 1),
        ("its network is", network_with_bank, PLAIN, 0),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(broken_off, what, model, config, seed):
    before = broken_off.read_bytes()
    with pytest.raises(BenchmarkError, match=what):
        train(model(), tints(), config, seed=seed, checkpoint=broken_off, checkpoint_every=0.0)
    assert broken_off.read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_refused_and_left_alone(broken_off, damage):
    damaged = broken_off.read_bytes()[:-1000] if damage is None else damage
    broken_off.write_bytes(damaged)
    with pytest.raises(BenchmarkError, match=r"run.pt is no checkpoint .* delete it"):
        train(network(), tints(), PLAIN, seed=0, checkpoint=broken_off)
    assert broken_off.read_bytes() == damaged


def test_a_run_goes_on_from_its_checkpoint_and_does_not_begin_anew(broken_off):
    unbroken = train(network(), tints(), PLAIN, seed=0)
    seen = []
    other_start = network(seed=1)  # all weights come from the checkpoint
    resumed = train(other_start, tints(), PLAIN, seed=0, checkpoint=broken_off, on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [1]
    assert curve_bytes(resumed) == curve_bytes(unbroken)
    assert len(resumed.epoch_seconds) == 2


def test_a_complete_run_is_read_back_from_its_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    first = train(network(), mislabelled(), PLAIN, seed=0, checkpoint=path, checkpoint_every=0.0)
    assert path.exists()  # its owner deletes it, once the outcome is safe
    model = network(seed=1)
    again = train(model, mislabelled(), PLAIN, seed=0, checkpoint=path, on_epoch=stop)
    assert curve_bytes(again) == curve_bytes(first)
    assert again.mistakes == first.mistakes == measure(model, mislabelled())[2]


def test_checkpoints_are_written_no_more_often_than_asked(tmp_path):
    path = tmp_path / "run.pt"
    train(network(), tints(), PLAIN, seed=0, checkpoint=path, checkpoint_every=3600.0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_checkpoint_before_intact(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"run": {"seed": 0}, "weights": torch.zeros(10)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(BenchmarkError, match="cannot write the checkpoint"):
            save_checkpoint(path, {"run": {"seed": 0}, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert load_checkpoint(path, {"seed": 0})["weights"].shape == (10,)
