"""The cache of extracted banks: one bank file for each repository, commit, file and kind, whole or not there.

<HF_HOME>/assets/masterkey/<org>--<name>/refs/<revision>        the commit last seen there
<HF_HOME>/assets/masterkey/<org>--<name>/<commit>/<file>.<kind>.safetensors
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from huggingface_hub.utils import WeakFileLock

from ..atomic import write_atomically
from ..bank import Bank
from ..errors import BankFormatError, NewerFormatError, SaveError, UnreadableError
from ..format import encode, read
from .access import Access
from .repository import COMMIT

_log = logging.getLogger(__name__)
_LONGEST_NAME = 150  # characters of a file's name, well below what file systems allow


class BankCache:
    """The banks extracted from one repository."""

    def __init__(self, repo_id: str, access: Access) -> None:
        self.folder = access.bank_cache / repo_id.replace("/", "--")
        self._offline = access.offline

    def commit(self, revision: str | None) -> str | None:
        """Return the commit that ``revision`` was when it was last asked for, None if it never was."""
        try:
            text = self._ref(revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return text if COMMIT.fullmatch(text) else None

    def remember(self, revision: str | None, commit: str) -> None:
        """Note which commit ``revision`` is now; not in a cache that cannot be written."""
        if self.commit(revision) != commit:
            with suppress(SaveError):
                write_atomically(self._ref(revision), commit.encode("ascii"))

    def has(self, commit: str, file: str, kind: str) -> bool:
        """Whether a bank is there; none is in a cache that may not be looked into."""
        try:
            return self.path(commit, file, kind).is_file()
        except OSError:
            return False

    def load(self, commit: str, file: str, kind: str) -> Bank | None:
        """Return a bank, verified, or None; what is damaged is removed, if it can be fetched again.

        Raises:
            UnreadableError, NewerFormatError: it cannot be read, by this process or this masterkey; it stays.
            BankFormatError: it is damaged, and the network must not be used; it stays.
        """
        if not self.has(commit, file, kind):
            return None
        path = self.path(commit, file, kind)
        try:
            return Bank(*read(path))
        except (UnreadableError, NewerFormatError):  # which do not say that it is damaged
            raise
        except BankFormatError as error:
            if self._offline:
                raise BankFormatError(f"{error} (not fetched again, because {self._offline})") from error
            _log.warning("removed from the cache: %s", error)
            with suppress(OSError):
                path.unlink()
            return None

    def load_or_make(self, commit: str, file: str, kind: str, make: Callable[[], Bank]) -> Bank:
        """Return a bank out of the cache; if it is not there, make and keep it, one process at a time.

        Where the cache cannot be written the bank is made and not kept.

        Raises:
            BankFormatError: see ``load``.
        """
        if bank := self.load(commit, file, kind):
            return bank
        path = self.path(commit, file, kind)
        with self._locked(path):
            if bank := self.load(commit, file, kind):
                return bank
            bank = make()
            try:
                write_atomically(path, encode(bank.layers, bank.metadata))
            except SaveError as error:
                _log.warning("the bank is not kept: %s", error)
            return bank

    def path(self, commit: str, file: str, kind: str) -> Path:
        """Return where a bank is, or would be."""
        name = quote(file, safe="")
        if len(name) > _LONGEST_NAME:
            name = name[:_LONGEST_NAME] + hashlib.sha256(file.encode()).hexdigest()[:16]
        return self.folder / commit / f"{name}.{kind}.safetensors"

    def _ref(self, revision: str | None) -> Path:
        return self.folder / "refs" / quote(revision or "main", safe="")

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        lock = path.with_suffix(".lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError:  # nothing can be written, so there is nothing to guard
            yield
            return
        with WeakFileLock(lock):
            for leftover in path.parent.glob(f".{path.name}.*.partial"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            yield
