"""The transfer matrix: targets down, sources across, as in Tables 4 and 5 of seed 000.

The diagonal holds the accuracy with the network's own filters of the target (selffer) and is coloured by its change
against the original accuracy (scratch). The other cells hold the difference to their row's diagonal, with an arrow
from 0.1 points on, as the figure is shown. The seed's arrows rest on single runs; here an arrow is filled only if the
95 % interval of the paired differences leaves out zero, and outlined otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import BenchmarkError
from .results import SCRATCH, Cell, Results, label
from .student import Sample, summarize
from .table import Column, Figure, Sentence, Table, Value, make_table
from .tables import MODEL, TARGET, paired

GLYPHS = {("up", True): "▲", ("up", False): "△", ("down", True): "▼", ("down", False): "▽"}
REFERENCE, DIAGONAL, TRANSFER = "reference", "selffer", "transfer"


@dataclass(frozen=True)
class Cross:
    """A cell of the matrix, as shown; ``direction`` is up, down or level, ``sure`` if the interval leaves out zero."""

    role: str
    figure: Figure
    direction: str
    sure: bool

    @property
    def glyph(self) -> str:
        """The arrow, or nothing."""
        return GLYPHS.get((self.direction, self.sure), "")


def matrix_table(results: Results) -> Table:
    """Accuracy with every source on every target, and its difference to the row's selffer (selffer's: to scratch).

    Raises:
        BenchmarkError: two arms take their filters from the same source, so they would share a cell.
    """
    rows: list[Sequence[Value]] = []
    for model, target in results.places:
        own, cells = results.own_source(model, target), results.at(model, target)
        taken: dict[str, str] = {}
        for arm, cell in cells.items():
            role = _role(results, cell)
            if role is None:
                continue
            source = _source(cell, role)
            if taken.setdefault(source, arm) != arm:
                raise BenchmarkError(
                    f"a matrix has one arm for each source, but {taken[source]} and {arm} both come from {source}"
                )
            against = {DIAGONAL: SCRATCH, TRANSFER: own}.get(role)
            known = against is not None and against in cells
            difference = paired(results, model, target, arm, str(against)) if known else Sample(0)
            points = None if difference.mean is None else round(round(difference.mean, 6), 1)
            direction = None if points is None else "up" if points > 0 else "down" if points < 0 else "level"
            sure = None if difference.sign is None else difference.sign != 0
            accuracy = summarize(cell.top1).mean
            figures = (accuracy, difference.mean, difference.low, difference.high, direction, sure, difference.n)
            rows.append((model, target, source, arm, role, *figures))
    columns = (
        *(MODEL, TARGET),
        Column("source", "source", key=True),
        Column("arm", "arm"),
        Column("role", "role"),
        Column("top1", "accuracy, %", "accuracy"),
        Column("difference", "points", "difference"),
        Column("low", "95 % from", "difference"),
        Column("high", "to", "difference"),
        Column("direction", "direction"),
        Column("sure", "interval leaves out 0", "flag"),
        Column("pairs", "pairs", "count"),
    )
    note = (
        "Rows are targets, columns sources. Diagonal: accuracy with the network's own filters of the target (selffer: "
        "twice the training), green where it is above the original accuracy, red where below, grey where the same. "
        "Other cells: points above or below the row's diagonal, with an arrow from 0.1 on; a filled arrow ▲▼ where the "
        "paired 95 % interval leaves out zero, an outlined one △▽ where it does not."
    )
    return make_table("matrix", "Transfer matrix", note, columns, rows)


def matrix_columns(results: Results, matrix: Table) -> list[str]:
    """Return the columns: sources in the order of the experiment's arms, then references (scratch, random)."""
    references = [str(row["source"]) for row in matrix.rows if row["role"] == REFERENCE]
    found = [str(row["source"]) for row in matrix.rows if row["role"] != REFERENCE]
    named = [str(arm.get("bank", "")).removeprefix("scratch:") for arm in results.experiment.arms]
    ordered = [
        name for name in (*named, *(label(str(arm["name"])) for arm in results.experiment.arms)) if name in found
    ]
    return list(dict.fromkeys([*ordered, *found, *references]))


def crosses(table: Table, model: str) -> dict[str, dict[str, Cross]]:
    """Return the matrix of a network by target and column."""
    grid: dict[str, dict[str, Cross]] = {}
    for row in table.rows:
        if row["model"] == model:
            shown = "difference" if row["role"] == TRANSFER else "top1"
            figure = Figure(row[shown], "difference" if row["role"] == TRANSFER else "accuracy")
            cross = Cross(str(row["role"]), figure, str(row["direction"]), bool(row["sure"]))
            grid.setdefault(str(row["target"]), {})[str(row["source"])] = cross
    return grid


def triangles_table(results: Results, matrix: Table) -> Table:
    """In how many pairs of source and target the source's filters do better or worse than selffer.

    Below the diagonal the source comes before the target in the experiment's order, which in the seed is by size.
    """
    place = {target: i for i, target in enumerate(results.experiment.targets)}
    rows: list[Sequence[Value]] = []
    for model in results.experiment.models:
        points = _points(matrix, model)
        parts = {
            "all": list(points.values()),
            "below the diagonal": [v for (a, b), v in points.items() if a in place and place[a] < place[b]],
            "above the diagonal": [v for (a, b), v in points.items() if a in place and place[a] > place[b]],
        }
        for part, values in parts.items():
            rows.append((model, part, sum(v > 0 for v in values), sum(v < 0 for v in values), len(values)))
    columns = (
        MODEL,
        Column("part", "part", key=True),
        Column("better", "better", "count"),
        Column("worse", "worse", "count"),
        Column("pairs", "pairs", "count"),
    )
    note = "Pairs of source and target by the sign of the difference to selffer as shown, whatever its interval."
    return make_table("triangles", "Above and below the diagonal", note, columns, rows)


def matrix_sentences(results: Results, matrix: Table, triangles: Table) -> list[Sentence]:
    """Say what the two triangles hold, and which pairs harm each other."""
    sentences: list[Sentence] = []
    for model in results.experiment.models:
        parts = [row for row in triangles.rows if row["model"] == model and row["pairs"]]
        if not parts:
            continue
        counts: list[str | Figure] = [f"{model}: filters of other data do better than selffer in "]
        for row in parts:
            where = "" if row["part"] == "all" else f" {row['part']}"
            counts += [Figure(row["better"], "count"), " of ", Figure(row["pairs"], "count"), f" pairs{where}, "]
        sentences.append([*counts[:-1], str(counts[-1]).replace(", ", ".")])
        points = _points(matrix, model)
        harmful = [
            f"{source} and {target}"
            for (source, target), value in points.items()
            if source < target and value < 0 and points.get((target, source), 0.0) < 0
        ]
        if harmful:
            sentences.append([f"{model}: each does worse with the other's filters: {', '.join(harmful)}."])
    return sentences


def _role(results: Results, cell: Cell) -> str | None:
    """Return what a cell is in the matrix; None for what has no place in it."""
    place = (cell.model, cell.target)
    if cell.arm == results.own_source(*place):
        return DIAGONAL
    if cell.arm in results.candidates(*place):
        return TRANSFER
    return REFERENCE if cell.arm in results.controls(*place) else None


def _source(cell: Cell, role: str) -> str:
    """Return the column of a cell: the data that its filters were learnt on, else the arm's name."""
    if role == DIAGONAL:
        return cell.target
    bank = cell.bank or ""
    return bank.removeprefix("scratch:") if bank.startswith("scratch:") else label(cell.arm)


def _points(matrix: Table, model: str) -> dict[tuple[str, str], float]:
    """Return the differences as shown, by source and target."""
    return {
        (str(row["source"]), str(row["target"])): round(float(row["difference"]), 1)
        for row in matrix.rows
        if row["model"] == model and row["role"] == TRANSFER and row["difference"] is not None
    }
