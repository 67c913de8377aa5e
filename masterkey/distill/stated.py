"""What a bank of keys states of itself: its step ``distilled``, and the hash of the assignment that goes with it."""

import hashlib
from typing import Any

from ..errors import BankFormatError
from ..metadata import Metadata

STEP = "distilled"


def step_of(about: Metadata, where: str) -> dict[str, Any]:
    """Return the step ``distilled``, which must be the last: what is done afterwards makes other keys.

    Raises:
        BankFormatError: it is not there, or something was done since.
    """
    last = about.transformations[-1] if about.transformations else {"op": None}
    if last["op"] != STEP:
        since = f"was changed since by {last['op']}" if any(s["op"] == STEP for s in about.transformations) else ""
        raise BankFormatError(f"{where} {since or 'was not distilled'}: its metadata does not end with a step {STEP!r}")
    return dict(last)


def check_assignment(about: Metadata, data: bytes, where: str) -> None:
    """Refuse a table that is not the assignment the bank states.

    Args:
        about: the bank's metadata.
        data: content of ``assignment.csv``.
        where: what to call that file.

    Raises:
        BankFormatError: another hash, or a bank that was not distilled.
    """
    stated = step_of(about, f"the bank {about.name} beside {where}").get("assignment_sha256")
    found = hashlib.sha256(data).hexdigest()
    if found != stated:
        raise BankFormatError(
            f"{where} is damaged or of another bank: it hashes to {found[:16]}…, the bank states {stated!s:.16}…; "
            "the keys alone can still be used"
        )
