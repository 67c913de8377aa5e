"""Commands on banks: list, info, verify, plot, extract."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from masterkey.catalog import Recipe, recipes
from masterkey.names import BuiltinName, load_bank, parse_name

from .options import SizeOption, parse_size
from .output import Json, doing, print_facts, print_json, print_table, tell

if TYPE_CHECKING:
    from masterkey.bank import Bank

BankArgument = Annotated[str, typer.Argument(metavar="BANK", help="A built-in bank's name, or a bank's folder.")]


def list_(json: Json = False) -> None:
    """List the banks that are built in.

    Example: masterkey list
    """
    if json:
        print_json([_recipe_facts(recipe) for recipe in recipes().values()])
    else:
        print_table(["bank", "licence", "what"], [[r.name, r.licence, r.summary] for r in recipes().values()])


def info(bank: BankArgument, json: Json = False) -> None:
    """Show a bank's source, licence, counts, hash.

    Example: masterkey info scale-space-8
    """
    meant = parse_name(bank)
    if isinstance(meant, BuiltinName):
        facts = {**_recipe_facts(meant.recipe), "of": meant.of}
    else:
        facts = _stored_facts(load_bank(bank))
    if json:
        print_json(facts)
    else:
        print_facts({key: _shown(value) for key, value in facts.items() if key != "layers"})


def verify(bank: BankArgument, kernel: SizeOption = None, json: Json = False) -> None:
    """Check a bank in full: sizes, values, hash.

    A built-in bank is computed at --kernel, checked, and its hash printed.

    Example: masterkey verify ./mcunet
    """
    with doing(f"verifying {bank}"):
        checked = _load(bank, kernel)
    facts = {"bank": checked.name, "verified": True, "filters": len(checked), "sha256": checked.sha256}
    if json:
        print_json(facts)
    else:
        typer.echo(f"{checked.name}: {len(checked):,} filters verified, sha256 {checked.sha256}")


def plot(
    bank: BankArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write (PNG).")] = Path("atlas.png"),
    kernel: SizeOption = None,
    max_filters: Annotated[int | None, typer.Option(min=1, help="Show at most so many filters of a layer.")] = None,
) -> None:
    """Draw every filter of a bank.

    Example: masterkey plot scale-space-8 --kernel 11 -o atlas.png
    """
    with doing(f"drawing {bank}"):
        from masterkey.atlas import draw_atlas, save_atlas

        drawn = _load(bank, kernel)
        save_atlas(draw_atlas(drawn.layers, drawn.name, max_filters=max_filters), output)
    tell(f"wrote {output}")


def extract(
    source: Annotated[str, typer.Argument(help="A checkpoint file, or a timm model name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write the bank to.")],
    kind: Annotated[
        Literal["depthwise", "pointwise", "dense", "all"], typer.Option(help="Which convolutions to take.")
    ] = "depthwise",
    name: Annotated[str | None, typer.Option(help="The bank's name; the source's if not given.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights in a file.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Network that the weights in a file belong to.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Data a file's weights were trained on.")] = None,
    pretrained: Annotated[bool, typer.Option(help="For a timm name: pretrained or random weights.")] = True,
    json: Json = False,
) -> None:
    """Make a bank of a checkpoint or a timm name.

    Checkpoints: .safetensors, .pth, .pt, .pkl, .bin, .ckpt, .tar, and .txt for key filters. Nothing a pickle
    brings along is run.

    Examples:

    masterkey extract mcunet-320kb-1mb_imagenet.pth -o ./mcunet --licence MIT

    masterkey extract convnext_tiny.fb_in1k -o ./convnext-tiny

    masterkey extract convnext_femto --no-pretrained -o ./random-femto
    """
    from masterkey.checkpoint import SUFFIXES

    with doing(f"extracting from {source}"):
        from masterkey.bank import Bank

        if Path(source).exists() or "/" in source or source.lower().endswith(SUFFIXES):
            bank = Bank.from_checkpoint(source, kind, licence=licence, base_model=base_model, datasets=dataset or [])
        elif licence or base_model or dataset:
            raise typer.BadParameter("timm states licence, base model and data sets of its own networks itself")
        else:
            bank = Bank.from_model(source, kind, pretrained)
        bank = bank.renamed(name) if name else bank
        bank.save_pretrained(output)
    tell(f"wrote {output}")
    if json:
        print_json(_stored_facts(bank))
    else:
        print_facts({key: _shown(value) for key, value in _stored_facts(bank).items() if key != "layers"})


def _load(bank: str, kernel: str | None) -> "Bank":
    """Load a bank; a computed one at the kernel asked for.

    Raises:
        typer.BadParameter: a kernel size for a stored bank.
    """
    size = parse_size(kernel)
    loaded = load_bank(bank)
    if size is None:
        return loaded
    from masterkey.closed_form.banks import ComputedBank

    if not isinstance(loaded, ComputedBank):
        raise typer.BadParameter("a stored bank has the kernels it has; --kernel is for computed banks")
    return loaded.at(size)


def _recipe_facts(recipe: Recipe) -> dict[str, Any]:
    return {
        "bank": recipe.name,
        "rule": recipe.summary,
        "licence": recipe.licence,
        "reference": recipe.reference,
        "kernels": "any; computed for the network it goes into",
    }


def _stored_facts(bank: "Bank") -> dict[str, Any]:
    about = bank.metadata
    return {
        "bank": about.name,
        "kind": about.kind,
        "source": " ".join(filter(None, [about.source.kind, about.source.id, about.source.revision])),
        "source sha256": about.source.sha256_verified or "not pinned",
        "base model": about.base_model or "unknown",
        "data sets": list(about.datasets) or "unknown",
        "licence": about.licence or "unknown",
        "filters": {f"{kh}x{kw}": count for (kh, kw), count in bank.counts().items()},
        "order": about.order,
        "done since": [step["op"] for step in about.transformations] or "nothing",
        "sha256": bank.sha256,
        "layers": [{"name": layer.name, "kernel": layer.kernel, "filters": layer.filters} for layer in about.layers],
    }


def _shown(value: Any) -> str | None:
    if isinstance(value, dict):
        return ", ".join(f"{count:,} of {kernel}" for kernel, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value
