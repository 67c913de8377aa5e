"""Banks that are published as repositories: ``org/name``."""

import logging
from collections.abc import Callable
from pathlib import Path

from ..bank import Bank
from ..errors import BankFormatError, HubError, UnreadableError
from ..format import METADATA_KEY, WEIGHTS_NAME, opened, read, read_header
from ..pins import check_known
from . import remote_safetensors
from .access import Access
from .commit import Pinned, pinned
from .ranges import RangeIgnoredError
from .remote_file import HubFile

_log = logging.getLogger(__name__)
_SURELY_LARGE = 16 * 1024 * 1024  # bytes; larger than any ConvNeXt's bank, so its header is looked at first


def bank_of_repository(repo_id: str, revision: str | None, access: Access) -> Bank:
    """Load a published bank: fetch it into huggingface_hub's cache if it is not there, and verify it.

    Raises:
        HubError: no such repository, or not in the cache and the network must not be used, or it arrived damaged.
        UnreadableError: the file in the cache cannot be read; it stays.
        BankFormatError: what is published there is no bank, or no sound one.
    """
    return _load(repo_id, revision, access)[0]


def bank_with_file(
    repo_id: str, revision: str | None, access: Access, name: str, check: Callable[[Bank, bytes], None]
) -> tuple[Bank, bytes]:
    """Load a published bank and another file of the same commit, which huggingface_hub's cache keeps too.

    Args:
        repo_id: the repository.
        revision: a branch, a tag or a commit; None is ``main``.
        access: cache, token, and whether the network may be used.
        name: the other file.
        check: raises ``BankFormatError`` for content that does not belong to the bank.

    Raises:
        HubError: see ``bank_of_repository``; or the repository has no such file.
        BankFormatError: see ``bank_of_repository``; or what ``check`` says.
    """
    bank, at = _load(repo_id, revision, access)
    file = HubFile(repo_id, at.commit, name, access)
    if path := file.cached():
        data = _bytes_of(path)
        try:
            check(bank, data)
            return bank, data
        except BankFormatError:
            if access.offline or file.is_as_published(path):
                raise
            _log.warning("%s is damaged in the cache and is fetched again", file.name)
            file.forget()
    elif access.offline:
        raise HubError(f"{file.name} is not in the cache, and {access.offline}, so it was not fetched")
    elif name not in at.repository().files:
        raise HubError(f"{repo_id} holds no {name}; the bank alone can still be used")
    with file.whole() as path:
        data = _bytes_of(path)
    check(bank, data)
    return bank, data


def _load(repo_id: str, revision: str | None, access: Access) -> tuple[Bank, Pinned]:
    """Return the bank, verified, and the commit that it is from."""

    def file_at(commit: str) -> HubFile:
        return HubFile(repo_id, commit, WEIGHTS_NAME, access)

    fetched = file_at(revision or "main").cached()  # by whatever program
    last = fetched.parent.name if fetched else None
    at = pinned(repo_id, repo_id, revision, access, lambda commit: file_at(commit).cached() is not None, last)
    file = file_at(at.commit)
    if path := file.cached():
        try:
            return check_known(Bank(*read(path))), at
        except UnreadableError as error:  # which does not say that it is damaged
            raise _no_bank(repo_id, error) from error
        except BankFormatError as error:
            if access.offline or file.is_as_published(path):
                raise _no_bank(repo_id, error) from error
            _log.warning("%s is damaged in the cache and is fetched again", file.name)
            file.forget()
    _refuse_what_is_no_bank(at, file)
    with file.whole() as path:
        try:
            if METADATA_KEY not in read_header(path).metadata:
                raise _not_a_bank(repo_id)
            return check_known(Bank(*read(path))), at
        except BankFormatError as error:
            raise _no_bank(repo_id, error) from error


def _refuse_what_is_no_bank(at: Pinned, file: HubFile) -> None:
    """Refuse a network's checkpoint before it is downloaded."""
    files = at.repository().files
    if WEIGHTS_NAME not in files:
        raise HubError(
            f"{at.repo_id} is no bank: it holds no {WEIGHTS_NAME}; the filters of a checkpoint in it are "
            f"hf://{at.repo_id}/FILE"
        )
    if (file.size or 0) > _SURELY_LARGE:
        try:
            header, _ = remote_safetensors.read_header(file.reader())
        except RangeIgnoredError:
            return
        if METADATA_KEY not in header.metadata:
            raise _not_a_bank(at.repo_id)


def _not_a_bank(repo_id: str) -> BankFormatError:
    return BankFormatError(
        f"{repo_id} is no bank: its {WEIGHTS_NAME} has no '{METADATA_KEY}' metadata; if it is a network's checkpoint, "
        f"its filters are hf://{repo_id}/{WEIGHTS_NAME}"
    )


def _no_bank(repo_id: str, error: BankFormatError) -> BankFormatError:
    message = str(error)
    return error if message.startswith(repo_id) else type(error)(f"{repo_id}: {message}")


def _bytes_of(path: Path) -> bytes:
    with opened(path) as file:
        return file.read()
