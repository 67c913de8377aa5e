"""A bank goes up to the Hub as a model repository, in one commit or not at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..card import FOLDER
from ..errors import PublishError
from ..folder import ASSIGNMENT_NAME, ATLAS_NAME, CARD_NAME, LICENCE_NAME, bank_files
from ..format import CONFIG_NAME, METADATA_KEY, WEIGHTS_NAME, read
from ..metadata import strict_json
from .terms import check_terms

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from ..bank import Bank

_PATIENCE = 6  # a commit may take that many times as long as the first byte of a download: a minute by default


def push_files(
    bank: "Bank",
    files: Mapping[str, bytes],
    repo_id: str,
    private: bool = False,
    token: str | bool | None = None,
    create_pr: bool = False,
    allow_degenerate: bool = False,
) -> str:
    """Publish a bank's files and return the address of the commit, or of the pull request.

    What only another bank, there before, had is removed by the same commit: its licence would else stand beside this
    one's filters.

    Raises:
        QualityError: the bank does not pass the gate, and ``allow_degenerate`` is not given.
        PublishError: the terms of a source would be lost, ``repo_id`` is no name of a repository, it is public
            although ``private`` is asked for, or the Hub did not take the commit.
    """
    check_terms(bank.metadata, files[CARD_NAME].decode())
    _check_quality(bank, allow_degenerate)
    check_repo_id(repo_id)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    from .refusals import patiently

    api = HfApi(token=token, library_name="masterkey", library_version=__version__)
    additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()]
    try:
        with _time_limit():
            if not create_pr:  # a pull request is made to a repository that is there
                patiently(lambda: api.create_repo(repo_id, private=private or None, exist_ok=True))
            if private and not patiently(lambda: api.model_info(repo_id)).private:
                raise PublishError(f"{repo_id} is there already and is public, so nothing private goes into it")
            stale = patiently(lambda: _left_over(api, repo_id, files))
            # first, because it makes attempts of its own, unlike the commit
            api.preupload_lfs_files(repo_id, additions, create_pr=create_pr, free_memory=False)
            message = f"Bank {bank.name}, {bank.sha256[:16]}"
            changes: list[Any] = [*additions, *(CommitOperationDelete(path_in_repo=name) for name in stale)]
            info = patiently(lambda: api.create_commit(repo_id, changes, commit_message=message, create_pr=create_pr))
    except Exception as error:
        # huggingface_hub wraps what befalls a file on its way to the storage
        met = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        # of the HTTP library's errors, whichever huggingface_hub builds on, only the name is known
        http_error = "HTTPError" in {cls.__name__ for cls in type(met).__mro__}
        if not http_error and not isinstance(met, OSError | ValueError):
            raise
        reason = _status(met) if met is not error else None
        raise PublishError(f"{bank.name} was not published to {repo_id}: {reason or _reason(met, repo_id)}") from error
    return info.pr_url or info.commit_url


def _left_over(api: "HfApi", repo_id: str, files: Mapping[str, bytes]) -> list[str]:
    """Name what another bank in a repository had and this one has not.

    Raises:
        PublishError: its weights are no bank's. They would be replaced, and a network is gone from ``main``.
    """
    from huggingface_hub.errors import EntryNotFoundError, SafetensorsParsingError

    try:
        about = api.parse_safetensors_file_metadata(repo_id, WEIGHTS_NAME).metadata
    except EntryNotFoundError:
        return []
    except SafetensorsParsingError:
        about = {}
    if METADATA_KEY not in about:
        raise PublishError(f"{repo_id} holds a {WEIGHTS_NAME} that is no bank and would be replaced; give another name")
    if about[METADATA_KEY] + "\n" == files[CONFIG_NAME].decode():  # the very bank: a person may have added to it
        return []
    own = {LICENCE_NAME, ATLAS_NAME, ASSIGNMENT_NAME} - files.keys()
    return sorted(own.intersection(api.list_repo_files(repo_id)))


def read_folder(folder: Path, repo_id: str = FOLDER, allow_degenerate: bool = False) -> tuple["Bank", dict[str, bytes]]:
    """Verify a bank's folder in full and return the bank with the files to publish, sizes and all.

    ``README.md`` and ``LICENSE`` go up as they are in the folder, the repository's name filled in; all else is
    written anew from what was verified. The ``assignment.csv`` of a distilled bank goes with it, if it is there.

    Raises:
        BankFormatError: it holds no sound bank, or an ``assignment.csv`` that is not that bank's.
        QualityError: the bank does not pass the gate, and ``allow_degenerate`` is not given.
        PublishError: ``config.json`` or the card contradict the bank, or a file cannot be read.
    """
    from ..bank import Bank
    from ..distill.stated import check_assignment

    bank = Bank(*read(folder / WEIGHTS_NAME))
    files = bank_files(bank, where=repo_id)
    if (table := folder / ASSIGNMENT_NAME).exists():
        with _reading(table):
            check_assignment(bank.metadata, data := table.read_bytes(), str(table))
        files = {ASSIGNMENT_NAME: data, **files}
    for name in (CARD_NAME, LICENCE_NAME):
        if (folder / name).exists():
            with _reading(folder / name):
                text = (folder / name).read_text(encoding="utf-8")
            files[name] = (text.replace(FOLDER, repo_id) if name == CARD_NAME else text).encode()
    config = folder / CONFIG_NAME
    if config.exists():
        with _reading(config):
            stated = strict_json(config.read_text("utf-8"))
        if stated != json.loads(files[CONFIG_NAME]):
            raise PublishError(
                f"{bank.name} is not published: {config} is not the metadata of {WEIGHTS_NAME} beside it; delete it to "
                "have it written anew"
            )
    check_terms(bank.metadata, files[CARD_NAME].decode())
    _check_quality(bank, allow_degenerate)
    return bank, files


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise PublishError(f"{path} cannot be read: {error}") from error


def check_repo_id(repo_id: str) -> None:
    """Refuse what cannot be the name of a repository, before anything is sent.

    Raises:
        PublishError: not ``NAMESPACE/NAME``, or not what the Hub allows.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        allowed = repo_id.count("/") == 1
    except HFValidationError:
        allowed = False
    if not allowed:
        raise PublishError(
            f"{repo_id!r:.100} is no name of a repository: NAMESPACE/NAME, of letters, digits, '-', '_' and '.'"
        )


def _check_quality(bank: "Bank", allow_degenerate: bool) -> None:
    from ..analysis.quality import require_quality

    if not allow_degenerate:
        require_quality(bank)


@contextmanager
def _time_limit() -> Iterator[None]:
    """Let no answer take for ever: huggingface_hub sets no limit for what it sends."""
    from huggingface_hub import constants, get_session

    session = get_session()
    before = session.timeout
    session.timeout = _PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        yield
    finally:
        session.timeout = before


def _reason(error: BaseException, repo_id: str) -> str:
    """Say in one sentence what the Hub, or the way to it, had against a commit."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return "the Hub asks for a token that may write; log in with: hf auth login, or give one with --token"
    if status == 403:
        return (
            f"the token may not write to {repo_id.split('/')[0]}; use one that may, or propose the bank there with "
            "--create-pr"
        )
    if status == 404:
        return f"there is no repository {repo_id} that the token may see"
    if answer := _status(error):
        return answer
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; publishing needs the network"
    if isinstance(error, ValueError):
        return " ".join(str(error).split())[:300]
    return (
        f"{constants.ENDPOINT} did not answer ({type(error).__name__}); a bank goes up in one commit, so the "
        "repository has all of it or nothing"
    )


def _status(error: BaseException) -> str | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = " ".join((getattr(error, "server_message", None) or "").split())[:200]
    return None if status is None else f"the Hub answered with status {status}{': ' if said else ''}{said}"
