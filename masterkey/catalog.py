"""The built-in banks, read from their recipes; imports neither torch nor timm."""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .licence import is_non_commercial

RULES = ("computed", "extracted", "trained")
STEPS = (
    *("select", "shuffled", "pixel_shuffled", "pruned", "sampled", "signed", "denoised", "distilled"),
    *("normalized", "resized", "repeated"),
)
_REQUIRED = 5  # fields from the first on
# the rest is text
_TYPES: dict[str, type] = {"of_bank": bool, "datasets": list, "factor": float, "steps": list, "figures": dict}


@dataclass(frozen=True)
class Recipe:
    """A built-in bank: its name, how it comes about, and under which licence it is.

    ``computed`` banks are rules in ``masterkey.closed_form``; those with ``of_bank`` may be made of another bank:
    ``shuffled-pixels:scale-space-8``. ``extracted`` banks are the depthwise filters of pretrained weights:

    - ``source``: the weights' name, as ``masterkey.names`` understands it; None where they are no download that
      has a name, and then ``source_text`` says where a person finds the file
    - ``revision``: the source's commit or tag; None is not pinned
    - ``run``: of ``trained`` banks, the run of this project's benchmark whose network's filters they are; their file
      is in the package
    - ``model``: the timm architecture that the layers are checked against
    - ``base_model``, ``datasets``, ``licence``: of the weights; they go into the bank
    - ``factor``: what the architecture multiplies each layer's output by
    - ``steps``: steps of the bank algebra, each a method's name and its arguments
    - ``card``, ``figures``: a paragraph for the bank's card, and what was measured: what and how -> figure
    """

    name: str
    rule: str
    summary: str
    licence: str
    reference: str
    of_bank: bool = False
    source: str | None = None
    source_text: str | None = None
    revision: str | None = None
    run: str | None = None
    model: str | None = None
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    factor: float = 1.0
    steps: tuple[tuple[str, dict[str, Any]], ...] = ()
    card: str = ""
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where the bank comes from, in words."""
        if self.rule != "extracted":
            return "computed" if self.rule == "computed" else "in the package"
        if self.source is None:
            return "built from a file that you download"
        return "read from its authors' file" if self.is_url else "built from the Hub at first use"

    @property
    def is_url(self) -> bool:
        """Whether the source is a file behind a URL, which has no revisions."""
        return self.source is not None and self.source.startswith(("https://", "http://"))

    @property
    def is_of_hub(self) -> bool:
        """Whether the source is weights in a repository of the Hub, which has revisions."""
        return self.source is not None and not self.is_url

    @property
    def terms(self) -> str:
        """The licence, marked where it does not allow commercial use."""
        return f"{self.licence} (non-commercial)" if is_non_commercial(self.licence) else self.licence


@cache
def recipes() -> dict[str, Recipe]:
    """Return the recipes by name, in alphabetical order."""
    found = [entry for entry in files("masterkey.banks").iterdir() if entry.name.endswith(".toml")]
    all_recipes = [parse_recipe(entry.read_text(encoding="utf-8"), entry.name) for entry in found]
    return {recipe.name: recipe for recipe in sorted(all_recipes, key=lambda recipe: recipe.name)}


def list_banks() -> list[str]:
    """Return the names of the built-in banks."""
    return list(recipes())


def published_recipes() -> list[Recipe]:
    """Return the recipes of the banks of trained weights; computed ones are made on the spot."""
    return [recipe for recipe in recipes().values() if recipe.rule != "computed"]


def find_recipe(name_or_path: str) -> Recipe:
    """Return a built-in recipe by its name, or read a recipe file (``.toml``) of one's own.

    Raises:
        RecipeError: neither, or the file is no recipe.
    """
    if name_or_path in recipes():
        return recipes()[name_or_path]
    if name_or_path.endswith(".toml"):
        from .names import expanded  # which knows the recipes

        return _read_recipe(expanded(name_or_path))
    near = difflib.get_close_matches(name_or_path, recipes(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "masterkey list shows them; a file must end in .toml"
    raise RecipeError(f"no recipe named {name_or_path!r:.100}; {hint}")


def _read_recipe(path: Path) -> Recipe:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or no UTF-8
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RecipeError(f"cannot read the recipe {str(path)!r:.200}: {reason}") from error
    recipe = parse_recipe(text, str(path))
    if recipe.rule == "computed":
        raise RecipeError(
            f"{path}: computed banks are the package's own rules; a recipe of yours is rule = 'extracted'"
        )
    return recipe


def parse_recipe(text: str, where: str) -> Recipe:
    """Read a recipe's TOML.

    Raises:
        RecipeError: no TOML, a field that is unknown, missing or of another type, or a rule that cannot be followed.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where} is no TOML: {error}") from error
    if problem := _problem(raw):
        raise RecipeError(f"{where} is no recipe: {problem}")
    steps = tuple((name, arguments) for name, arguments in raw.pop("steps", []))
    return Recipe(**raw | {"datasets": tuple(raw.get("datasets", [])), "steps": steps})


def _problem(raw: Mapping[str, Any]) -> str | None:
    """Say what keeps a TOML table from being a recipe."""
    known = [each.name for each in fields(Recipe)]
    for key in known[:_REQUIRED]:
        if key not in raw:
            return f"it lacks {key}"
    for key, value in raw.items():
        if key not in known:
            return f"unknown field {key!r:.60}; known: {', '.join(known)}"
        if type(value) is not _TYPES.get(key, str):
            return f"{key} = {value!r:.60} is not of type {_TYPES.get(key, str).__name__}"
    if empty := [key for key in known[:_REQUIRED] if not raw[key].strip()]:
        return f"its {empty[0]} is empty"
    if not math.isfinite(raw.get("factor", 1.0)):
        return f"factor = {raw['factor']} is no number to multiply by"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", raw["name"]):  # it names a folder
        return f"name = {raw['name']!r:.60} is not of letters, digits, '.', '_' and '-' alone"
    if raw["rule"] not in RULES:
        return f"rule {raw['rule']!r:.60} is none of {', '.join(RULES)}"
    if raw["rule"] == "extracted" and not (raw.get("source") or raw.get("source_text")):
        return "an extracted bank needs a source, or a source_text"
    if (raw["rule"] == "trained") is not ("run" in raw):
        return "a trained bank needs a run, and no other has one"
    texts = [*raw.get("datasets", []), *raw.get("figures", {}).values()]
    if not all(isinstance(text, str) for text in texts):
        return "datasets and figures are texts"
    for step in raw.get("steps", []):
        if not (isinstance(step, list) and [type(part) for part in step] == [str, dict] and step[0] in STEPS):
            return f"step {step!r:.60} is not [NAME, {{ARGUMENTS}}] with a name out of {', '.join(STEPS)}"
    return None
