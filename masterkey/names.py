"""What a bank's name means: checked before any file is touched or anything is asked of a network (docs/hub.md)."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .catalog import Recipe, recipes
from .errors import UnknownNameError

if TYPE_CHECKING:
    from .bank import Bank
    from .hub.access import Access

_LONGEST = 200
_WORD = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"  # as the Hub has it: 96 characters, no '-' or '.' at the end
_REPOSITORY = re.compile(rf"({_WORD}/{_WORD})(?:@([\w./-]+))?")
_HUB_FILE = re.compile(
    rf"hf://({_WORD}/{_WORD})(?:@(refs/(?:pr|convert)/[\w.-]+|(?!refs/)[\w.-]+))?/([^\s\\\x00-\x1f\x7f]+)"
)
_HUB_URL = re.compile(rf"/({_WORD}/{_WORD})/(?:resolve|blob|raw)/([^/]+)/(.+)")
_WORDS = re.compile(r"[\w.@/-]+", re.ASCII)
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class PathName:
    """A bank's folder, or its weights file."""

    path: Path


@dataclass(frozen=True)
class BuiltinName:
    """A built-in bank, and the name of the bank that it is made of (``shuffled-pixels:NAME``), if any."""

    recipe: Recipe
    of: str | None = None


@dataclass(frozen=True)
class HubFileName:
    """A checkpoint in a repository of the Hub: ``hf://org/repo[@revision]/file``."""

    repo_id: str
    file: str
    revision: str | None = None


@dataclass(frozen=True)
class UrlName:
    """A checkpoint behind a URL."""

    url: str


@dataclass(frozen=True)
class TimmName:
    """Pretrained weights of timm's on the Hub: ``timm/<checkpoint>[@revision]``."""

    checkpoint: str
    revision: str | None = None


@dataclass(frozen=True)
class RepositoryName:
    """A published bank: ``org/name[@revision]``."""

    repo_id: str
    revision: str | None = None


RemoteName = HubFileName | UrlName | TimmName | RepositoryName
Name = PathName | BuiltinName | RemoteName


def parse_name(name: str | Path) -> Name:
    """Say what a bank's name means.

    In this order: a path if it begins with ``.``, ``/`` or ``~`` or is a folder; a built-in name; a file;
    ``hf://org/repo/file`` or ``https://…``; ``timm/<checkpoint>``; ``org/name[@revision]``. A folder that holds no
    bank hides no built-in one.

    Raises:
        UnknownNameError: nothing that a bank could be called, or not one of ours; near names are given.
    """
    text = _text_of(name)
    if not text:
        raise UnknownNameError("an empty name; masterkey list shows the built-in ones")
    head, _, of = text.partition(":")
    recipe = recipes().get(head)
    is_path = not isinstance(name, str) or text.startswith((".", "/", "~"))
    if is_path or (is_there(text) if recipe is None else holds_bank(text)):
        return PathName(expanded(text))
    if recipe is not None:
        return _parse_builtin(recipe, text, of)
    if is_remote(text):
        return _parse_hub_file(text) if text.lower().startswith("hf://") else _parse_url(text)
    _check_words(text)
    if found := _REPOSITORY.fullmatch(text):
        repo_id, revision = found.groups()
        owner, _, checkpoint = repo_id.partition("/")
        return TimmName(checkpoint, revision) if owner == "timm" else RepositoryName(repo_id, revision)
    near = difflib.get_close_matches(text, recipes(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "masterkey list shows the built-in ones"
    raise UnknownNameError(f"no bank named {_shown(text)}; {hint}")


def is_remote(name: str | Path) -> bool:
    """Whether a name is a remote checkpoint's: ``hf://…`` or a URL."""
    return re.match(r"(?i)(https?|hf)://", str(name)) is not None


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` and ``~user`` filled in.

    Raises:
        UnknownNameError: a NUL in it, or a user that does not exist.
    """
    if "\0" in str(path):
        raise UnknownNameError(f"{_shown(str(path), most=300)} is no path: it contains a NUL character")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UnknownNameError(f"{_shown(str(path), most=300)} is no path: there is no such user here") from error


def load_bank(
    name: str | Path,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    kind: str = "depthwise",
) -> "Bank":
    """Load the bank that ``name`` means.

    Args:
        name: see ``parse_name``.
        revision: of a repository: a branch, a tag or a commit; ``main`` if not given here or in the name.
        cache_dir: folder to keep downloads in, instead of huggingface_hub's own.
        token: for the Hub; None takes the one that was logged in with, False sends none.
        local_files_only: take what was fetched before, and ask no network.
        kind: of a checkpoint: ``depthwise``, ``pointwise``, ``dense`` or ``all``.

    Raises:
        UnknownNameError: no such bank, or a revision of something that has none.
        HubError: it cannot be fetched.
        CheckpointError: a checkpoint holds no filters of that kind, or cannot be read safely.
        BankFormatError: the file is not a sound bank.
    """
    meant = parse_name(name)
    if revision is not None:
        meant = at_revision(meant, revision, str(name))
    if isinstance(meant, RemoteName):
        from .hub.access import Access

        where = None if cache_dir is None else expanded(cache_dir)
        return _load_remote(meant, kind, Access(where, token, local_files_only))
    if isinstance(meant, PathName):
        return _load_path(meant.path)
    options: dict[str, Any] = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    if meant.recipe.rule == "trained":
        from .shipped import shipped_bank

        return shipped_bank(meant.recipe)
    if meant.recipe.rule == "extracted":
        from .build import build_bank

        return build_bank(meant.recipe, revision=revision, **options)
    from .closed_form.banks import computed_bank

    base = load_bank(meant.of, **options) if meant.of else None
    return computed_bank(meant.recipe.name, base, licence=meant.recipe.licence)


def _load_remote(meant: RemoteName, kind: str, access: "Access") -> "Bank":
    if isinstance(meant, RepositoryName):
        from .hub.bank_repository import bank_of_repository

        return bank_of_repository(meant.repo_id, meant.revision, access)
    from .hub import extraction

    if isinstance(meant, TimmName):
        return extraction.bank_of_timm(meant.checkpoint, meant.revision, kind, access)
    if isinstance(meant, UrlName):
        return extraction.bank_of_url(meant.url, kind, access)
    return extraction.bank_of_hub_file(meant.repo_id, meant.file, meant.revision, kind, access)


def _load_path(path: Path) -> "Bank":
    from .bank import Bank
    from .format import WEIGHTS_NAME, read

    try:
        if not path.exists():
            raise UnknownNameError(f"{_shown(str(path), most=300)} does not exist")
        file = path / WEIGHTS_NAME if path.is_dir() else path
        if not file.is_file():
            raise UnknownNameError(f"{path} holds no {WEIGHTS_NAME}, so it is no bank")
    except OSError as error:
        raise UnknownNameError(f"{_shown(str(path), most=300)} cannot be opened: {error.strerror}") from error
    return Bank(*read(file))


def _parse_builtin(recipe: Recipe, text: str, of: str) -> BuiltinName:
    if of and not recipe.of_bank:
        raise UnknownNameError(
            f"{recipe.name} is not made of another bank, so {_shown(text)} means nothing; use {recipe.name}"
        )
    if ":" in text and not of:
        raise UnknownNameError(f"{_shown(text)}: name a bank after the colon, or leave the colon out")
    if ":" in of and of.partition(":")[0] in recipes():
        raise UnknownNameError(f"{_shown(text)}: only one colon is understood; save {_shown(of)} and name its folder")
    return BuiltinName(recipe, of or None)


def _parse_hub_file(text: str) -> HubFileName:
    found = _HUB_FILE.fullmatch("hf" + text[2:]) if len(text) <= 2 * _LONGEST else None
    if not found or not _inside(found[3]) or ".." in (found[2] or ""):
        raise UnknownNameError(
            f"{_shown(text)} is no name of a bank: a checkpoint on the Hub is hf://org/repo/file, or "
            "hf://org/repo@revision/file"
        )
    return HubFileName(found[1], found[3], found[2])


def _parse_url(text: str) -> UrlName | HubFileName:
    """A URL of the Hub's own is a file of a repository, with all that the Hub knows of it."""
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or len(text) > 4096 or not text.isprintable() or " " in text or "\\" in text:
        raise UnknownNameError(f"{_shown(text)} is no name of a bank: not a URL")
    hub = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if (parts.scheme, parts.netloc) in ((hub.scheme, hub.netloc), ("https", "huggingface.co"), ("https", "hf.co")):
        found = _HUB_URL.fullmatch(parts.path)
        file, revision = (unquote(found[3]), unquote(found[2])) if found else ("", "")
        if not found or not _inside(file) or not _inside(revision) or ".." in revision:
            raise UnknownNameError(
                f"{_shown(text)} is a page of the Hub, not a file; a checkpoint there is hf://org/repo/file"
            )
        return HubFileName(found[1], file, None if revision == "main" else revision)
    if parts.scheme.lower() == "http" and host not in _THIS_MACHINE:
        raise UnknownNameError(f"{_shown(text)}: anybody on the way could change it; use https://")
    return UrlName(text)


def _inside(path: str) -> bool:
    """Whether a path, or a revision, which is one in a cache, stays inside its repository."""
    return path.isprintable() and all(part not in ("", ".", "..") for part in path.split("/"))


def at_revision(meant: Name, revision: str, name: str) -> Name:
    """Return what is meant, at a revision that was given beside the name.

    Raises:
        UnknownNameError: it has no revisions, states another, or this is none.
    """
    if len(revision) > _LONGEST or ".." in revision or not re.fullmatch(r"[\w./-]+", revision, re.ASCII):
        raise UnknownNameError(f"{_shown(revision)} is no revision: a branch, a tag or a commit is")
    if isinstance(meant, BuiltinName) and meant.recipe.is_of_hub:
        return meant
    if not isinstance(meant, HubFileName | TimmName | RepositoryName):
        raise UnknownNameError(f"{_shown(name, most=300)} has no revisions; those of a repository on the Hub have")
    if meant.revision not in (None, revision):
        raise UnknownNameError(f"{_shown(name)} is at {meant.revision}, and {revision} was asked for beside it")
    return type(meant)(**{**vars(meant), "revision": revision})


def _check_words(text: str) -> None:
    if len(text) > _LONGEST:
        raise UnknownNameError(f"{_shown(text)} is no name of a bank: {len(text):,} characters")
    known = _REPOSITORY.fullmatch(text) or re.fullmatch(_WORD, text)
    if ".." in text or "--" in text or text.endswith(".git") or not _WORDS.fullmatch(text) or not known:
        raise UnknownNameError(
            f"{_shown(text)} is no name of a bank: letters, digits, '.', '_' and '-' only, without '..'"
        )


def is_there(text: str, folder: bool = False) -> bool:
    """Whether a text is the path of a folder, or of anything; one that cannot be a path is not."""
    try:
        return Path(text).is_dir() if folder else Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL: then it is none
        return False


def holds_bank(text: str) -> bool:
    """Whether a text is the path of a folder with a bank's weights."""
    if not is_there(text, folder=True):
        return False
    from .format import WEIGHTS_NAME  # which brings torch, and is not needed for any other name

    return is_there(str(Path(text, WEIGHTS_NAME)))


def _text_of(name: object) -> str:
    try:
        text = os.fspath(name)  # type: ignore[call-overload]
    except TypeError:
        text = None
    if not isinstance(text, str):
        given = "None" if name is None else type(name).__name__
        raise UnknownNameError(f"a bank is given as a masterkey.Bank, a name or a path, not as {given}")
    return text


def _shown(text: str, most: int = 80) -> str:
    return repr(text if len(text) <= most else text[: most - 3] + "...")
