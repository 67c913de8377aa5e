"""The name of a data set as it stands in runs, whose ids are made of it."""

from pathlib import Path

from masterkey.errors import UnknownNameError
from masterkey.names import expanded, is_there

from .errors import BenchmarkError


def place_of_data(name: str, folder: Path) -> str:
    """Return the name of a data set as runs have it: of a folder that is named by its path, the absolute path.

    ``mine`` and ``mine/flowers`` are such paths where there is such a folder, and else a set known by that name and a
    repository on the Hub. A slash at the end, links and ``..`` change nothing: one folder has one name.
    """
    if name.startswith((".", "~", "/")) or is_there(str(folder / name)):
        return str((folder / expanded(name)).resolve())
    return name


def plain(name: str) -> str:
    """Return a name as it is looked up: ``-`` and ``_`` are one, and so are large and small letters."""
    return name.lower().replace("_", "-")


def same_data(one: str, other: str) -> bool:
    """Whether two names, as runs have them, mean the same pictures: ``pets``, and the path of its folder here."""
    if "/" not in one + other or one == other:
        return plain(one) == plain(other)
    try:
        return _place(one) == _place(other)
    except (BenchmarkError, UnknownNameError):  # a name that means nothing is refused elsewhere
        return False


def _place(name: str) -> object:
    """Where pictures are: a folder by its one name, or a repository and the part of it that is kept."""
    from .data.catalogue import resolve  # needs numpy, which listing does without

    place = resolve(name)
    return place.resolve() if isinstance(place, Path) else (place.repo, place.only, place.subset)
