"""What must stand in a bank and on its card before it is published: no source's licence lost or loosened."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..card import hub_models
from ..catalog import recipes
from ..errors import PublishError
from ..licence import hub_front_matter, licence_parts
from ..metadata import Metadata


def check_terms(metadata: Metadata, card: str) -> None:
    """Hold what a bank says of itself against what is known of its sources, and its card against the bank.

    Known are the parts of a joined bank, the recipes' sources, and what timm states of its pretrained weights.

    Raises:
        PublishError: a licence or base model is missing, another, or weaker than a source's.
    """
    whole = {
        "name": metadata.name,
        "source": {"id": metadata.source.id},
        "base_model": metadata.base_model,
        "licence": metadata.licence,
        "transformations": metadata.transformations,
    }
    for origin in _origins(whole):
        for owner, licence in _known_licences(origin):
            lost = set(licence_parts(licence)) - set(licence_parts(metadata.licence))
            if lost:
                raise PublishError(
                    f"{metadata.name} is not published: it says licence {metadata.licence or 'unknown'}, but filters "
                    f"in it come from {owner}, which is under {licence}; build or extract it anew, so that the licence "
                    "comes along"
                )
    _check_recipe(metadata)
    _check_card(metadata, card)


def _origins(about: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A bank's own description, and those of all parts that were ever joined into it."""
    waiting = [about]
    while waiting:
        origin = waiting.pop()
        yield origin
        for step in origin.get("transformations") or ():
            waiting += [part for part in step.get("parts") or () if isinstance(part, Mapping)]


def _known_licences(origin: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of the licence of a bank's source: (whose, which)."""
    if origin.get("licence"):
        yield str(origin.get("name")), str(origin["licence"])
    names = {str((origin.get("source") or {}).get("id")), *str(origin.get("base_model")).split(", ")}
    for recipe in recipes().values():
        if recipe.rule == "extracted" and (
            origin.get("name") == recipe.name or names & {recipe.source, recipe.base_model}
        ):
            yield recipe.source or recipe.name, recipe.licence
    for name in sorted(names):
        if name.startswith("timm/") and (licence := _timm_licence(name.removeprefix("timm/"))):
            yield name, licence


def _timm_licence(weights: str) -> str | None:
    from timm.models import get_pretrained_cfg

    try:
        licence = getattr(get_pretrained_cfg(weights), "license", None)
    except RuntimeError:  # a tag that timm does not have
        return None
    return licence if licence and licence != "unknown" else None


def _check_recipe(metadata: Metadata) -> None:
    """A bank under a built-in bank's name names its base model and its data sets."""
    recipe = recipes().get(metadata.name)
    if recipe is None:
        return
    models = [recipe.base_model] if recipe.base_model else []
    for what, wanted, stated in (
        ("base model", models, (metadata.base_model or "").split(", ")),
        ("data set", recipe.datasets, metadata.datasets),
    ):
        if missing := set(wanted) - set(stated):
            raise PublishError(
                f"{metadata.name} is not published: its recipe names the {what} {min(missing)}, the bank does not; "
                f"build it anew with: masterkey build {metadata.name} -o DIR"
            )


def _check_card(metadata: Metadata, card: str) -> None:
    from huggingface_hub import ModelCard

    try:
        found: dict[str, Any] = dict(ModelCard(card).data.to_dict())  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a YAML reader makes of a text that people wrote
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PublishError(f"{metadata.name}: the front matter of its README.md cannot be read: {reason}") from error
    expected: dict[str, Any] = {"library_name": "masterkey", **hub_front_matter(metadata.licence)}
    for key, value in expected.items():
        if found.get(key) != value:
            raise PublishError(
                f"{metadata.name} is not published: its README.md says {key}: {found.get(key, 'nothing')}, the bank's "
                f"metadata calls for {key}: {value}; delete README.md to have it written anew"
            )
    stated = found.get("base_model") or []
    missing = set(hub_models(metadata.base_model)) - set([stated] if isinstance(stated, str) else stated)
    if missing:
        raise PublishError(
            f"{metadata.name} is not published: its README.md does not name the base model {min(missing)}, the bank "
            "does; delete README.md to have it written anew"
        )
    row = re.search(r"^\| licence \| (.*) \|$", card, re.MULTILINE)
    if row and row[1] != (metadata.licence or "unknown").replace("|", "\\|"):
        raise PublishError(
            f"{metadata.name} is not published: its README.md says licence {row[1]}, the bank's metadata "
            f"{metadata.licence or 'unknown'}; delete README.md to have it written anew"
        )
