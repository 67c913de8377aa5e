"""Whose filters do better in a third data set: those of the larger source or of the smaller one.

The asymmetry of arXiv:2412.16751 (4.3, Table 4: 17 of 21 pairs below the diagonal), without the diagonal: two sources A
and B, and a target T that is neither, so that no filter has seen the target. A learnt from more pictures than B, by the
experiment's ``by_size``.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb

from .matrix import TRANSFER, as_shown, size_rank
from .results import Results
from .table import Column, Figure, Sentence, Table, Value, make_table
from .tables import MODEL, READINGS, TARGET, paired

_THREE_QUARTERS = 0.75  # what the seed's asymmetry is to be confirmed by


def triples_table(results: Results, matrix: Table) -> Table:
    """Every pair of sources in every third target: accuracy with the larger source's filters minus the smaller's."""
    rank = size_rank(results)
    rows: list[Sequence[Value]] = []
    for model, target in results.places:
        arms = {
            str(row["source"]): str(row["arm"])
            for row in matrix.rows
            if (row["model"], row["target"], row["role"]) == (model, target, TRANSFER)
            and not results.cells[model, target, str(row["arm"])].source_has_stalled
        }
        for larger, smaller in combinations([source for source in rank if source in arms and source != target], 2):
            if rank[larger] == rank[smaller]:
                continue
            sample = paired(results, model, target, arms[larger], arms[smaller])
            if sample.mean is None:
                continue
            points = as_shown(sample.mean)
            better = "larger" if points > 0 else "smaller" if points < 0 else "tie"
            reading = READINGS[sample.sign]
            rows.append(
                (model, target, larger, smaller, sample.mean, sample.low, sample.high, sample.n, better, reading)
            )
    columns = (
        *(MODEL, TARGET),
        Column("larger", "larger source", key=True),
        Column("smaller", "smaller source", key=True),
        Column("difference", "points", "difference"),
        Column("low", "95 % from", "difference"),
        Column("high", "to", "difference"),
        Column("pairs", "pairs", "count"),
        Column("better", "better"),
        Column("reading", "reading"),
    )
    note = (
        "Accuracy with the filters of the larger source minus that with the smaller one's, on a target that is neither "
        "of them, paired by seed; a tie is a difference shown as 0.0. Triples share their runs, so they are not "
        "independent of each other. A source that did not learn is in none."
    )
    return make_table("triples", "Larger against smaller sources", note, columns, rows)


def triples_sentences(results: Results, triples: Table) -> list[Sentence]:
    """Say in how many triples the larger source's filters do better, ties left out, and how often a coin does.

    And of how many, as far as they could not be compared, or not with all seeds.
    """
    said: list[Sentence] = []
    for model in results.experiment.models:
        decided = [row for row in triples.rows if row["model"] == model and row["better"] != "tie"]
        if not decided:
            continue
        better = sum(row["better"] == "larger" for row in decided)
        by_chance = sum(comb(len(decided), k) for k in range(better, len(decided) + 1)) / 2 ** len(decided)
        seeds = results.experiment.seeds_for
        lacking = [row for row in decided if row["pairs"] != len(seeds(str(row["target"])))]
        planned = _planned(results, model)
        rest = len([row for row in triples.rows if row["model"] == model])
        gap = f"; {planned - rest} of {planned} are left out, as runs are missing or a source did not learn"
        short = gap if rest < planned else ""
        short += f"; {len(lacking)} of those that are counted lack seeds" if lacking else ""
        verdict = "at least" if better >= _THREE_QUARTERS * len(decided) else "fewer than"
        said.append(
            [
                f"{model}: of two other data sets, the filters of the larger one do better in ",
                Figure(better, "count"),
                " of ",
                Figure(len(decided), "count"),
                f" triples, {verdict} three quarters; a fair coin gives as many or more with probability "
                f"{by_chance:.2f}{short}.",
            ]
        )
    return said


def _planned(results: Results, model: str) -> int:
    """Return how many triples the experiment has on a network, with runs or without."""
    rank, count = size_rank(results), 0
    for place in results.places:
        if place[0] == model:
            sources = {
                (results.cells[(*place, arm)].bank or "").partition("scratch:")[2] for arm in results.candidates(*place)
            }
            taken = [source for source in rank if source in sources and source != place[1]]
            count += sum(rank[one] != rank[other] for one, other in combinations(taken, 2))
    return count
