"""From an arm's description to a network that is ready to be trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import masterkey
from masterkey import Bank
from masterkey.checkpoint import read_checkpoint
from masterkey.create import build_timm
from masterkey.errors import NothingMeantError

from .arm_calls import check_steps
from .config import ArmConfig, BenchmarkError, RunConfig
from .data.catalogue import data_folder
from .store import WEIGHTS_NAME, ResultStore
from .weight_selection import select_weights

# of a report: what the run's configuration says, so that metrics stay the bytes that they were before reports said it
_CONFIGURED = ("kernel", "scale", "seed", "layers", "steps", "sha256")
_SMALL = 0.1  # of what the network draws its depthwise filters with


@dataclass(frozen=True)
class Arm:
    """A network with its arm applied; ``injection`` and ``bank_sha256`` are None where no bank went in."""

    model: nn.Module
    injection: dict[str, Any] | None
    bank_sha256: str | None


def build_arm(config: RunConfig, classes: int, store: ResultStore) -> Arm:
    """Build the network of a run with weights drawn from its seed, and do what its arm says.

    ``store`` holds the runs whose filters or weights are taken.

    Raises:
        BenchmarkError: an arm that means nothing, or needs a run that has not been done.
        MasterkeyError: the bank does not exist or does not fit.
    """
    return apply_arm(build_network(config, classes), config, store)


def build_network(config: RunConfig, classes: int) -> nn.Module:
    """Build the network of a run.

    The seed is set anew before it is built, so the arms of one seed differ in nothing but the arm.

    Raises:
        MasterkeyError: timm has no such network, or not its weights.
    """
    torch.manual_seed(config.seed)
    timm_kwargs = {"num_classes": classes, **config.model_kwargs}
    if config.train.drop_path:
        timm_kwargs["drop_path_rate"] = config.train.drop_path
    try:
        return build_timm(config.model, pretrained=config.arm.initial == "pretrained", **timm_kwargs)
    except TypeError as error:
        raise BenchmarkError(f"{config.model} cannot be built with {timm_kwargs}: {error}") from error


def apply_arm(model: nn.Module, config: RunConfig, store: ResultStore) -> Arm:
    """Do what an arm says to a new network, in place; see ``build_arm``."""
    arm = config.arm
    if arm.initial == "weight-selection":
        if arm.teacher is None:
            raise BenchmarkError(f"arm {arm.name}: weight selection needs a teacher")
        select_weights(model, _teacher_weights(arm.teacher, store))
    elif arm.initial == "small-depthwise":
        _shrink_depthwise(model)
    if arm.bank is None:
        return Arm(model, None, None)
    # the closed form draws depthwise filters only; of other kinds a fresh draw is what the network begins with
    fresh = arm.bank == "random" and arm.kind != "depthwise"
    bank = Bank.from_model(model, arm.kind) if fresh else load_arm_bank(arm, store)
    try:
        report = masterkey.inject(model, bank, **{"seed": config.seed, **arm.inject})
    except TypeError as error:
        raise BenchmarkError(f"arm {arm.name}: {error}") from error
    if not arm.bias:
        _freeze_biases(model)
    injection = {key: value for key, value in report.to_dict().items() if key not in _CONFIGURED}
    for row in injection["rows"]:
        row["sources"] = list(row["sources"])
    return Arm(model, injection, _sha256(bank, model))


def _sha256(bank: Bank, model: nn.Module) -> str:
    try:
        return bank.sha256
    except NothingMeantError:  # a computed bank that has filters for this network only: what went in tells
        return Bank.from_model(model, bank.kind).sha256


def load_arm_bank(arm: ArmConfig, store: ResultStore) -> Bank:
    """Load an arm's bank and take its steps of the algebra."""
    name = arm.bank or ""
    if name.startswith("run:"):
        bank = Bank.from_model(trained_network(name.removeprefix("run:"), store), arm.kind)
    elif name.startswith("checkpoint:"):
        bank = Bank.from_checkpoint(data_path(name.removeprefix("checkpoint:")), arm.kind)
    else:
        bank = Bank.from_pretrained(name)
    check_steps(arm)
    for operation, arguments in arm.steps:
        try:
            bank = getattr(bank, operation)(**arguments)
        except TypeError as error:
            raise BenchmarkError(f"arm {arm.name}, step {operation}: {error}") from error
    return bank


def trained_network(run_id: str, store: ResultStore) -> nn.Module:
    """Build the network that a run from scratch ended with.

    Raises:
        BenchmarkError: the run has not been done, or its weights are not here (they are not committed), or damaged.
    """
    result = store.read(run_id)
    weights = store.kept_path(run_id) / WEIGHTS_NAME
    if result is None or not weights.exists():
        what = "has not been done" if result is None else f"was done elsewhere; its weights are not at {weights}"
        raise BenchmarkError(f"run {run_id}, whose filters are wanted, {what}")
    metrics = result["metrics"]
    model = build_timm(metrics["config"]["model"], num_classes=metrics["classes"], **metrics["config"]["model_kwargs"])
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:  # the latter: tensors of another network
        raise BenchmarkError(
            f"{weights} is damaged; remove it, and run {run_id} is trained again when it is needed"
        ) from error
    return model


def data_path(name: str) -> Path:
    """Return a path in the data folder (``$MASTERKEY_DATA``, else ``../shared/data``), or an absolute one."""
    return data_folder() / name


def _teacher_weights(teacher: str, store: ResultStore) -> dict[str, Tensor]:
    if teacher.startswith("run:"):
        return trained_network(teacher.removeprefix("run:"), store).state_dict()
    return read_checkpoint(data_path(teacher.removeprefix("checkpoint:")), lambda name, shape: True).tensors


def _shrink_depthwise(model: nn.Module) -> None:
    """Begin with small depthwise filters: what a short training adds to them is then most of what they end with."""
    for layer in masterkey.depthwise_layers(model).values():
        with torch.no_grad():
            layer.weight.mul_(_SMALL)


def _freeze_biases(model: nn.Module) -> None:
    for layer in masterkey.depthwise_layers(model).values():
        if layer.bias is not None:
            layer.bias.requires_grad_(False)
