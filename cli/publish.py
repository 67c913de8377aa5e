"""Commands that make banks and publish them: build, push, publish."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masterkey.catalog import find_recipe, published_recipes, recipes
from masterkey.errors import MasterkeyError
from masterkey.index import index

from .options import TokenOption, as_path
from .output import Json, doing, print_facts, print_json, print_table, tell

if TYPE_CHECKING:
    from masterkey.bank import Bank

BUILT = Path("built")

Private = Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")]
CreatePr = Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and show it; send nothing.")]
AllowDegenerate = Annotated[
    bool, typer.Option("--allow-degenerate", help="Take banks most of whose filters are in degenerate layers, too.")
]


def build(
    recipe: Annotated[str | None, typer.Argument(help="A built-in bank's name, or a recipe file (.toml).")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            parser=as_path,
            help="The bank's folder; with --all, the folder of all folders.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="PATH", parser=as_path, help="Take the filters out of this file of the weights."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Build every bank but the computed ones.")] = False,
    lock: Annotated[bool, typer.Option("--lock", help="Write the hashes of what was built into the index.")] = False,
    allow_degenerate: AllowDegenerate = False,
    token: TokenOption = None,
    json: Json = False,
) -> None:
    """Make a bank by its recipe.

    The depthwise filters of the recipe's source are fetched, checked against the architecture, and written to
    built/NAME. A bank more than half of whose filters are in degenerate layers (sparse, of low diversity, random) is
    refused. With --all, banks of weights that have to be downloaded by hand are taken as they stand there.

    Examples:

    masterkey build convnext-tiny.in1k -o ./convnext-tiny

    masterkey build hornet-tiny.in1k --source hornet_tiny_7x7.pth

    masterkey build --all --lock

    masterkey build my-recipe.toml -o ./my-bank --allow-degenerate
    """
    if (recipe is None) is not all_:
        raise typer.BadParameter("name one recipe, or say --all")
    if all_ and source is not None:
        raise typer.BadParameter("a file is the source of one bank only", param_hint="--source")
    chosen = published_recipes() if recipe is None else [find_recipe(recipe)]
    if lock and (chosen[0].name not in index() or recipes().get(chosen[0].name) != chosen[0]):
        raise typer.BadParameter(
            "only built-in banks that are extracted or trained are in the index", param_hint="--lock"
        )
    from masterkey.build import build_folder, lock_index

    parent = output or BUILT
    banks: dict[str, Bank] = {}
    failed = 0
    for each in chosen:
        folder = parent if output and not all_ else parent / each.name
        try:
            with doing(f"building {each.name}"):
                banks[each.name] = build_folder(
                    each, folder, source=source, pinned=not lock, token=token, allow_degenerate=allow_degenerate
                )
        except MasterkeyError as refusal:
            if not all_:
                raise
            tell(f"{each.name} was not built: {refusal}")
            failed += 1
        else:
            tell(f"wrote {folder}")
    if lock:
        for change in lock_index(banks):
            tell(change)
    facts = [{"bank": name, "filters": len(bank), "sha256": bank.sha256} for name, bank in banks.items()]
    if json:
        print_json(facts)
    elif facts:
        print_table(["bank", "filters", "sha256"], [[str(value) for value in row.values()] for row in facts])
    if failed:
        tell(f"{failed} of {len(chosen)} banks were not built")
        raise typer.Exit(1)


def push(
    directory: Annotated[Path, typer.Argument(metavar="DIR", parser=as_path, help="The bank's folder.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="NAMESPACE/NAME on the Hub.")],
    private: Private = False,
    create_pr: CreatePr = False,
    dry: DryRun = False,
    allow_degenerate: AllowDegenerate = False,
    token: TokenOption = None,
    json: Json = False,
) -> None:
    """Publish a bank's folder on the Hub.

    The bank is verified in full, its card held against its sources' licences, its filters assessed, and all files go up
    in one commit.

    Example: masterkey push ./mcunet me/mcunet --dry-run
    """
    from masterkey.hub.publish import check_repo_id, push_files, read_folder

    check_repo_id(repo)
    with doing(f"verifying {directory}"):
        bank, files = read_folder(directory, repo, allow_degenerate)
    facts: dict[str, Any] = {
        "bank": bank.name,
        "repo": repo,
        "private": private,
        "licence": bank.metadata.licence or "unknown",
        "sha256": bank.sha256,
        "files": {name: len(data) for name, data in files.items()},
    }
    if not bank.metadata.licence:
        tell(f"the licence of {bank.name} is unknown, and its card says so")
    if not dry:
        with doing(f"publishing {bank.name}"):
            facts["url"] = push_files(bank, files, repo, private, token, create_pr, allow_degenerate)
    if json:
        print_json(facts)
        return
    print_facts({key: value for key, value in facts.items() if isinstance(value, str)})
    typer.echo()
    print_table(["file", "bytes"], [[name, f"{size:,}"] for name, size in facts["files"].items()])
    if dry:
        tell("nothing was sent")


def publish(
    all_: Annotated[bool, typer.Option("--all", help="Every bank but the computed ones; has to be said.")] = False,
    to: Annotated[str | None, typer.Option(metavar="NAMESPACE", help="Your user or organisation on the Hub.")] = None,
    banks: Annotated[
        Path,
        typer.Option(metavar="DIR", parser=as_path, help="Folder of the banks' folders, as build --all -o."),
    ] = BUILT,
    private: Private = False,
    create_pr: CreatePr = False,
    dry: DryRun = False,
    allow_degenerate: AllowDegenerate = False,
    token: TokenOption = None,
    json: Json = False,
) -> None:
    """Publish every bank of trained weights.

    Each goes to NAMESPACE/NAME in one commit; those that are not built yet are built first. Computed banks need no
    repository.

    Example: masterkey publish --all --dry-run
    """
    if not all_:
        raise typer.BadParameter("say --all; a single bank goes up with: masterkey push DIR REPO")
    if to is None and not dry:
        raise typer.BadParameter("say where to, with --to NAMESPACE, or --dry-run", param_hint="--to")
    from masterkey.hub.publication import plan_publication, publish_recipe

    if to is not None:
        from masterkey.hub.publish import check_repo_id

        check_repo_id(f"{to}/{published_recipes()[0].name}")
    if not dry:
        failed, sent = 0, []
        try:
            for recipe in published_recipes():
                try:
                    with doing(f"publishing {recipe.name}"):
                        folder = banks / recipe.name
                        url = publish_recipe(recipe, folder, to or "", private, token, create_pr, allow_degenerate)
                    sent.append({"bank": recipe.name, "url": url})
                    if not json:  # as soon as it is known: the rest takes a while, and may be stopped
                        typer.echo(url)
                except MasterkeyError as refusal:
                    tell(f"{recipe.name}: {refusal}")
                    failed += 1
        finally:
            if json:
                print_json(sent)
        if failed:
            tell(f"{failed} of {len(published_recipes())} banks were not published")
            raise typer.Exit(1)
        return
    with doing("verifying"):
        rows = [
            plan_publication(recipe, banks / recipe.name, to or "NAMESPACE", allow_degenerate)
            for recipe in published_recipes()
        ]
    if json:
        print_json([asdict(row) for row in rows])
    else:
        print_table(
            ["bank", "to", "licence", "state", "files", "bytes"],
            [[row.bank, row.repo_id, row.licence, row.state, str(len(row.files) or "-"), row.size] for row in rows],
        )
    refused = [row for row in rows if row.problem]
    for row in refused:
        tell(f"{row.bank}: {row.problem}")
    tell("each repository takes config.json, README.md, atlas.png and model.safetensors, in one commit")
    tell(f"{sum(row.built for row in rows)} of {len(rows)} banks are built; nothing was sent")
    if refused:
        raise typer.Exit(1)
