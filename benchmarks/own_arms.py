"""What arms say of their banks' steps and injections: looked at before the first run, not by every run on its own."""

import inspect
from collections.abc import Callable
from typing import Any

from masterkey import inject
from masterkey.bank import Bank
from masterkey.catalog import STEPS
from masterkey.metadata import canonical_json
from masterkey.rules import KERNEL_RULES, POLICIES, SCALE_RULES

from .config import ArmConfig, BenchmarkError
from .experiment import Experiment
from .store import ResultStore
from .sweep import expected_runs
from .typed import near

_RULES = {"policy": POLICIES, "kernel": KERNEL_RULES, "scale": SCALE_RULES}


def check_arms(experiment: Experiment, store: ResultStore) -> None:
    """See that the arms' steps and injections can be called; what a layer mask means is seen on the network only.

    Raises:
        BenchmarkError: an unknown step or rule, or arguments that one does not take.
    """
    arms = [run.config.arm for run in expected_runs(experiment, store)]
    for arm in {canonical_json([list(arm.steps), arm.inject]): arm for arm in arms}.values():
        check_steps(arm)
        _check_inject(arm)


def check_steps(arm: ArmConfig) -> None:
    """See that every step is one of the bank algebra, with arguments that it takes.

    Raises:
        BenchmarkError: it is not; near names or the arguments are given.
    """
    for operation, arguments in arm.steps:
        where = f"arm {arm.name!r:.80}: step {operation!r:.80}"
        if operation not in STEPS:
            raise BenchmarkError(f"{where} is none; {near(operation, STEPS)}")
        _check_arguments(where, getattr(Bank, operation), (None,), arguments)


def _check_inject(arm: ArmConfig) -> None:
    where = f"arm {arm.name!r:.80}: inject"
    _check_arguments(where, inject, (None, None), arm.inject)
    for key, known in _RULES.items():
        if key in arm.inject and arm.inject[key] not in known:
            raise BenchmarkError(f"{where}: {key} is {arm.inject[key]!r:.80}; {near(str(arm.inject[key]), known)}")


def _check_arguments(
    where: str, function: Callable[..., Any], given: tuple[None, ...], arguments: dict[str, Any]
) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(*given, **arguments)
    except TypeError as error:
        taken = ", ".join(list(signature.parameters)[len(given) :]) or "nothing"
        raise BenchmarkError(f"{where}: {error}; it takes {taken}") from error
