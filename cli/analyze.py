"""The command that analyses banks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from masterkey.errors import MasterkeyError
from masterkey.names import load_bank
from masterkey.rules import KernelRule

from .options import as_path, parse_size, refuse_given
from .output import Json, doing, print_json, print_table, tell

if TYPE_CHECKING:
    from masterkey.analysis.collection import Grouping
    from masterkey.analysis.quality import GateVerdict

BanksArgument = Annotated[
    list[str], typer.Argument(metavar="BANK...", help="Built-in names, banks' folders, or a folder of banks.")
]

# options that say what the report shows, which is written with -o alone
OF_THE_REPORT = ("resize", "how", "by", "epsilon", "renormalise", "families", "keys", "reference")


def analyze(
    context: typer.Context,
    banks: BanksArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", parser=as_path, help="Write CSV, PNG and report.html to this folder."
        ),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(metavar="K|KHxKW", help="With -o: fit all filters to one kernel before they are compared."),
    ] = None,
    how: Annotated[KernelRule, typer.Option(help="With -o: how filters are fitted to --resize.")] = "resample",
    by: Annotated[
        str | None,
        typer.Option(
            metavar="TAG",
            help="With -o: draw distributions, divergence and quality over depth by bank, model, family, task, "
            "dataset, layer or decile (of depth).",
        ),
    ] = None,
    epsilon: Annotated[float, typer.Option(help="With -o: least probability of a bin in the divergence.")] = 1e-12,
    renormalise: Annotated[
        bool, typer.Option(help="With -o: divide by the sum again once epsilon is in place.")
    ] = True,
    families: Annotated[bool, typer.Option(help="With -o: tell families of filters apart.")] = True,
    keys: Annotated[int, typer.Option(min=0, max=50, help="With -o: key filters to find; 0 for none.")] = 8,
    reference: Annotated[
        str | None,
        typer.Option(metavar="BANK", help="With -o: keys to compare those found with, beside scale-space-8."),
    ] = None,
    json: Json = False,
) -> None:
    """Tell how sound banks are, and how alike.

    Prints every layer's sparsity S, variance entropy H, randomness threshold T_H and verdict: good, sparse, low
    diversity, random, or not assessable. With -o it also writes principal components, drift between banks, models,
    families, tasks, data sets and depths, families of filters, the keys that explain them, and an atlas; families and
    keys are sought among 10,000 filters of a kernel at most, drawn at random. collection.csv in a folder of banks says
    which is what. With masterkey[onnx], .onnx files are read as well. Banks that have no kernel in common are not
    compared unless --resize is given.

    Examples:

    masterkey analyze ./mcunet

    masterkey analyze ./mcunet ./proxyless -o report

    masterkey analyze ./mcunet -o report --no-families --keys 16 --reference ./published-keys

    masterkey analyze ./banks -o report --by family --resize 7 --how crop
    """
    size = parse_size(resize, "--resize")
    if size == (1, 1):
        raise typer.BadParameter("filters of 1x1 have no shape to compare", param_hint="--resize")
    tag = _grouping(by)
    if not output:
        refuse_given(context, OF_THE_REPORT, "says what the report shows, and without --output none is written")
    if not resize:
        refuse_given(context, ["how"], "says how filters are fitted to --resize, which is not given")
    refused, nothing_compared = "", False
    with doing(f"analysing {', '.join(banks)}"):
        from masterkey.analysis.collection import open_collection
        from masterkey.analysis.quality import judge, qualities

        collection = open_collection(banks)
        if output:
            from masterkey.analysis.report import write_analysis
            from masterkey.analysis.report_groups import alone, refusal

            files = write_analysis(
                collection,
                output,
                resize=size,
                how=how,
                families=families,
                keys=keys,
                reference=load_bank(reference) if reference else None,
                by=tag,
                epsilon=epsilon,
                renormalise=renormalise,
            )
            if not size:
                read = collection.survey()
                refused, nothing_compared = refusal(read), len(alone(read)) == len(read)
        verdicts = {of.filters.label: judge(qualities(of.sums)) for of in collection.survey()}
    if json:
        print_json({"banks": {name: _facts(of) for name, of in verdicts.items()}, "broken": collection.broken})
    elif verdicts:
        _print(verdicts)
    if output:
        tell(f"wrote {len(files)} files, first of all {files[-1]}")
    if refused and not nothing_compared:
        tell(refused)
    failures = [*collection.broken.values(), *([refused] if nothing_compared and refused else [])]
    if failures:
        others = "; all else is done" if verdicts else ""
        raise MasterkeyError(" | ".join(failures) + others)


def _grouping(by: str | None) -> "Grouping | None":
    if by is None:
        return None
    from masterkey.analysis.collection import Grouping

    for known in get_args(Grouping):
        if by == known:
            return known  # type: ignore[no-any-return]
    raise typer.BadParameter(f"{by!r:.100} is none of {', '.join(get_args(Grouping))}", param_hint="--by")


def _print(verdicts: dict[str, "GateVerdict"]) -> None:
    several = len(verdicts) > 1
    rows = [
        [
            *([layer.bank] if several else []),
            layer.layer,
            f"{layer.kernel[0]}x{layer.kernel[1]}",
            f"{layer.filters:,}",
            f"{layer.sparsity:.3f}",
            f"{layer.entropy:.3f}",
            f"{layer.entropy_about_zero:.3f}",
            f"{layer.threshold:.3f}",
            layer.verdict,
        ]
        for verdict in verdicts.values()
        for layer in verdict.layers
    ]
    print_table(
        [*(["bank"] if several else []), "layer", "kernel", "filters", "S", "H", "H about 0", "T_H", "verdict"], rows
    )
    for name, verdict in verdicts.items():
        tell(f"{name}: {'passed' if verdict.passed else 'refused'}, {verdict.sentence}")


def _facts(verdict: "GateVerdict") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "passed": verdict.passed,
        "sentence": verdict.sentence,
        "layers": [asdict(layer) for layer in verdict.layers],
    }
