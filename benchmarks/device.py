"""Which device a run may be given."""

import re

from .errors import BenchmarkError

_NAME = re.compile(r"(cpu|cuda)(:(0|[1-9]\d{0,3}))?")


def plain_device(name: str) -> str:
    """Return a device's name as runs have it: ``cpu`` whatever its number, ``cuda``, ``cuda:1``; here or not.

    Raises:
        BenchmarkError: another kind of device, or no name of one.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise BenchmarkError(f"device {name!r:.40} cannot be used here: a run takes cpu, cuda, cuda:1, …")
    return "cpu" if found[1] == "cpu" else name


def usable_device(name: str, processes: int = 1) -> str:
    """Return a device's name as runs have it, before every run fails on it.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``.
        processes: on this machine; of several each takes the GPU of its number, whatever the name says.

    Raises:
        BenchmarkError: another kind of device, or one that is not here.
    """
    import torch  # here, because a sweep itself needs no torch

    device = plain_device(name)
    if device == "cpu":
        return device
    # torch itself would take cuda:256 for cuda:0
    wanted = processes if processes > 1 else int(device.partition(":")[2] or 0) + 1
    if torch.cuda.device_count() < wanted:
        each = f", and each of {processes} processes takes one of its own" if processes > 1 else ""
        raise BenchmarkError(
            f"device {name!r:.40} cannot be used here: there are {torch.cuda.device_count()} GPUs{each}"
        )
    if processes == 1:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise BenchmarkError(f"device {name!r:.40} cannot be used here: {reason:.200}") from error
    return device


def recorded_device(device: str) -> str:
    """Return what a record calls a device: ``cpu``, or the name of the GPU."""
    import torch

    return "cpu" if plain_device(device) == "cpu" else torch.cuda.get_device_name(device)
