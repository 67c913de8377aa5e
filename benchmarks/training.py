"""The training loop of every arm: one recipe, repeatable to the bit on a CPU, and it survives kill -9."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import masterkey
from masterkey.errors import NotInjectedError

from .augment import augment, draw_mixing, soft_targets
from .bfloat16 import products
from .checkpoint import fingerprint, load_checkpoint, save_checkpoint
from .config import CHECKPOINT_EVERY, BenchmarkError, TrainConfig
from .distributed import Group, process_group
from .draws import epoch_order, step_seed
from .errors import DivergedError
from .evaluation import Evaluation, autocast, evaluate, memory_format
from .feed import Feed, fit, to_device
from .memory import is_out_of_memory, keep_freed_memory, peak_memory
from .optimization import learning_rate, new_optimizer

if TYPE_CHECKING:
    from .data import Data

# how often the losses are read, for which a GPU has to be waited for
_STEPS_BETWEEN_LOOKS = 32


@dataclass(frozen=True)
class Epoch:
    """One epoch, counted from 0; ``top1`` in percent; ``train_loss`` on augmented pictures and soft targets, ``loss``
    on the evaluated ones; both None where ``val_interval`` leaves the epoch out; ``lr`` that of the last step.
    """

    epoch: int
    train_loss: float
    loss: float | None
    top1: float | None
    lr: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """What a run gave. Curve, ``top1`` (the last epoch's, in percent), ``mistakes`` and ``steps`` depend on it alone.

    ``mistakes`` are the last epoch's: (row of the evaluated part, the class it was taken for), by row.
    ``epoch_seconds`` are of training, without evaluation; ``peak_memory`` is in bytes: what torch allocated on a GPU,
    the whole process' resident memory on a CPU. ``earlier_seconds`` went by in earlier starts, up to the checkpoint
    from which this one went on: what was done after it and lost is in no figure. ``earlier_numerics`` are the other
    ways in which those were computed, in their order.
    """

    curve: tuple[Epoch, ...]
    top1: float
    mistakes: tuple[tuple[int, int], ...]
    epoch_seconds: tuple[float, ...]
    peak_memory: int
    earlier_seconds: float = 0.0
    earlier_numerics: tuple[str, ...] = ()


def train(
    model: nn.Module,
    data: "Data",
    config: TrainConfig,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    on_epoch: Callable[[Epoch], None] | None = None,
    began: float | None = None,
    bank: str | None = None,
    numerics: str | None = None,
) -> Outcome:
    """Train ``model`` in place, evaluate it now and then, and leave it with the weights of the last figure.

    An epoch is one pass over train in batches of like size, none larger than ``batch_size``. The same call gives the
    same curve bit for bit on a CPU with the same number of threads. With ``model_ema`` the average is evaluated (its
    decay warmed up as by timm's ``--model-ema-warmup``: runs here are short), and is what ``model`` holds at the end.
    Started by ``torchrun``, the processes share each batch; buffers are the first process'.

    Args:
        model: a classifier with its bank put in and one output a class.
        data: pictures and labels; evaluated on ``data.evaluate``. On a GPU they are kept there if they take no more
            than half of what is free, else they stay on the host and go there by the batch.
        config: the recipe; its ``drop_path`` is a property of ``model``.
        seed: of order, augmentation and dropout.
        device: ``cpu``, ``cuda``, ``cuda:1``.
        checkpoint: a file that all processes can read. If it is there, the run goes on from it, else it is written.
            It stays when the run is complete: delete it once the outcome is safe.
        checkpoint_every: seconds between two checkpoints.
        on_epoch: called after every epoch, in the first process.
        began: when this start of the run began (``time.perf_counter()``), if that was before this call.
        bank: hash of the bank that was put in, so that no checkpoint of another one is gone on from.
        numerics: how this start computes, for the outcome of a later one that computes in another way.

    Raises:
        DivergedError: the loss is not finite.
        BenchmarkError: out of memory, for the data or for a step; a checkpoint of another run,
            or one that cannot be written; ``freeze_epoch`` without a bank.
    """
    with process_group(device) as group, torch.random.fork_rng([group.device] if group.device.type == "cuda" else []):
        try:
            start = time.perf_counter() if began is None else began
            run = _Run(model, data, config, seed, group, checkpoint, checkpoint_every, start, bank, numerics)
            return run.complete(on_epoch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            batch_size = min(config.batch_size, len(data.train.labels))
            half = batch_size // 2
            raise BenchmarkError(
                f"out of memory with batch_size {batch_size} at {data.pixels} pixels; "
                + (f"try {half}" if half else "use a smaller network or fewer pixels")
                + (", or fewer --jobs if several runs share the GPU" if group.device.type == "cuda" else "")
            ) from error


class _Run:
    """The state of a run: network, optimizer, average, and how far it is."""

    def __init__(
        self,
        model: nn.Module,
        data: "Data",
        config: TrainConfig,
        seed: int,
        group: Group,
        checkpoint: Path | None,
        checkpoint_every: float,
        began: float,
        bank: str | None,
        numerics: str | None,
    ) -> None:
        self.config, self.seed, self.group = config, seed, group
        self.pixels, self.classes = data.pixels, len(data.classes)
        resident = fit(group.device, data.train.images, data.evaluate.images)
        self.images = Feed.of(data.train.images, group.device, resident=resident)
        self.held_out = Feed.of(data.evaluate.images, group.device, resident=resident)
        self.labels, self.held_out_labels = (to_device(p.labels, group.device) for p in (data.train, data.evaluate))
        _check(config, model, len(self.labels), group.size)
        self.steps_per_epoch = math.ceil(len(self.labels) / config.batch_size)

        self.model = model.to(group.device).to(memory_format=memory_format(config))
        self.parallel = group.parallel(model)
        self.optimizer = new_optimizer(model, config)
        self.ema = ModelEmaV3(model, decay=config.model_ema_decay, use_warmup=True) if config.model_ema else None
        self.frozen = False
        self.epoch = self.step = 0
        self.losses = torch.zeros(self.steps_per_epoch, device=group.device)
        self.curve: list[Epoch] = []
        self.judged: Evaluation | None = None
        self.seconds = [0.0]
        self.began, self.earlier_seconds, self.earlier_peak = began, 0.0, 0
        self.numerics = numerics
        self.earlier_numerics: tuple[str, ...] = ()

        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        self.saved = time.monotonic()
        self.description = {
            **asdict(config),
            "seed": seed,
            "data": data.sha256,
            "pictures": [len(self.labels), len(self.held_out_labels)],
            "network": fingerprint(model),
            "bank": bank,
        }

    def complete(self, on_epoch: Callable[[Epoch], None] | None) -> Outcome:
        """Do what is left of the run."""
        device = self.group.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            keep_freed_memory()
        self._restore()
        while self.epoch < self.config.epochs:
            if self.epoch == self.config.freeze_epoch and not self.frozen:
                self._freeze()
            self._train_epoch()
            self._finish_epoch()
            self._save_if_due()
            if on_epoch is not None and self.group.rank == 0:
                on_epoch(self.curve[-1])
        if self.ema is not None:
            self.model.load_state_dict(self.ema.module.state_dict())
        top1 = self.curve[-1].top1
        assert top1 is not None  # the last epoch is evaluated
        judged = self.judged or self._judge()  # a checkpoint after the last epoch does not hold what was wrong
        seconds, peak = tuple(self.seconds[:-1]), self._peak_memory()
        earlier = self.earlier_seconds, self.earlier_numerics
        return Outcome(tuple(self.curve), top1, judged.mistakes, seconds, peak, *earlier)

    def _train_epoch(self) -> None:
        """Train from the present step to the end of the epoch."""
        batches = self._batches()
        self.parallel.train()
        while self.step < self.steps_per_epoch:
            start = time.perf_counter()
            self._learn(batches[self.step])
            self.step += 1
            look = self.step % _STEPS_BETWEEN_LOOKS == 0 or self.step == self.steps_per_epoch
            if look or self._is_due():  # it waits for a GPU, whose work is so within the time that is taken
                self._refuse_non_finite_losses()
            self.seconds[-1] += time.perf_counter() - start
            self._save_if_due()

    def _learn(self, batch: Tensor) -> None:
        """Take one step, on this process' share of the batch that pictures (B,) make."""
        config, device = self.config, self.group.device
        torch.manual_seed(step_seed(self.seed, self.epoch, self.step, self.group.rank))
        pictures = self.group.share(batch)
        images = augment(self.images.take(pictures), pictures, config, self.pixels, seed=self.seed, epoch=self.epoch)
        labels = self.labels.index_select(0, pictures.to(device, non_blocking=True))
        targets = soft_targets(labels, self.classes, config.smoothing)
        mixing = draw_mixing(config, self.pixels, seed=self.seed, epoch=self.epoch, batch=self.step)
        if mixing is not None:
            images, targets = mixing.images(images), mixing.targets(targets)

        with products(config.amp, device):
            with autocast(config, device):
                logits = self.parallel(images.contiguous(memory_format=memory_format(config)))
            loss = F.cross_entropy(logits.float(), targets) * (len(pictures) / len(batch))
            (loss * self.group.size).backward()  # the group's gradient is the mean of its members'
        self.losses[self.step] = self.group.sum(loss.detach())
        if config.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_grad)
        done = self.epoch * self.steps_per_epoch + self.step
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate(config, done, self.steps_per_epoch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model, step=done + 1)

    def _finish_epoch(self) -> None:
        """Evaluate if it is time to, and go on to the next epoch's first step."""
        sizes = torch.tensor([len(batch) for batch in self._batches()])
        train_loss = float((self.losses.double().cpu() * sizes).sum() / sizes.sum())
        lr = learning_rate(self.config, (self.epoch + 1) * self.steps_per_epoch - 1, self.steps_per_epoch)
        loss = top1 = None
        done = self.epoch + 1
        if done % self.config.val_interval == 0 or done == self.config.epochs:
            self.judged = self._judge()
            top1, is_finite = self.judged.top1, math.isfinite(self.judged.loss)
            if not is_finite and done == self.config.epochs:
                raise DivergedError(f"the loss is {self.judged.loss} on the pictures judged on; a lower lr may help")
            loss = self.judged.loss if is_finite else None  # a network may come back from it
        self.curve.append(Epoch(self.epoch, train_loss, loss, top1, lr))
        self.epoch, self.step = self.epoch + 1, 0
        self.seconds.append(0.0)

    def _judge(self) -> Evaluation:
        network = self.model if self.ema is None else self.ema.module
        return evaluate(network, self.held_out, self.held_out_labels, self.pixels, self.config, self.group)

    def _freeze(self) -> None:
        """Freeze the bank, in the average too; the optimizer goes on with what it knows of the other parameters."""
        learnt = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        masterkey.freeze(self.model)
        learnt -= {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        if self.ema is not None:  # its filters would go on towards these, and no frozen ones are what is judged
            averages, state = self.ema.module.state_dict(), self.model.state_dict()
            with torch.no_grad():
                for name in learnt:
                    averages[name].copy_(state[name])
        self.frozen = True
        self.parallel = self.group.parallel(self.model)
        self.optimizer = new_optimizer(self.model, self.config, self.optimizer)

    def _is_due(self) -> bool:
        is_writer = self.checkpoint is not None and self.group.rank == 0
        return is_writer and time.monotonic() - self.saved >= self.checkpoint_every

    def _save_if_due(self) -> None:
        if self.checkpoint is None or not self._is_due():
            return
        self._refuse_non_finite_losses()
        state = {
            "run": self.description,
            "epoch": self.epoch,
            "step": self.step,
            "frozen": self.frozen,
            "losses": self.losses,
            "curve": [epoch.to_dict() for epoch in self.curve],
            "seconds": self.seconds,
            "spent": self.earlier_seconds + time.perf_counter() - self.began,
            "peak_memory": self._peak_memory(),
            "numerics": [*self.earlier_numerics, self.numerics],
            "device": self.group.device.type,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
        }
        save_checkpoint(self.checkpoint, state)
        self.saved = time.monotonic()

    def _restore(self) -> None:
        state = None if self.checkpoint is None else load_checkpoint(self.checkpoint, self.description)
        self._require_together(0 if state is None else state["epoch"] * self.steps_per_epoch + state["step"])
        if state is None:
            return
        if state["frozen"]:
            self._freeze()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.losses.copy_(state["losses"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]
        # a checkpoint of an earlier version knows the time of training alone
        self.earlier_seconds = state.get("spent", sum(self.seconds))
        starts = dict.fromkeys(state.get("numerics", ()))
        self.earlier_numerics = tuple(way for way in starts if way not in (None, self.numerics))
        # a GPU's memory and a CPU's are not the same figure
        is_same = state.get("device", "cpu") == self.group.device.type
        self.earlier_peak = state.get("peak_memory", 0) if is_same else 0

    def _require_together(self, step: int) -> None:
        """Refuse to train on from different steps: each process reads the checkpoint for itself."""
        steps = torch.zeros(self.group.size, dtype=torch.long, device=self.group.device)
        steps[self.group.rank] = step
        if len(set(self.group.sum(steps).tolist())) > 1:
            raise BenchmarkError(
                f"the processes of this run go on from different steps, {', '.join(map(str, steps.tolist()))}: all of "
                "them must see one folder of results"
            )

    def _peak_memory(self) -> int:
        """Bytes, over all starts."""
        return max(self.earlier_peak, peak_memory(self.group.device))

    def _refuse_non_finite_losses(self) -> None:
        losses = self.losses[: self.step]
        if not bool(losses.isfinite().all()):
            step = int((~losses.isfinite()).int().argmax())
            raise DivergedError(
                f"the loss is {float(losses[step])} in epoch {self.epoch}, step {step}; "
                "a lower lr, a longer warm-up or clip_grad may keep it finite"
            )

    def _batches(self) -> tuple[Tensor, ...]:
        return epoch_order(len(self.labels), self.seed, self.epoch).tensor_split(self.steps_per_epoch)


def _check(config: TrainConfig, model: nn.Module, pictures: int, processes: int) -> None:
    if config.epochs < 1 or config.batch_size < 1:
        raise BenchmarkError(f"epochs is {config.epochs} and batch_size {config.batch_size}; both must be 1 or more")
    if config.val_interval < 1:
        raise BenchmarkError(f"val_interval is {config.val_interval}; it must be 1 or more")
    if config.freeze_epoch is not None:
        try:
            masterkey.verify(model)
        except NotInjectedError as error:
            raise BenchmarkError(f"freeze_epoch is {config.freeze_epoch}, but {error}") from error
    smallest_batch = pictures // math.ceil(pictures / config.batch_size)
    if processes > 1 and smallest_batch < 2 * processes:
        raise BenchmarkError(
            f"{processes} processes cannot share batches of {smallest_batch}: start fewer, or give a larger batch_size"
        )
