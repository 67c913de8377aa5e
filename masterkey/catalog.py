"""The built-in banks, read from their recipes; imports neither torch nor timm."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Recipe:
    """A built-in bank: its name, how it comes about, and under which licence it is.

    ``of_bank`` banks may be made of another one: ``shuffled-pixels:scale-space-8``.
    """

    name: str
    rule: str
    summary: str
    licence: str
    reference: str
    of_bank: bool


@cache
def recipes() -> dict[str, Recipe]:
    """Return the recipes by name, in alphabetical order."""
    found = [entry for entry in files("masterkey.banks").iterdir() if entry.name.endswith(".toml")]
    all_recipes = [Recipe(**tomllib.loads(entry.read_text(encoding="utf-8"))) for entry in found]
    return {recipe.name: recipe for recipe in sorted(all_recipes, key=lambda recipe: recipe.name)}


def list_banks() -> list[str]:
    """Return the names of the built-in banks."""
    return list(recipes())
