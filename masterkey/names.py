"""From a name to a bank: a path, or a built-in bank. Checked before any file is touched."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .catalog import Recipe, recipes
from .errors import UnknownNameError

if TYPE_CHECKING:
    from .bank import Bank

_LONGEST = 200
_WORDS = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?(?:@[\w./-]+)?")


@dataclass(frozen=True)
class PathName:
    """A bank's folder, or its weights file."""

    path: Path


@dataclass(frozen=True)
class BuiltinName:
    """A built-in bank, and the name of the bank that it is made of (``shuffled-pixels:NAME``), if any."""

    recipe: Recipe
    of: str | None = None


def parse_name(name: str | Path) -> PathName | BuiltinName:
    """Say what a bank's name means.

    In this order: a path if it begins with ``.``, ``/`` or ``~`` or is a folder; a built-in name; a file.

    Raises:
        UnknownNameError: nothing that a bank could be called, or not one of ours; near names are given.
    """
    text = str(name)
    if not text:
        raise UnknownNameError(f"an empty name; built in: {', '.join(recipes())}")
    head, _, of = text.partition(":")
    recipe = recipes().get(head)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or _is_path(text, folder=recipe is not None):
        return PathName(expanded(text))
    if recipe is not None and (recipe.of_bank or not of):
        if ":" in text and not of:
            raise UnknownNameError(f"{_shown(text)}: name a bank after the colon, or leave the colon out")
        if ":" in of and of.partition(":")[0] in recipes():
            raise UnknownNameError(
                f"{_shown(text)}: only one colon is understood; save {_shown(of)} and name its folder"
            )
        return BuiltinName(recipe, of or None)
    if recipe is not None:
        raise UnknownNameError(f"{head} is not made of another bank, so {_shown(text)} means nothing; use {head}")
    if text.startswith(("hf://", "http://", "https://")) or "/" in text:
        _check_words(text.removeprefix("hf://").removeprefix("https://").removeprefix("http://"))
        raise UnknownNameError(
            f"{_shown(text)} is no folder here, and banks on the Hub are not supported yet; "
            f"built in: {', '.join(recipes())}"
        )
    _check_words(text)
    near = difflib.get_close_matches(text, recipes(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"built in: {', '.join(recipes())}"
    raise UnknownNameError(f"no bank named {_shown(text)}; {hint}")


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


def load_bank(name: str | Path) -> "Bank":
    """Load the bank that ``name`` means.

    Raises:
        UnknownNameError: no such bank.
        BankFormatError: the file is not a sound bank.
    """
    meant = parse_name(name)
    if isinstance(meant, PathName):
        return _load_path(meant.path)
    from .closed_form.banks import computed_bank

    base = load_bank(meant.of) if meant.of else None
    return computed_bank(meant.recipe.name, base, licence=meant.recipe.licence)


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


def _check_words(text: str) -> None:
    if len(text) > _LONGEST:
        raise UnknownNameError(f"{_shown(text)} is no name of a bank: {len(text):,} characters")
    if ".." in text or not _WORDS.fullmatch(text):
        raise UnknownNameError(
            f"{_shown(text)} is no name of a bank: letters, digits, '.', '_' and '-' only, without '..'"
        )


def _is_path(text: str, folder: bool) -> bool:
    try:
        return Path(text).is_dir() if folder else Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL: then it is none
        return False


def _shown(text: str, most: int = 80) -> str:
    return repr(text if len(text) <= most else text[: most - 3] + "...")
