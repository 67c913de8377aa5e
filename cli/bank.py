"""Commands on banks: list, info, download, verify, plot, extract."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from masterkey.catalog import Recipe, recipes
from masterkey.errors import UnknownNameError
from masterkey.index import index
from masterkey.licence import is_non_commercial
from masterkey.names import BuiltinName, UrlName, at_revision, is_remote, is_there, load_bank, parse_name

from .options import LocalOption, RevisionOption, SizeOption, TokenOption, as_path, parse_size
from .output import Json, doing, print_facts, print_json, print_table, tell

if TYPE_CHECKING:
    from masterkey.bank import Bank

BankArgument = Annotated[
    str, typer.Argument(metavar="BANK", help="A built-in bank's name, a folder, or a name on the Hub.")
]


def list_(
    remote: Annotated[bool, typer.Option("--remote", help="List what others have published on the Hub.")] = False,
    token: TokenOption = None,
    json: Json = False,
) -> None:
    """List the banks that are built in, or with --remote those on the Hub.

    Example: masterkey list
    """
    if remote:
        _list_remote(token, json)
    elif json:
        print_json([_recipe_facts(recipe) for recipe in recipes().values()])
    else:
        rows = [[r.name, r.origin, r.terms, r.summary] for r in recipes().values()]
        print_table(["bank", "where from", "licence", "what"], rows)


def _list_remote(token: str | None, json: bool) -> None:
    with doing("asking the Hub"):
        from masterkey.hub.access import Access
        from masterkey.hub.listing import list_published

        published = list_published(Access(token=token))
    if json:
        print_json([{"bank": bank.repo_id, "licence": bank.licence, "private": bank.private} for bank in published])
    elif published:
        print_table(["bank", "licence"], [[bank.repo_id, bank.licence or "unknown"] for bank in published])
    else:
        tell("nobody has published a bank there")


def info(
    bank: BankArgument,
    revision: RevisionOption = None,
    token: TokenOption = None,
    local_files_only: LocalOption = False,
    json: Json = False,
) -> None:
    """Show a bank's source, licence, counts, hash.

    Example: masterkey info scale-space-8
    """
    meant = parse_name(bank)
    if revision is not None and not (isinstance(meant, BuiltinName) and meant.of):
        meant = at_revision(meant, revision, bank)
    if isinstance(meant, BuiltinName):
        facts = {**_recipe_facts(meant.recipe), "of": meant.of}
        if revision is not None and not meant.of:
            facts["revision"] = revision
        if meant.of:  # a control or a fit made of a bank has that bank's licence
            of = parse_name(meant.of) if revision is None else at_revision(parse_name(meant.of), revision, meant.of)
            licence: str | None
            if isinstance(of, BuiltinName):
                licence = of.recipe.licence
            else:
                with doing(f"loading {meant.of}"):
                    licence = load_bank(meant.of, revision, None, token, local_files_only).metadata.licence
            facts |= {"licence": licence or "unknown", "non-commercial": is_non_commercial(licence)}
    else:
        with doing(f"loading {bank}"):
            facts = _stored_facts(load_bank(bank, revision, None, token, local_files_only))
    _print_facts(facts, json)


def download(
    bank: BankArgument, revision: RevisionOption = None, token: TokenOption = None, json: Json = False
) -> None:
    """Fetch a bank into the cache, and verify it.

    Of a network's checkpoint only its filters are fetched, where its format and its server allow it. What is in
    the cache is there with no network, too.

    Examples:

    masterkey download timm/convnext_tiny.fb_in1k

    masterkey download org/bank --revision v1
    """
    with doing(f"fetching {bank}"):
        fetched = load_bank(bank, revision, None, token)
    if isinstance(parse_name(bank), UrlName):
        tell("what is behind a URL is not kept; masterkey extract URL -o DIR makes a bank of it")
    _print_facts(_stored_facts(fetched), json)


def verify(
    bank: BankArgument,
    kernel: SizeOption = None,
    revision: RevisionOption = None,
    token: TokenOption = None,
    local_files_only: LocalOption = False,
    json: Json = False,
) -> None:
    """Check a bank in full: sizes, values, hash.

    A bank that is computed is checked at --kernel, and its hash printed.

    Example: masterkey verify ./mcunet
    """
    with doing(f"verifying {bank}"):
        checked = _load(bank, kernel, revision, token, local_files_only)
    facts = {"bank": checked.name, "verified": True, "filters": len(checked), "sha256": checked.sha256}
    if json:
        print_json(facts)
    else:
        typer.echo(f"{checked.name}: {len(checked):,} filters verified, sha256 {checked.sha256}")


def plot(
    bank: BankArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", parser=as_path, help="The picture to write (PNG).")
    ] = Path("atlas.png"),
    kernel: SizeOption = None,
    max_filters: Annotated[int | None, typer.Option(min=1, help="Show at most so many filters of a layer.")] = None,
) -> None:
    """Draw every filter of a bank.

    Example: masterkey plot scale-space-8 --kernel 11 -o atlas.png
    """
    if output.suffix.lower() != ".png":
        raise typer.BadParameter(f"{output} must end in .png", param_hint="--output")
    with doing(f"drawing {bank}"):
        from masterkey.atlas import draw_atlas, save_atlas

        drawn = _load(bank, kernel)
        save_atlas(draw_atlas(drawn.layers, drawn.name, max_filters=max_filters), output)
    tell(f"wrote {output}")


def extract(
    source: Annotated[
        str,
        typer.Argument(help="A checkpoint file, hf://org/repo/file, https://…, timm/CHECKPOINT, or a timm model name."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", parser=as_path, help="The folder to write the bank to.")
    ],
    kind: Annotated[
        Literal["depthwise", "pointwise", "dense", "all"], typer.Option(help="Which convolutions to take.")
    ] = "depthwise",
    name: Annotated[str | None, typer.Option(help="The bank's name; the source's if not given.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights in a file.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Network that the weights in a file belong to.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Data a file's weights were trained on.")] = None,
    pretrained: Annotated[bool, typer.Option(help="For a timm name: pretrained or random weights.")] = True,
    revision: RevisionOption = None,
    token: TokenOption = None,
    local_files_only: LocalOption = False,
    json: Json = False,
) -> None:
    """Make a bank of a checkpoint or a timm name.

    Checkpoints: .safetensors, .pth, .pt, .pkl, .bin, .ckpt, .tar, .txt for key filters, and .onnx (which needs
    masterkey[onnx]). Nothing a pickle brings along is run. Of a remote checkpoint only the filters are fetched, where
    that can be done.

    Examples:

    masterkey extract mcunet-320kb-1mb_imagenet.pth -o ./mcunet --licence MIT

    masterkey extract timm/convnext_tiny.fb_in1k -o ./convnext-tiny

    masterkey extract hf://org/repo/model.safetensors -o ./bank

    masterkey extract convnext_femto --no-pretrained -o ./random-femto
    """
    from masterkey.checkpoint import SUFFIXES
    from masterkey.onnx_source import SUFFIX

    is_path = source.startswith((".", "/", "~")) or source.lower().endswith((*SUFFIXES, SUFFIX))
    named = not (is_remote(source) or is_path) and (not is_there(source) or _is_folder_like_network(source))
    on_hub = named and source.startswith("timm/")
    of_timm = on_hub or (named and "/" not in source)
    if not pretrained and (on_hub or not of_timm):
        raise typer.BadParameter(
            f"{source} holds the weights it holds; random ones are of a plain timm model name",
            param_hint="--no-pretrained",
        )
    if of_timm and (licence or base_model or dataset):
        raise typer.BadParameter("timm states licence, base model and data sets of its own networks itself")
    if of_timm and not on_hub and (revision or token or local_files_only):
        raise typer.BadParameter(
            f"timm fetches the weights of a plain name itself; --revision, --token and --local-files-only go with "
            f"timm/{source}"
        )
    with doing(f"extracting from {source}"):
        from masterkey.bank import Bank

        if on_hub:
            bank = load_bank(source, revision, None, token, local_files_only, kind)
        elif not of_timm:
            bank = Bank.from_checkpoint(
                source,
                kind,
                licence=licence,
                base_model=base_model,
                datasets=dataset or [],
                revision=revision,
                token=token,
                local_files_only=local_files_only,
            )
        else:
            bank = Bank.from_model(source, kind, pretrained)
        bank = bank.renamed(name) if name else bank
        bank.save_pretrained(output)
    tell(f"wrote {output}")
    _print_facts(_stored_facts(bank), json)


def _is_folder_like_network(source: str) -> bool:
    """Whether a folder here is called like a timm network: it is what this command may have written before."""
    if not is_there(source, folder=True):
        return False
    from masterkey.create import require_timm_name

    try:
        require_timm_name(source)
    except UnknownNameError:
        return False
    return True


def _load(
    bank: str,
    kernel: str | None,
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> "Bank":
    """Load a bank; a computed one at the kernel asked for.

    Raises:
        typer.BadParameter: a kernel size for a stored bank.
    """
    size = parse_size(kernel)
    loaded = load_bank(bank, revision, None, token, local_files_only)
    if size is None:
        return loaded
    from masterkey.late import LateBank

    if not isinstance(loaded, LateBank):
        raise typer.BadParameter("a stored bank has the kernels it has; --kernel is for computed banks")
    return loaded.at(size)


def _recipe_facts(recipe: Recipe) -> dict[str, Any]:
    facts = {
        "bank": recipe.name,
        "what": recipe.summary,
        "where from": recipe.origin,
        "licence": recipe.licence,
        "non-commercial": recipe.terms != recipe.licence,
        "reference": recipe.reference,
    }
    if recipe.rule == "computed":
        return {**facts, "kernels": "any; computed for the network it goes into"}
    known = index()[recipe.name]
    return {
        **facts,
        "source": f"run {recipe.run}" if recipe.run else recipe.source or recipe.source_text,
        **({} if recipe.run or recipe.is_url else {"revision": recipe.revision or known.revision or "not pinned"}),
        "model": recipe.model,
        "base model": recipe.base_model,
        "data sets": list(recipe.datasets),
        "filters of the source" if recipe.steps else "filters": {
            f"{kh}x{kw}": count for (kh, kw), count in known.counts().items()
        },
        "done since": [
            f"{step} {' '.join(f'{key}={value}' for key, value in said.items())}" for step, said in recipe.steps
        ]
        or "nothing",
        "sha256": known.sha256 or "not pinned",
    }


def _stored_facts(bank: "Bank") -> dict[str, Any]:
    about = bank.metadata
    return {
        "bank": about.name,
        "kind": about.kind,
        "source": " ".join(filter(None, [about.source.kind, about.source.id])),
        "revision": about.source.revision,
        "file": about.source.file,
        "source sha256": about.source.sha256_verified or "not pinned",
        "announced sha256": about.source.sha256_announced,
        "base model": about.base_model or "unknown",
        "data sets": list(about.datasets) or "unknown",
        "licence": about.licence or "unknown",
        "filters": {f"{kh}x{kw}": count for (kh, kw), count in bank.counts().items()},
        "order": about.order,
        "done since": [step["op"] for step in about.transformations] or "nothing",
        "sha256": bank.sha256,
        "layers": [{"name": layer.name, "kernel": layer.kernel, "filters": layer.filters} for layer in about.layers],
    }


def _print_facts(facts: dict[str, Any], json: bool) -> None:
    if json:
        print_json(facts)
    else:
        print_facts({key: _shown(value) for key, value in facts.items() if key != "layers"})


def _shown(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else None
    if isinstance(value, dict):
        return ", ".join(f"{count:,} of {kernel}" for kernel, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value
