"""The command distill: from many filters to a few keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from masterkey.names import load_bank

from .options import parse_size
from .output import Json, doing, print_facts, print_json, tell

if TYPE_CHECKING:
    from masterkey.bank import Bank


def distill(
    bank: Annotated[str, typer.Argument(metavar="BANK", help="A built-in bank's name, or a bank's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write the keys to.")],
    keys: Annotated[int, typer.Option(min=1, help="How many keys.")] = 8,
    method: Annotated[Literal["greedy", "kmeans", "medoids"], typer.Option(help="How they are chosen.")] = "greedy",
    kernel: Annotated[str | None, typer.Option(metavar="K|KHxKW", help="Only filters of this kernel size.")] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Draw variance explained by 1 to 32 keys (PNG, and CSV beside it).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    json: Json = False,
) -> None:
    """Distil a bank to a few key filters.

    Every filter f is then nearly a * key + b. Dead and random filters and near duplicates are left out first, and
    counted. The folder is a bank; assignment.csv in it has key, a, b and error of every source filter.

    Examples:

    masterkey distill ./mcunet -o ./mcunet-keys --kernel 7

    masterkey distill ./mcunet -o ./mcunet-keys --kernel 7 --keys 16 --method kmeans --curve curve.png
    """
    source = _load(bank, kernel)
    with doing(f"distilling {bank}"):
        from masterkey.distill import prepare

        prepared = prepare(source, method, seed)
        result = prepared.distilled(keys)
    facts = {
        "bank": result.bank.name,
        "explained": result.explained,
        "filters": len(source),
        "pruned": {reason: count for reason, count in result.pruned.items() if reason != "kept"},
        "kept": result.pruned["kept"],
        "filters by key": result.assignment.counts(keys),
        "sha256": result.bank.sha256,
    }
    result.save_pretrained(output)
    tell(f"wrote {output}")
    if curve is not None:
        with doing("drawing the curve"):
            facts["curve"] = points = prepared.curve()
            _draw(points, f"{source.name}, {method}", curve)
        tell(f"wrote {curve} and {curve.with_suffix('.csv')}")
    if json:
        print_json(facts)
    else:
        pruned = ", ".join(f"{count:,} {reason}" for reason, count in result.pruned.items() if reason != "kept")
        print_facts(
            {
                "bank": result.bank.name,
                "variance explained": f"{result.explained:.1%} by {keys} keys",
                "filters": f"{len(source):,}, of which {result.pruned['kept']:,} kept; {pruned}",
                "filters by key": ", ".join(f"{count:,}" for count in result.assignment.counts(keys)),
                "sha256": result.bank.sha256,
            }
        )


def _load(name: str, kernel: str | None) -> "Bank":
    """Load a bank's filters of one kernel size; a computed bank is computed at it, 7x7 if none is given."""
    size = parse_size(kernel)
    bank = load_bank(name)
    from masterkey.closed_form.banks import ComputedBank

    if isinstance(bank, ComputedBank):
        return bank.at(size or 7)
    return bank if size is None else bank.select(kernel=size)


def _draw(points: list[tuple[int, float]], title: str, path: Path) -> None:
    import io

    from masterkey.atomic import write_all_atomically
    from masterkey.distill.curve import curve_csv, plot_curve

    picture = io.BytesIO()
    plot_curve({title: points}).savefig(picture, format="png", dpi=150)
    write_all_atomically({path.with_suffix(".csv"): curve_csv(points), path: picture.getvalue()})
