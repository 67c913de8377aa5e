"""The card of a bank: the README.md of its folder."""

from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from .metadata import canonical_json

if TYPE_CHECKING:
    from .bank import Bank


def card_text(bank: "Bank") -> str:
    """Fill in the template; what is not known is said to be unknown, never guessed."""
    about = bank.metadata
    template = Template(files("masterkey").joinpath("card.md").read_text(encoding="utf-8"))
    source = " ".join(filter(None, [about.source.kind, about.source.id, about.source.revision]))
    layerwise = ', inject_kwargs={"policy": "layerwise"}'
    return template.substitute(
        front_matter=_front_matter(bank),
        name=about.name,
        counts=counts_text(bank),
        kind=about.kind,
        source=source,
        base_model=about.base_model or "unknown",
        datasets=", ".join(about.datasets) or "unknown",
        licence=about.licence or "unknown",
        order=about.order,
        transformations=", ".join(step["op"] for step in about.transformations) or "nothing",
        sha256=bank.sha256,
        example="convnext_femto",
        inject="" if about.kind == "depthwise" else layerwise,
    )


def counts_text(bank: "Bank") -> str:
    """Count the filters by kernel: ``1,128 filters of 3x3, 744 of 5x5``."""
    counts = [f"{n:,} of {kh}x{kw}" for (kh, kw), n in bank.counts().items()]
    return ", ".join(counts).replace(" of", " filters of", 1)


def _front_matter(bank: "Bank") -> str:
    """Return the Hub's own keys, quoted as JSON, which is YAML; only what is known."""
    about = bank.metadata
    entries: list[tuple[str, object]] = []
    if about.licence:
        entries.append(("license", about.licence.lower()))
    if about.base_model:
        entries.append(("base_model", about.base_model))
    if about.datasets:
        entries.append(("datasets", list(about.datasets)))
    return "\n".join(f"{key}: {canonical_json(value)}" for key, value in entries) or "license: unknown"
