"""Commands on experiments: bench list, data, run, show, and report."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .bench_report import Arms, BatchSize, Models, Results, Seeds, Targets, open_store, report
from .output import Json, print_facts, print_json, print_table, tell

if TYPE_CHECKING:
    from masterkey.benchmarks.dry_run import Built
    from masterkey.benchmarks.experiment import Experiment
    from masterkey.benchmarks.store import ResultStore

app = typer.Typer(help="Experiments: what a bank is worth, against every control.", no_args_is_help=True)


@app.command("list")
def list_(
    experiments: Annotated[
        list[str] | None, typer.Argument(metavar="EXPERIMENT…", help="Names or TOML files; all that are built in.")
    ] = None,
    results: Results = None,
    target: Targets = None,
    json: Json = False,
) -> None:
    """List the experiments and how much of each is done.

    Examples:

    masterkey bench list

    masterkey bench list own-pictures --target ./my-pictures

    masterkey bench list ./my-experiment.toml
    """
    from masterkey.benchmarks.overview import list_experiments

    rows = list_experiments(open_store(results), experiments or (), target or ())
    if json:
        print_json([row.to_dict() for row in rows])
    else:
        sizes = list(dict.fromkeys(size for row in rows for size in row.runs))
        counts = [[row.runs.get(size) for size in sizes] for row in rows]
        print_table(
            ["experiment", *sizes, "title"],
            [
                [row.name, *(f"{count.finished}/{count.total}" if count else "-" for count in line), row.title]
                for row, line in zip(rows, counts, strict=True)
            ],
        )


@app.command("data")
def data(json: Json = False) -> None:
    """List the data sets of the experiments, with their splits and places.

    Figures of the Hub's sets are those of their publications; a folder's are known once it was used.

    Example: masterkey bench data
    """
    from masterkey.benchmarks.data_list import list_data

    rows = list_data()
    if json:
        print_json([row.to_dict() for row in rows])
    else:
        figures = [[_shown(figure) for figure in (row.classes, row.train, row.test)] for row in rows]
        print_table(
            ["data set", "classes", "train", "test", "place"],
            [[row.name, *shown, row.place] for row, shown in zip(rows, figures, strict=True)],
        )


@app.command("run")
def run(
    experiments: Annotated[
        list[str],
        typer.Argument(metavar="EXPERIMENT…", help="Names, as in bench list, or TOML files of your own; one by one."),
    ],
    size: Annotated[Literal["smoke", "small", "paper"], typer.Option(help="Seconds, hours, or as in the paper.")],
    results: Results = None,
    only: Arms = None,
    target: Targets = None,
    model: Models = None,
    seed: Seeds = None,
    batch_size: BatchSize = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, each in a process of its own.")] = 1,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads of every run; they decide the last bits of its figures.")
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Do it on this Ray cluster (auto, HOST:PORT, ray://…).")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0.0, help="Share of a GPU for a run on Ray; 1 if --device is one.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed earlier.")] = False,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out pictures that cannot be decoded; the result names them.")
    ] = False,
    checkpoint_every: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Time of a run from one checkpoint to the next.")
    ] = 120.0,
    dry: Annotated[bool, typer.Option("--dry-run", help="Build models, plans and first batches; train none.")] = False,
    json: Json = False,
) -> None:
    """Do what is missing of experiments.

    The same command goes on where it was stopped, whatever stopped it. A run that several experiments ask for is done
    once. Exit code 1 if a run failed.

    Examples:

    masterkey bench run arms --size smoke

    masterkey bench run arms --size small --only scratch --only random --target pets

    masterkey bench run own-pictures --size small --target ./my-pictures --seed 0

    masterkey bench run ./my-experiment.toml --size small

    masterkey bench run sources arms table1 --size small --device cuda --jobs 4

    masterkey bench run arms --size paper --dry-run
    """
    from masterkey.benchmarks.experiment import load_experiment

    if ray is not None and jobs > 1:
        raise typer.BadParameter("a Ray cluster takes as many runs as it has CPUs for; leave --jobs out")
    if gpus is not None and ray is None:
        raise typer.BadParameter("shares of a GPU are dealt out by Ray only", param_hint="--gpus")
    if ray is not None and ":" in device:
        raise typer.BadParameter("Ray shows every run a GPU of its own; say --device cuda", param_hint="--device")
    part = {"arms": only or (), "targets": target or (), "models": model or ()}
    names = list(dict.fromkeys(experiments))
    whole = [load_experiment(name, size) for name in names]
    loaded = [experiment.only(**part).with_seeds(seed or ()).with_batch_size(batch_size) for experiment in whole]
    store = open_store(results)
    if dry:
        _dry_run(dict(zip(names, loaded, strict=True)), store, skip_corrupt, json)
        return
    from masterkey.benchmarks.preflight import check_experiment
    from masterkey.benchmarks.progress import Display
    from masterkey.benchmarks.sweep import run_sweep

    remarks = [
        remark
        for experiment in loaded  # all before the first run
        for remark in check_experiment(experiment, store, skip_corrupt=skip_corrupt)
    ]
    for remark in dict.fromkeys(remarks):
        tell(remark)
    retry_before = time.time() if retry_failed else None  # one for all: a run that several ask for is tried once
    summaries = {}
    try:
        for name, experiment in zip(names, loaded, strict=True):
            with Display() as display:
                summary = run_sweep(
                    experiment,
                    store,
                    jobs=jobs,
                    threads=threads,
                    device=device,
                    ray=ray,
                    gpus=gpus if gpus is not None else float(device != "cpu"),
                    retry_before=retry_before,
                    skip_corrupt=skip_corrupt,
                    checkpoint_every=checkpoint_every,
                    on_progress=display,
                )
            summaries[name] = summary
            tell(f"{name}: {summary}" if len(loaded) > 1 else str(summary))
            for message in dict.fromkeys(summary.failed.values()):  # many runs may fail in one way
                runs = [run_id for run_id, said in summary.failed.items() if said == message]
                tell(f"failed {', '.join(runs)}: {' '.join(message.split())}")
    except KeyboardInterrupt:
        tell("stopped; the same command goes on from the finished runs and the last checkpoints")
        raise
    finally:
        if json and summaries:  # also of those before the one that was stopped
            said = {name: summary.to_dict() for name, summary in summaries.items()}
            print_json(said if len(loaded) > 1 else said[names[0]])
    if any(summary.failed for summary in summaries.values()):
        raise typer.Exit(1)


app.command("report")(report)


@app.command("show")
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or the beginning of it.")],
    results: Results = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Say, too, whether this TOML file asks for the run. May be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Show a run's facts and learning curve.

    Example: masterkey bench show 3f2a
    """
    from masterkey.benchmarks.overview import askers, describe_run, find_run

    store = open_store(results)
    result = find_run(store, run)
    if json:
        print_json(result)
        return
    metrics = result.get("metrics", result)
    print_facts(describe_run(result, askers(store, metrics["id"], experiment or ())))
    curve = metrics.get("curve", [])
    if curve:
        typer.echo()
        columns = ["epoch", "lr", "train_loss", "loss", "top1"]
        print_table(columns, [[_shown(epoch[column]) for column in columns] for epoch in curve])


def _dry_run(experiments: Mapping[str, "Experiment"], store: "ResultStore", skip_corrupt: bool, json: bool) -> None:
    from masterkey.benchmarks.dry_run import dry_run

    rows = {
        name: dry_run(
            experiment,
            store,
            skip_corrupt=skip_corrupt,
            on_built=lambda row: tell(f"built {row.data} {row.model} {row.arm}"),
        )
        for name, experiment in experiments.items()
    }
    several = len(rows) > 1
    plain = {name: [row.to_dict() for row in each] for name, each in rows.items()}
    if json:
        print_json(plain if several else next(iter(plain.values())))
    else:
        print_table(
            [*["experiment"] * several, "data", "model", "arm", "classes", "learning", "filled", "batch", "remarks"],
            [[*[name] * several, *_cells(row)] for name, each in rows.items() for row in each],
        )
    problems = [row.problem for each in rows.values() for row in each]
    if refused := sum(problem is not None for problem in problems):
        tell(f"{refused} of {len(problems)} cannot be built")
        raise typer.Exit(1)


def _cells(row: "Built") -> list[str]:
    return [
        row.data,
        row.model,
        row.arm,
        _shown(row.classes),
        _shown(row.learning),
        "" if row.filled is None else f"{row.filled} of {row.layers}",
        "x".join(map(str, row.batch or ())),
        "; ".join([*row.notes, *([f"REFUSED: {row.problem}"] if row.problem else [])]),
    ]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
