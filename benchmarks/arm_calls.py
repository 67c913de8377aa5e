"""What an arm says of its bank's steps and of its injection, held against what these take; nothing is called."""

import inspect
from collections.abc import Callable
from typing import Any

from masterkey import inject
from masterkey.bank import Bank
from masterkey.catalog import STEPS
from masterkey.rules import KERNEL_RULES, POLICIES, SCALE_RULES

from .config import ArmConfig, BenchmarkError
from .typed import near

_RULES = {"policy": POLICIES, "kernel": KERNEL_RULES, "scale": SCALE_RULES}


def check_steps(arm: ArmConfig) -> None:
    """See that every step is one of the bank algebra, with arguments that it takes.

    Raises:
        BenchmarkError: it is not; near names or the arguments are given.
    """
    for operation, arguments in arm.steps:
        where = f"arm {arm.name!r:.80}"
        if operation not in STEPS:
            raise BenchmarkError(f"{where}: unknown step {operation!r:.80}; {near(operation, STEPS)}")
        _check_arguments(f"{where}, step {operation}", getattr(Bank, operation), (None,), arguments)


def check_inject(arm: ArmConfig) -> None:
    """See that ``inject`` takes what the arm says; what a layer mask means is seen on the network only.

    Raises:
        BenchmarkError: an argument that there is none of, or an unknown rule; near names are given.
    """
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
