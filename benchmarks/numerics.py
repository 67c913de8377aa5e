"""How a run was computed: what the last bits of its figures depend on besides its description."""

from collections.abc import Mapping
from typing import Any


def describe_numerics(machine: Mapping[str, Any]) -> str:
    """Return it in words, as far as the record of a machine tells (older ones do not tell the instructions).

    A run that was broken off and gone on with in another way was computed in both.
    """
    known = (
        f"torch {machine.get('torch')}",
        machine.get("device"),
        machine.get("instructions"),
        machine.get("bfloat16"),
        None if machine.get("threads", 1) == 1 else f"{machine['threads']} threads",
        None if machine.get("processes", 1) == 1 else f"{machine['processes']} processes",
    )
    way = ", ".join(str(part) for part in known if part not in (None, "cpu"))
    return " after ".join([way, *reversed(machine.get("earlier", ()))])
