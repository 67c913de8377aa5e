"""The card of a bank: the README.md of its folder."""

import re
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from .catalog import Recipe, recipes
from .index import index
from .licence import hub_front_matter, is_non_commercial, licence_parts, stated_parts

if TYPE_CHECKING:
    from .bank import Bank

FOLDER = "path/to/this/folder"  # stands in a card for the bank's name until it has one on the Hub


def card_text(bank: "Bank", *, where: str = FOLDER, recipe: Recipe | None = None) -> str:
    """Fill in the template; what is not known is said to be unknown, never guessed.

    Args:
        bank: the bank.
        where: what ``create_model`` is to be given: the repository's name, once there is one.
        recipe: what else to say of it, and the figures measured; if not given, the built-in one whose filters they are.
    """
    about = bank.metadata
    recipe = recipe or _recipe_of(bank)
    template = Template(files("masterkey").joinpath("card.md").read_text(encoding="utf-8"))
    source = " ".join(filter(None, [about.source.kind, about.source.id, about.source.revision]))
    layerwise = ', inject_kwargs={"policy": "layerwise"}'
    text = template.substitute(
        front_matter=_front_matter(bank),
        name=about.name,
        counts=counts_text(bank),
        kind=about.kind,
        about=f"\n{recipe.card.strip()}\n" if recipe and recipe.card else "",
        example="convnext_femto",
        where=where,
        inject="" if about.kind == "depthwise" else layerwise,
        kernels=_kernel_rows(bank),
        picture="\n![Every filter, one panel a layer](atlas.png)\n" if about.kind == "depthwise" else "",
        source=_cell(source),
        base_model=_cell(about.base_model or "unknown"),
        datasets=_cell(", ".join(about.datasets) or "unknown"),
        licence=_cell(about.licence or "unknown"),
        order=about.order,
        transformations=_cell(", ".join(step["op"] for step in about.transformations) or "nothing"),
        quality=_cell(_quality(bank)),
        sha256=bank.sha256,
        terms=_terms(about.licence),
        figures=_figures(recipe),
    )
    return text.strip() + "\n"


def licence_text(bank: "Bank") -> str | None:
    """Return the LICENSE file that a card refers to where the Hub has no name for the bank's licence."""
    about = bank.metadata
    if hub_front_matter(about.licence)["license"] != "other":
        return None
    stated = [f"- {part}" for part in stated_parts(about.licence)]
    return "\n".join(
        [
            f"The filters of the bank {about.name} are parts of trained weights, and under the licence of these:",
            "",
            *stated,
            "",
            *(["Where several are named, all of them hold at once."] if len(stated) > 1 else []),
            "Standard texts are at https://spdx.org/licenses/ under these names; of any other the text is with the",
            f"weights: {about.base_model or about.source.id}.",
            "",
        ]
    )


def _recipe_of(bank: "Bank") -> Recipe | None:
    """Return the built-in recipe that gave a bank's very filters: what is made of them keeps the name alone."""
    about = bank.metadata
    recipe, known = recipes().get(about.name), index().get(about.name)
    if recipe is None:
        return None
    if known is not None and known.sha256 is not None:
        return recipe if bank.sha256 == known.sha256 else None
    is_made_alike = [step["op"] for step in about.transformations] == [operation for operation, _ in recipe.steps]
    is_of_its_kind = (about.source.kind == "computed") is (recipe.rule == "computed")
    counts = known.counts() if known is not None and not recipe.steps else {}
    return recipe if is_made_alike and is_of_its_kind and counts in ({}, bank.counts()) else None


def hub_models(base_model: str | None) -> list[str]:
    """Return the base models that are named as models on the Hub are: ``org/name``."""
    models = (base_model or "").split(", ")
    return [model for model in models if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model)]


def counts_text(bank: "Bank") -> str:
    """Count the filters by kernel: ``1,128 filters of 3x3, 744 of 5x5``."""
    counts = [f"{n:,} of {kh}x{kw}" for (kh, kw), n in bank.counts().items()]
    return ", ".join(counts).replace(" of", " filters of", 1)


def _front_matter(bank: "Bank") -> str:
    """Return the Hub's own keys as YAML; only what is known."""
    from huggingface_hub import ModelCardData

    about = bank.metadata
    licence = hub_front_matter(about.licence)
    models = hub_models(about.base_model)
    data = ModelCardData(
        library_name="masterkey",
        license=licence["license"],
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        base_model=models[0] if len(models) == 1 else models or None,
        datasets=list(about.datasets) or None,
        tags=["masterkey", about.kind, "filter-bank"],
    )
    return data.to_yaml(line_break="\n").strip()


def _kernel_rows(bank: "Bank") -> str:
    layers = [layer.kernel for layer in bank.metadata.layers]
    rows = [f"| {kh}x{kw} | {layers.count((kh, kw)):,} | {n:,} |" for (kh, kw), n in bank.counts().items()]
    return "\n".join([*rows, f"| all | {len(layers):,} | {len(bank):,} |"] if len(rows) > 1 else rows)


def _quality(bank: "Bank") -> str:
    """What the gate says of the bank's filters as they are."""
    from .analysis.quality import gate, is_judged

    if not is_judged(bank):
        return "not judged: computed"
    verdict = gate(bank)
    return verdict.sentence if verdict.passed else f"below the gate: {verdict.sentence}"


def _terms(licence: str | None) -> str:
    if is_non_commercial(licence):
        return f"\n**Not for commercial use**: the weights are under {licence}, and so are these filters.\n"
    if len(licence_parts(licence)) > 1:
        return "\nAll of the licences named hold at once, each for the parts taken from its weights.\n"
    return ""


def _figures(recipe: Recipe | None) -> str:
    if not recipe or not recipe.figures:
        return ""
    rows = [f"| {_cell(what)} | {_cell(figure)} |" for what, figure in recipe.figures.items()]
    return "\n".join(["", "## Figures", "", "| | |", "|---|---|", *rows, ""])


def _cell(text: str) -> str:
    """A ``|`` would end the cell of a Markdown table."""
    return text.replace("|", "\\|")
