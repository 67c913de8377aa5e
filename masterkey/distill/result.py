"""The result of a distillation: a bank of keys, and the assignment of every source filter, kept beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bank import Bank
from ..card import FOLDER
from ..errors import BankFormatError
from ..folder import ASSIGNMENT_NAME, bank_files, write_folder
from ..names import PathName, RepositoryName, at_revision, expanded, load_bank, parse_name
from .assignment import Assignment, parse_assignment
from .pruning import Pruning
from .stated import check_assignment, step_of

if TYPE_CHECKING:
    from ..hub.access import Access


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
        return step_of(self.bank.metadata, f"bank {self.bank.name}")

    @property
    def explained(self) -> float:
        """Share of variance explained: the mean over the filters that were not pruned of 1 - error."""
        return float(self.step["explained"])

    @property
    def explained_living(self) -> float:
        """The same over all filters that are neither dead nor constant, random ones and near duplicates included."""
        error = self.assignment.error[Pruning(self.assignment.verdict).living]
        return 1 - float(error.double().mean())

    @property
    def pruned(self) -> dict[str, int]:
        """How many filters were left out, by reason, and how many were kept."""
        return dict(self.step["pruned"])

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the bank's folder, with ``assignment.csv`` in it, and return the folder.

        Raises:
            SaveError: the folder cannot be written; what it held before is intact.
            BankFormatError: the assignment is not the one that the bank states.
        """
        return write_folder(directory, self._files(FOLDER))

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        token: str | bool | None = None,
        create_pr: bool = False,
        allow_degenerate: bool = False,
    ) -> str:
        """Publish the bank with its assignment, in one commit; the arguments are those of ``Bank.push_to_hub``.

        Raises:
            BankFormatError: the assignment is not the one that the bank states.
            MasterkeyError: see ``Bank.push_to_hub``.
        """
        from ..hub.publish import push_files

        return push_files(self.bank, self._files(repo_id), repo_id, private, token, create_pr, allow_degenerate)

    def _files(self, where: str) -> dict[str, bytes]:
        table = self.assignment.to_csv()
        check_assignment(self.bank.metadata, table, ASSIGNMENT_NAME)
        return {ASSIGNMENT_NAME: table, **bank_files(self.bank, where=where)}

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> "Distilled":
        """Load what ``save_pretrained`` wrote or ``push_to_hub`` published. (``Bank.from_pretrained`` loads the keys.)

        Args:
            name_or_path: a folder, or a repository on the Hub, ``org/name[@revision]``.
            revision: see ``Bank.from_pretrained``, as for all that follow.
            cache_dir: folder to keep downloads in.
            token: for the Hub.
            local_files_only: take what was fetched before, and ask no network.

        Raises:
            UnknownNameError: no such folder.
            HubError: it cannot be fetched, or there is no assignment beside the bank.
            BankFormatError: not a distilled bank, or an assignment that is missing or not the one that it names.
        """
        meant = parse_name(name_or_path)
        if revision is not None:
            meant = at_revision(meant, revision, str(name_or_path))
        if isinstance(meant, RepositoryName):
            from ..hub.access import Access

            where = None if cache_dir is None else expanded(cache_dir)
            return _of_repository(meant, Access(where, token, local_files_only))
        bank = load_bank(name_or_path, revision, cache_dir, token, local_files_only)
        step_of(bank.metadata, str(name_or_path))
        if not isinstance(meant, PathName):
            raise BankFormatError(f"{name_or_path} comes without its {ASSIGNMENT_NAME}; only the keys can be used")
        path = (meant.path if meant.path.is_dir() else meant.path.parent) / ASSIGNMENT_NAME
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BankFormatError(f"cannot read {path}: {error.strerror}; the keys alone can still be used") from error
        check_assignment(bank.metadata, data, str(path))
        return Distilled(bank, parse_assignment(data, str(path)))


def _of_repository(meant: RepositoryName, access: "Access") -> Distilled:
    from ..hub.bank_repository import bank_with_file

    name = f"hf://{meant.repo_id}/{ASSIGNMENT_NAME}"

    def check(bank: Bank, data: bytes) -> None:
        check_assignment(bank.metadata, data, name)

    bank, data = bank_with_file(meant.repo_id, meant.revision, access, ASSIGNMENT_NAME, check)
    return Distilled(bank, parse_assignment(data, name))
