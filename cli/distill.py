"""The command distill: from many filters to a few keys."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from masterkey.errors import MasterkeyError, SaveError
from masterkey.extra import needs
from masterkey.names import BuiltinName, PathName, is_there, load_bank, parse_name

from .options import as_path, parse_size
from .output import Json, doing, print_facts, print_json, tell

if TYPE_CHECKING:
    from masterkey.bank import Bank
    from masterkey.distill import Distilled
    from masterkey.distill.curve import Curve

Method = Literal["greedy", "kmeans", "medoids"]


def distill(
    banks: Annotated[
        list[str], typer.Argument(metavar="BANK...", help="Banks by name or folder; several are joined into one.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", parser=as_path, help="The folder to write the keys to.")
    ],
    keys: Annotated[int, typer.Option(min=1, help="How many keys.")] = 8,
    method: Annotated[Method, typer.Option(help="How they are chosen.")] = "greedy",
    kernel: Annotated[str | None, typer.Option(metavar="K|KHxKW", help="Only filters of this kernel size.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Find the keys from N filters at most; all get one.")
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            parser=as_path,
            help="Draw the error of every number of keys up to 32 (PNG, and CSV beside it).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything that is drawn.")] = 0,
    json: Json = False,
) -> None:
    """Distil banks to a few key filters.

    Every filter f is then nearly a * key + b. Dead and random filters and near duplicates are left out first, and
    counted. The folder is a bank; assignment.csv in it has key, a, b and error of every source filter, curve.png and
    curve.csv the error of 1, 2, 4, 8, 16 and 32 keys. Of filters of several kernel sizes each size is distilled by
    itself, into a folder of its own: DIR/3x3, DIR/5x5, …

    Examples:

    masterkey distill ./mcunet -o ./mcunet-keys --kernel 7

    masterkey distill ./mcunet ./proxyless -o ./keys --keys 16 --method kmeans --sample 10000 --curve curve.png
    """
    if curve is not None and curve.suffix.lower() != ".png":
        raise typer.BadParameter(f"{curve} must end in .png; its figures go beside it as .csv", param_hint="--curve")
    if curve is not None:
        needs("matplotlib.figure")  # before the work: here it was asked for
    from masterkey.distill.curve import EVERY, FEW, is_curve
    from masterkey.folder import CURVE_NAMES, require_replaceable

    source = _load(banks, kernel)
    from masterkey.distill import by_kernel, most_keys

    parts = {f"{kh}x{kw}": part for (kh, kw), part in by_kernel(source).items()}
    several = len(parts) > 1
    folders = [output / size for size in parts] if several else [output]
    sources = {place.resolve() for name in banks if (place := _folder_of(name)) is not None}
    for folder in folders:
        if folder.resolve() in sources:
            raise SaveError(f"{folder} is what is distilled, and would be replaced by its keys; give another folder")
        require_replaceable(folder)
    if keys > (most := max(most_keys(len(part), method) for part in parts.values())):
        raise MasterkeyError(f"{keys} keys were asked for; of {source.name} method {method} can give {most:,} at most")
    if curve is not None:
        _check_place(curve, folders)
    for picture in [*(folder / CURVE_NAMES[0] for folder in folders), *([] if curve is None else [curve])]:
        figures = picture.with_suffix(".csv")
        # a picture says nothing of what it is; one of ours has its figures beside it
        foreign = [path for path in (figures, picture) if is_there(str(path)) and not is_curve(figures)]
        if foreign:
            raise SaveError(f"{foreign[0]} is no curve and would be replaced by one; give another name")
    if several:
        tell(f"{source.name} has filters of {', '.join(parts)}; each size goes into a folder of its own")
    if without := len(source) - sum(map(len, parts.values())):
        tell(f"{without:,} filters of 1x1 are left out: they have no shape")
    found: list[dict[str, Any]] = []
    curves: dict[str, Curve] = {}
    for size, part in parts.items():
        folder = output / size if several else output
        try:
            with doing(f"distilling {part.name}, {size}"):
                result, points = _distil(part, folder, keys, method, seed, sample, FEW if curve is None else EVERY)
        except MasterkeyError as refusal:
            if not several:
                raise
            tell(f"{size}: {refusal}")
            continue
        tell(f"wrote {folder}")
        curves[f"{part.name}{f' {size}' * several}, {method}"] = points
        where = {"kernel": size, "folder": str(folder)} if several else {}
        found.append({**where, **_facts(result, keys), "curve": points})
    if curve is not None and curves:
        _draw(curves, curve)
        tell(f"wrote {curve} and {curve.with_suffix('.csv')}")
    if json:
        print_json(found if several else found[0])
    else:
        for number, facts in enumerate(found):
            typer.echo("\n" * (number > 0), nl=False)
            print_facts(_in_words(facts, keys))
    if len(found) < len(parts):
        tell(f"{len(parts) - len(found)} of {len(parts)} kernel sizes were not distilled")
        raise typer.Exit(1)


def _check_place(curve: Path, folders: Iterable[Path]) -> None:
    """Refuse a curve that would replace what is written beside the keys, or a folder."""
    from masterkey.folder import ASSIGNMENT_NAME, ATLAS_NAME

    taken = {curve.name, curve.with_suffix(".csv").name} & {ASSIGNMENT_NAME, ATLAS_NAME}
    if taken and curve.parent.resolve() in {folder.resolve() for folder in folders}:
        raise SaveError(f"{taken.pop()} in {curve.parent} is the keys' own; give --curve another name")
    if curve.is_dir():
        raise SaveError(f"{curve} is a folder; give --curve the name of a file")


def _folder_of(name: str) -> Path | None:
    """Return the folder that a bank's name means: itself, that of its weights file, or that of what it is made of."""
    from masterkey.format import WEIGHTS_NAME

    meant = parse_name(name)
    if isinstance(meant, BuiltinName):
        return None if meant.of is None else _folder_of(meant.of)
    if not isinstance(meant, PathName):
        return None
    return meant.path.parent if meant.path.name == WEIGHTS_NAME and meant.path.is_file() else meant.path


def _load(names: list[str], kernel: str | None) -> "Bank":
    """Load filters, of one kernel size if that is given; a computed bank is computed at it, 7x7 if none is given."""
    size = parse_size(kernel)
    loaded = [load_bank(name) for name in names]
    from masterkey.bank import join
    from masterkey.late import LateBank

    banks = [
        bank.at(size or 7) if isinstance(bank, LateBank) else bank if size is None else bank.select(kernel=size)
        for bank in loaded
    ]
    return banks[0] if len(banks) == 1 else join(banks)


def _distil(
    bank: "Bank", folder: Path, keys: int, method: Method, seed: int, sample: int | None, counts: Iterable[int]
) -> tuple["Distilled", "Curve"]:
    """Distil filters of one kernel size, write the folder, and return what the curve is drawn of as well."""
    from masterkey.distill import prepare
    from masterkey.folder import CURVE_NAMES

    prepared = prepare(bank, method, seed, sample=sample)
    result = prepared.distilled(keys)
    shares = dict(prepared.curve(count for count in counts if count != keys)) | {keys: result.explained}
    points = sorted(shares.items())
    result.save_pretrained(folder)
    _draw({f"{bank.name}, {method}": points}, folder / CURVE_NAMES[0], asked=False)
    return result, points


def _facts(result: "Distilled", keys: int) -> dict[str, Any]:
    return {
        "bank": result.bank.name,
        "explained": result.explained,
        "explained living": round(result.explained_living, 6),
        "filters": len(result.assignment),
        "pruned": {reason: count for reason, count in result.pruned.items() if reason != "kept"},
        "kept": result.pruned["kept"],
        "filters by key": result.assignment.counts(keys),
        "sha256": result.bank.sha256,
    }


def _in_words(facts: Mapping[str, Any], keys: int) -> dict[str, str | None]:
    pruned = ", ".join(f"{count:,} {reason}" for reason, count in facts["pruned"].items())
    return {
        "bank": facts["bank"],
        "kernel": facts.get("kernel"),
        "variance explained": f"{facts['explained']:.1%} of the filters kept, by {keys} keys; "
        f"{facts['explained living']:.1%} of all that are neither dead nor constant",
        "filters": f"{facts['filters']:,}, of which {facts['kept']:,} kept; {pruned}",
        "filters by key": ", ".join(f"{count:,}" for count in facts["filters by key"]),
        "sha256": facts["sha256"],
    }


def _draw(curves: Mapping[str, "Curve"], path: Path, asked: bool = True) -> None:
    """Write curves as a picture and as CSV beside it; as CSV alone where nothing can be drawn and nobody asked."""
    from masterkey.atomic import write_all_atomically
    from masterkey.distill.curve import curve_csv, plot_curve

    files = {path.with_suffix(".csv"): curve_csv(curves)}
    try:
        picture = io.BytesIO()
        plot_curve(curves).savefig(picture, format="png", dpi=150)
        files[path] = picture.getvalue()
    except MasterkeyError as missing:
        if asked:
            raise
        tell(f"no {path}: {missing}")
    write_all_atomically(files)
