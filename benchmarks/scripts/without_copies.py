"""What arms gain over their controls on all test pictures, and on those without a near copy in what is learnt from.

    python -m masterkey.benchmarks.scripts.without_copies across:flowers17-128px arms:pets-128px

A picture that the split left on both sides can be got right by memory (``near_copies``). Of the experiments' finished
runs those count that recorded their mistakes; the data sets must be at hand.
"""

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ..config import BenchmarkError, DataConfig, run_config
from ..data import load_data
from ..experiment import Experiment, load_experiment
from ..near_copies import near_copies
from ..report.results import Results, Run, collect
from ..report.table import show
from ..report.tables import arms_table, differences_table
from ..store import ResultStore, default_store
from .record import arguments, record

_PLACE, _FIGURES = ("model", "target", "arm"), ("difference", "low", "high")


def that_recorded_mistakes(results: Results, store: ResultStore) -> Results:
    """Leave out the runs of before mistakes were recorded."""
    return _with_runs(results, lambda run: run if "mistakes" in _metrics(run, store) else None)


def without_copies(results: Results, store: ResultStore) -> Results:
    """Return results whose accuracies are of the pictures without a near copy; every run must have its mistakes."""

    @cache
    def copied(data: DataConfig) -> frozenset[int]:
        return frozenset(row for row, _, _ in near_copies(load_data(data)))

    def judged_on_the_rest(run: Run) -> Run:
        metrics = _metrics(run, store)
        copies = copied(run_config(metrics["config"]).data)
        pictures = metrics["evaluated_pictures"] - len(copies)
        wrong = sum(row not in copies for row, _ in metrics["mistakes"])
        return replace(run, top1=100 * (pictures - wrong) / pictures)

    return _with_runs(results, judged_on_the_rest)


def compare(experiment: Experiment, store: ResultStore) -> list[dict[str, Any]]:
    """Return each arm against each control: ``top1``, ``difference``, ``low`` and ``high``, with and without copies.

    Raises:
        BenchmarkError: no finished run recorded its mistakes; a data set is not here.
    """
    everything = that_recorded_mistakes(collect(experiment, store), store)
    if not any(cell.runs for cell in everything.cells.values()):
        raise BenchmarkError(f"no finished run of {experiment.name} at size {experiment.size} recorded its mistakes")
    both = [everything, without_copies(everything, store)]
    means = [{tuple(row[key] for key in _PLACE): row["top1"] for row in arms_table(part).rows} for part in both]
    found = []
    for rows in zip(*(differences_table(part).rows for part in both), strict=True):
        if rows[0]["pairs"]:
            key = {"experiment": experiment.name, **{name: rows[0][name] for name in (*_PLACE, "control", "pairs")}}
            top1 = [mean[tuple(key[name] for name in _PLACE)] for mean in means]
            found.append({**key, "top1": top1, **{name: [row[name] for row in rows] for name in _FIGURES}})
    return found


def _metrics(run: Run, store: ResultStore) -> Mapping[str, Any]:
    result = store.read(run.id)
    assert result is not None  # it was collected from there
    metrics: Mapping[str, Any] = result["metrics"]
    return metrics


def _with_runs(results: Results, change: Callable[[Run], Run | None]) -> Results:
    """Return results with every run changed, or left out where ``change`` gives None."""
    cells = {}
    for place, cell in results.cells.items():
        changed = {seed: change(run) for seed, run in cell.runs.items()}
        cells[place] = replace(cell, runs={seed: run for seed, run in changed.items() if run is not None})
    return replace(results, cells=cells)


def main() -> None:
    """Compare, print and record."""
    parser = arguments(__doc__, "without_copies.json")
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT[:TARGET]")
    parser.add_argument("--size", choices=("smoke", "small", "paper"), default="small")
    options = parser.parse_args()
    rows = []
    for experiment, _, target in (name.partition(":") for name in options.experiments):
        part = load_experiment(experiment, options.size).only(targets=[target] if target else [])
        rows += compare(part, default_store())
    for row in rows:
        shown = [
            f"{show(row['top1'][i], 'accuracy')} %, {show(row['difference'][i], 'difference')} "
            f"({show(row['low'][i], 'difference')} to {show(row['high'][i], 'difference')})"
            for i in range(2)
        ]
        place = " ".join(row[key] for key in ("experiment", *_PLACE))
        print(f"{place} against {row['control']}, {row['pairs']} seeds: {shown[0]}; without near copies {shown[1]}")
    result = {
        "command": f"python -m masterkey.benchmarks.scripts.without_copies {shlex.join(sys.argv[1:])}",
        "rows": rows,
    }
    record(options.output, result)


if __name__ == "__main__":
    main()
