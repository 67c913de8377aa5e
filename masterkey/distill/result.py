"""The result of a distillation: a bank of keys, and the assignment of every source filter, kept beside it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import write_all_atomically
from ..bank import Bank
from ..errors import BankFormatError
from ..folder import bank_files
from ..names import expanded
from .assignment import ASSIGNMENT_NAME, Assignment, parse_assignment

STEP = "distilled"


@dataclass(frozen=True)
class Distilled:
    """Keys and what they stand for.

    ``bank`` holds one tensor ``keys.weight`` (K, 1, kh, kw), each key of mean 0 and norm 1, the one for most filters
    first. Its last transformation, ``distilled``, says how it was made, what was pruned, the share of variance
    explained, and the SHA-256 of ``assignment.csv``.
    """

    bank: Bank
    assignment: Assignment

    @property
    def step(self) -> dict[str, Any]:
        """The step ``distilled`` of the bank's metadata: method, seed, pruning, counts, share explained."""
        return _step(self.bank, f"bank {self.bank.name}")

    @property
    def explained(self) -> float:
        """Share of variance explained: the mean over the filters that were not pruned of 1 - error."""
        return float(self.step["explained"])

    @property
    def pruned(self) -> dict[str, int]:
        """How many filters were left out, by reason, and how many were kept."""
        return dict(self.step["pruned"])

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the bank's folder, with ``assignment.csv`` in it, and return the folder.

        Raises:
            SaveError: the folder cannot be written; what it held before is intact.
        """
        folder = Path(directory)
        files = {ASSIGNMENT_NAME: self.assignment.to_csv(), **bank_files(self.bank)}
        write_all_atomically({folder / name: data for name, data in files.items()})
        return folder

    @staticmethod
    def from_pretrained(directory: str | Path) -> "Distilled":
        """Load what ``save_pretrained`` wrote. (``Bank.from_pretrained`` loads the keys alone.)

        Raises:
            UnknownNameError: no such folder.
            BankFormatError: not a distilled bank, or an assignment that is missing or not the one that it names.
        """
        folder = expanded(directory)
        bank = Bank.from_pretrained(folder)
        path = folder / ASSIGNMENT_NAME
        stated = _step(bank, str(folder)).get("assignment_sha256")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BankFormatError(f"cannot read {path}: {error.strerror}; the keys alone can still be used") from error
        found = hashlib.sha256(data).hexdigest()
        if found != stated:
            raise BankFormatError(
                f"{path} is damaged or of another bank: it hashes to {found[:16]}…, the bank states {stated!s:.16}…"
            )
        return Distilled(bank, parse_assignment(data, str(path)))


def _step(bank: Bank, where: str) -> dict[str, Any]:
    for step in reversed(bank.metadata.transformations):
        if step["op"] == STEP:
            return dict(step)
    raise BankFormatError(f"{where} was not distilled: its metadata holds no step {STEP!r}")
