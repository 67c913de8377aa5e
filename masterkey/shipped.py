"""The banks that this project trained itself; their files are in the package."""

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from .catalog import Recipe
from .index import index
from .pins import check_pinned

if TYPE_CHECKING:
    from .bank import Bank


def shipped_bank(recipe: Recipe) -> "Bank":
    """Read a trained bank's file, and hold it to the hash that the index states; no network is asked.

    Raises:
        UnknownNameError: the package lacks the file.
        BankFormatError: the file is not sound, or its filters are others.
    """
    from .bank import Bank

    with as_file(files("masterkey.banks").joinpath(f"{recipe.name}.safetensors")) as path:
        bank = Bank.from_pretrained(path)
    check_pinned(bank, index()[recipe.name])
    return bank
