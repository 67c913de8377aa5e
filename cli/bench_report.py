"""The command ``bench report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .options import as_path
from .output import doing, tell

if TYPE_CHECKING:
    from masterkey.benchmarks.store import ResultStore

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="DATA",
        help="Only this target; also a folder of pictures (./mine) or a Hub repository (org/name). May be repeated.",
    ),
]
Arms = Annotated[list[str] | None, typer.Option("--only", metavar="ARM", help="Only this arm. May be repeated.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", metavar="NAME", help="Only this network. May be repeated.")
]
Seeds = Annotated[
    list[int] | None,
    typer.Option(
        "--seed",
        min=0,
        metavar="N",
        help="This seed instead of the experiment's; it may be none of them. May be repeated.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="For every run instead of the experiment's; these are other runs, with other ids."
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=as_path,
        help="Folder of results; $MASTERKEY_RESULTS or benchmarks/results if not given.",
    ),
]


def open_store(results: Path | None) -> "ResultStore":
    """Return the store of results in a folder, or where they are if none is given."""
    from masterkey.benchmarks.store import ResultStore, default_store

    return default_store() if results is None else ResultStore(results)


def report(
    experiments: Annotated[
        list[str], typer.Argument(metavar="EXPERIMENT…", help="Names, as in masterkey bench list, or TOML files.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", parser=as_path, help="The folder to write to.")
    ],
    size: Annotated[
        Literal["smoke", "small", "paper"], typer.Option(help="Seconds, hours, or as in the paper.")
    ] = "small",
    results: Results = None,
    only: Arms = None,
    target: Targets = None,
    model: Models = None,
    seed: Seeds = None,
    batch_size: BatchSize = None,
) -> None:
    """Write what an experiment's runs say: a page, Markdown, CSV.

    Runs that are missing are shown as missing. The page needs nothing else and can be sent to anybody. What was run
    with --only, --target, --model, --seed or --batch-size is reported with the same; where a control or one of the
    experiment's seeds is left out, nothing is claimed.

    Examples:

    masterkey bench report arms table4 -o report

    masterkey bench report arms --only scratch --only random --only scale-space-8 -o report
    """
    with doing("writing the report"):
        from masterkey.benchmarks.experiment import load_experiment
        from masterkey.benchmarks.report import write_report

        store = open_store(results)
        option = None if results is None else str(results)
        loaded = [load_experiment(name, size) for name in dict.fromkeys(experiments)]
        part = {"arms": only or (), "targets": target or (), "models": model or ()}
        loaded = [experiment.only(**part).with_seeds(seed or ()).with_batch_size(batch_size) for experiment in loaded]
        written = write_report(loaded, store, output, results_option=option)
    for path in written:
        typer.echo(path)
    tell(f"open {written[0]} in a browser")
