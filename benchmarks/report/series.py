"""Accuracy against how many layers hold the bank (AnB), and how much accuracy is retained (Figures 3 to 6)."""

from collections.abc import Sequence

from .results import SCRATCH, Results
from .student import Sample, summarize
from .table import Column, Table, Value, make_table
from .tables import MODEL, TARGET


def place_on_axis(arm: str) -> tuple[str, float] | None:
    """Return series and n of an arm named ``series/n``, None if it is named otherwise."""
    series, _, last = arm.rpartition("/")
    try:
        return (series, float(last)) if series else None
    except ValueError:
        return None


def series_table(results: Results) -> Table:
    """Accuracy by series and n; arms without an n (scratch, selffer) are horizontal lines, their n missing.

    ``relative`` is in percent of scratch's accuracy with the same seed, as Figure 3 has it ("relative accuracy to base
    models"); None without scratch.
    """
    rows: list[Sequence[Value]] = []
    for model, target in results.places:
        for arm, cell in results.at(model, target).items():
            sample, share = summarize(cell.top1), _shares(results, model, target, arm)
            series, n = place_on_axis(arm) or (arm, None)
            figures = (sample.mean, sample.deviation, sample.n, share.mean, share.deviation)
            rows.append((model, target, series, n, *figures))
    columns = (
        *(MODEL, TARGET),
        Column("series", "series", key=True),
        Column("n", "n", "rate", key=True),
        Column("top1", "accuracy, %", "accuracy"),
        Column("deviation", "± sd", "deviation"),
        Column("seeds", "seeds", "count"),
        Column("relative", "% of scratch", "accuracy"),
        Column("relative_deviation", "± sd of it", "deviation"),
    )
    note = (
        "Mean accuracy over seeds against n, and the same in percent of scratch's with the same seed; bars of one "
        "sample deviation; a negative n counts from the last layer. Horizontal lines: arms that have no n."
    )
    return make_table("series", "Accuracy against n", note, columns, rows)


def retention_table(results: Results) -> Table:
    """Accuracy of every arm as a share of scratch's, paired by seed."""
    rows: list[Sequence[Value]] = []
    for model, target in results.places:
        for arm in results.at(model, target):
            if arm == SCRATCH:
                continue
            sample = _shares(results, model, target, arm)
            rows.append((model, target, arm, sample.mean, sample.deviation, sample.low, sample.high, sample.n))
    columns = (
        *(MODEL, TARGET),
        Column("arm", "arm", key=True),
        Column("retention", "retained, %", "accuracy"),
        Column("deviation", "± sd", "deviation"),
        Column("low", "95 % from", "accuracy"),
        Column("high", "to", "accuracy"),
        Column("pairs", "pairs", "count"),
    )
    note = "Accuracy in percent of scratch's with the same seed: mean, and bars of one sample deviation."
    return make_table("retention", "Accuracy retained", note, columns, rows)


def _shares(results: Results, model: str, target: str, arm: str) -> Sample:
    """Summarise an arm's accuracy in percent of scratch's, over the seeds that both have."""
    scratch = results.cells.get((model, target, SCRATCH))
    whole = {seed: run.top1 for seed, run in scratch.runs.items() if run.top1 > 0} if scratch else {}
    runs = results.cells[model, target, arm].runs
    return summarize([100 * run.top1 / whole[seed] for seed, run in runs.items() if seed in whole])
