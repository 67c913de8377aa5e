"""What a recorded run must look like to be believed: files are edited by hand, cut short, and written by others."""

import math
from collections.abc import Mapping
from typing import Any

from masterkey.errors import MasterkeyError

from .config import RunConfig, run_config

_NUMBER = (int, float)
_NUMBER_OR_NONE = (int, float, type(None))
_METRICS = {
    "classes": (int,),
    "train_pictures": (int,),
    "evaluated_pictures": (int,),
    "data_sha256": (str,),
    "bank_sha256": (str, type(None)),
    "injection": (dict, type(None)),
    "curve": (list,),
    "top1": _NUMBER,
}
# results of before these were recorded lack them
_OPTIONAL = {"skipped_pictures": (list,), "mistakes": (list,)}
_OPTIONAL_MACHINE = {
    "cores": (int,),
    "earlier": (list,),
    "load_average": (list,),
    **dict.fromkeys(("bfloat16", "instructions", "masterkey", "numpy", "pillow", "python", "timm", "torch"), (str,)),
}
_EPOCH = {
    "epoch": (int,),
    "train_loss": _NUMBER,
    "loss": _NUMBER_OR_NONE,
    "top1": _NUMBER_OR_NONE,
    "lr": _NUMBER,
}
_MACHINE = {
    "cpu": (str,),
    "device": (str,),
    "threads": (int,),
    "seconds": _NUMBER,
    "epoch_seconds": (list,),
    "peak_memory": (int,),
}
_ROW = {"layer": (str,), "replaced": (bool,), "sources": (list,)}
_FAILURE = {"error": (str,), "message": (str,), "traceback": (str,)}


def problem_of_result(result: Mapping[str, Any], run_id: str) -> str | None:
    """Say what is wrong with a finished run as it was read, None if nothing is.

    Its configuration must be one that this version writes, and be hashed by ``run_id``; figures must be finite numbers,
    and the curve must have every epoch of the configuration and end in ``top1``.
    """
    metrics, machine = result.get("metrics"), result.get("machine")
    if not isinstance(metrics, dict) or not isinstance(machine, dict):
        return f"has no {'machine' if isinstance(metrics, dict) else 'metrics'}"
    if metrics.get("id") != run_id:
        return f"holds run {metrics.get('id')!r:.40}; results are never renamed"
    config = _config(metrics, run_id)
    if not isinstance(config, RunConfig):
        return config
    epochs = config.train.epochs
    return (
        _misfit(metrics, _METRICS, "metrics")
        or _misfit(metrics, _there(_OPTIONAL, metrics), "metrics")
        or _problem_of_curve(metrics, epochs)
        or _problem_of_mistakes(metrics)
        or _problem_of_injection(metrics["injection"])
        or _misfit(machine, {**_MACHINE, **_there(_OPTIONAL_MACHINE, machine)}, "machine")
        or _problem_of_numbers(machine["epoch_seconds"], epochs, "epoch_seconds")
        or _problem_of_numbers(load := machine.get("load_average", []), len(load), "load_average")
    )


def problem_of_failure(failure: Mapping[str, Any], run_id: str) -> str | None:
    """Say what is wrong with the record of a failed run as it was read, None if nothing is."""
    if failure.get("id") != run_id:
        return f"holds run {failure.get('id')!r:.40}; records are never renamed"
    config = _config(failure, run_id)
    return _misfit(failure, _FAILURE, "the failure") if isinstance(config, RunConfig) else config


def _config(record: Mapping[str, Any], run_id: str) -> RunConfig | str:
    """Return the configuration of a record, or why it is not that of the run."""
    try:
        config = run_config(record["config"])
        found = config.id
    except (KeyError, TypeError, ValueError, AttributeError, MasterkeyError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        return f"has no configuration that this version can read ({reason:.200})"
    if found != run_id:
        return f"has a configuration that was changed: it is that of run {found}"
    return config


def _problem_of_curve(metrics: Mapping[str, Any], epochs: int) -> str | None:
    curve = metrics["curve"]
    if len(curve) != epochs:
        return f"has a curve of {len(curve)} epochs, its configuration has {epochs}"
    for number, epoch in enumerate(curve):
        if not isinstance(epoch, dict) or epoch.get("epoch") != number:
            return f"has no epoch {number} in its curve"
        if problem := _misfit(epoch, _EPOCH, f"epoch {number}"):
            return problem
        if epoch["top1"] is not None and not 0 <= epoch["top1"] <= 100:
            return f"has a top1 of {epoch['top1']} in epoch {number}, which is no percentage"
    if curve and curve[-1]["top1"] != metrics["top1"]:
        return f"has a top1 of {metrics['top1']}, its curve ends in {curve[-1]['top1']}"
    return None


def _problem_of_mistakes(metrics: Mapping[str, Any]) -> str | None:
    """Mistakes must be (row, class) by row, of pictures and classes that there are, and as many as ``top1`` says."""
    mistakes, pictures = metrics.get("mistakes"), metrics["evaluated_pictures"]
    if mistakes is None:
        return None
    limits = (pictures, metrics["classes"])
    for mistake in mistakes:
        fits = isinstance(mistake, list) and [type(number) for number in mistake] == [int, int]
        if not fits or not all(0 <= number < limit for number, limit in zip(mistake, limits, strict=True)):
            return f"has a mistake {mistake!r:.40}, which is no (picture, class) of this run"
    rows = [row for row, _ in mistakes]
    if rows != sorted(set(rows)):
        return "has mistakes that are not in the order of their pictures, each once"
    if not math.isclose(100 * (pictures - len(rows)), pictures * metrics["top1"]):
        return f"has {len(rows)} mistakes in {pictures} pictures, which is not a top1 of {metrics['top1']}"
    return None


def _problem_of_injection(injection: Mapping[str, Any] | None) -> str | None:
    rows = [] if injection is None else injection.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return "has an injection without rows"
    problems = (_misfit(row, _ROW, f"row {number} of the injection") for number, row in enumerate(rows))
    return next(filter(None, problems), None)


def _problem_of_numbers(found: list[Any], count: int, what: str) -> str | None:
    return _misfit(dict(enumerate(found)), dict.fromkeys(range(count), _NUMBER), what)


def _there(optional: Mapping[str, tuple[type, ...]], found: Mapping[str, Any]) -> dict[str, tuple[type, ...]]:
    return {key: types for key, types in optional.items() if key in found}


def _misfit(found: Mapping[Any, Any], expected: Mapping[Any, tuple[type, ...]], what: str) -> str | None:
    """Return the first thing that is missing or of another type, or that is no finite number."""
    for key, types in expected.items():
        if key not in found:
            return f"has no {key} in {what}"
        value = found[key]
        # JSON gives these very types, and so True is no 1 here
        if type(value) not in types or (type(value) is float and not math.isfinite(value)):
            return f"has {key} {value!r:.40} in {what}, which is not what belongs there"
    return None
