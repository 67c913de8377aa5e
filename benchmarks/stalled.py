"""Runs that did not learn: where they end says that their recipe failed, and nothing of what they are compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

_SMALLEST_FALL = 0.03
_EPOCHS = 4  # of fewer the first half is no time to learn in
STALLED = "did not learn: the training loss fell by less than 3 % in the first half of the epochs"


def run_has_stalled(result: Mapping[str, Any]) -> bool:
    """Return :func:`has_stalled` of a finished run, as its file has it."""
    return has_stalled([epoch["train_loss"] for epoch in result["metrics"]["curve"]])


def has_stalled(losses: Sequence[float]) -> bool:
    """Return whether the training loss had fallen by less than 3 % of the first epoch's when half the epochs were done.

    Of the runs in ``benchmarks/results`` whose network says one class for most of their training it had fallen by about
    1 %, of the one that learnt slowest besides by 6 %.

    Args:
        losses: mean training loss of every epoch; of fewer than four nothing is said.
    """
    if len(losses) < _EPOCHS:
        return False
    return losses[(len(losses) - 1) // 2] > (1 - _SMALLEST_FALL) * losses[0]
