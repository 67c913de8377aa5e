"""The transfer matrix: targets down, sources across, as in Tables 4 and 5 of arXiv:2412.16751.

The diagonal holds the accuracy with the network's own filters of the target (selffer) and is coloured by its change
against the original accuracy (scratch). The other cells hold the difference to their row's reference, with an arrow
from 0.1 points on, as the figure is shown. The reference is the experiment's ``reference``: ``selffer``, the diagonal,
as in Table 4, or ``scratch``, as in Table 5, whose arrows are against the original models. The seed's arrows rest on
single runs; here an arrow is filled only if the 95 % interval of the paired differences leaves out zero, and outlined
otherwise.

Rows and columns are in the order of the experiment's ``by_size``, the data sets by size of train, the largest first;
without it, of its targets. So below the diagonal the source is larger than the target. What ``by_size`` lacks (a target
of one's own) comes last, and is in neither triangle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import BenchmarkError
from .results import SCRATCH, SELFFER, Cell, Results, label
from .student import Sample, summarize
from .table import Column, Figure, Sentence, Table, Value, make_table
from .tables import MODEL, TARGET, paired

GLYPHS = {("up", True): "▲", ("up", False): "△", ("down", True): "▼", ("down", False): "▽"}
REFERENCE, DIAGONAL, TRANSFER = "reference", "selffer", "transfer"
_REFERENCES = {SELFFER: "the row's diagonal", SCRATCH: "the original accuracy (scratch)"}


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
    """Accuracy with every source on every target, and its difference to the row's reference (selffer's: to scratch).

    Raises:
        BenchmarkError: two arms take their filters from the same source, so they would share a cell; an unknown
            ``reference``.
    """
    reference, order = reference_of(results), [*size_rank(results), *results.experiment.targets]
    rows: list[Sequence[Value]] = []
    # the sort is stable, so networks keep their order
    for model, target in sorted(results.places, key=lambda place: order.index(place[1])):
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
            against = {DIAGONAL: SCRATCH, TRANSFER: own if reference == SELFFER else SCRATCH}.get(role)
            known = against is not None and against in cells
            difference = paired(results, model, target, arm, str(against)) if known else Sample(0)
            points = None if difference.mean is None else as_shown(difference.mean)
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
        "Rows are targets, columns sources, the largest data sets first. Diagonal: accuracy with the network's own "
        "filters of the target (selffer: twice the training), green where it is above the original accuracy, red where "
        f"below, grey where the same. Other cells: points above or below {_REFERENCES[reference]}, with an arrow from "
        "0.1 on; a filled arrow ▲▼ where the paired 95 % interval leaves out zero, an outlined one △▽ where it does "
        "not."
    )
    return make_table("matrix", "Transfer matrix", note, columns, rows)


def as_shown(points: float) -> float:
    """Round a difference as it is shown, so that what is shown as 0.0 has no sign; first to what a mean is good for."""
    return round(round(points, 6), 1)


def reference_of(results: Results) -> str:
    """Return what the transfers of a row are compared with: ``selffer`` or ``scratch``."""
    return str(results.experiment.raw.get("reference", SELFFER))


def size_rank(results: Results) -> dict[str, int]:
    """Return each data set's place by size of train, in order, 0 for the largest; those of one size share it."""
    return {name: place for place, group in enumerate(results.experiment.by_size) for name in group}


def matrix_columns(results: Results, matrix: Table) -> list[str]:
    """Return the columns: sources by size, those of unknown size in the order of arms, references (scratch, random)."""
    references = [str(row["source"]) for row in matrix.rows if row["role"] == REFERENCE]
    found = [str(row["source"]) for row in matrix.rows if row["role"] != REFERENCE]
    named = [str(arm.get("bank", "")).removeprefix("scratch:") for arm in results.experiment.arms]
    arms = [label(str(arm["name"])) for arm in results.experiment.arms]
    ordered = [name for name in (*size_rank(results), *named, *arms) if name in found]
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
    """In how many pairs of source and target the source's filters do better or worse than the row's reference.

    Below the diagonal the source is larger than the target; a source need not be a target for that. A pair with one of
    unknown size, or of one size, is counted in ``all`` alone.
    """
    place = size_rank(results)
    rows: list[Sequence[Value]] = []
    for model in results.experiment.models:
        points = _points(results, matrix, model)
        ranked = {pair: value for pair, value in points.items() if {*pair} <= place.keys()}
        parts = {
            "all": list(points.values()),
            "below the diagonal": [v for (a, b), v in ranked.items() if place[a] < place[b]],
            "above the diagonal": [v for (a, b), v in ranked.items() if place[a] > place[b]],
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
    note = (
        f"Pairs of source and target by the sign of the difference to {reference_of(results)} as shown, whatever its "
        "interval. Below the diagonal the source is the larger data set, above it the target."
    )
    return make_table("triangles", "Above and below the diagonal", note, columns, rows)


def matrix_sentences(results: Results, matrix: Table, triangles: Table) -> list[Sentence]:
    """Say what the two triangles hold, and which pairs harm each other."""
    sentences: list[Sentence] = []
    for model in results.experiment.models:
        parts = [row for row in triangles.rows if row["model"] == model and row["pairs"]]
        if not parts:
            continue
        reference = reference_of(results)
        counts: list[str | Figure] = [f"{model}: filters of other data do better than {reference} in "]
        for row in parts:
            where = "" if row["part"] == "all" else f" {row['part']}"
            counts += [Figure(row["better"], "count"), " of ", Figure(row["pairs"], "count"), f" pairs{where}, "]
        sentences.append([*counts[:-1], str(counts[-1]).replace(", ", ".")])
        points = _points(results, matrix, model)
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
    return REFERENCE if results.is_control(*place, cell.arm) else None


def _source(cell: Cell, role: str) -> str:
    """Return the column of a cell: the data that its filters were learnt on, else the arm's name."""
    if role == DIAGONAL:
        return cell.target
    return (cell.bank or "").removeprefix("scratch:") if _is_learnt(cell) else label(cell.arm)


def _points(results: Results, matrix: Table, model: str) -> dict[tuple[str, str], float]:
    """Return the differences as shown, by source and target; of filters that were learnt from other data alone."""
    return {
        (str(row["source"]), str(row["target"])): round(float(row["difference"]), 1)
        for row in matrix.rows
        if row["model"] == model and row["role"] == TRANSFER and row["difference"] is not None
        if _is_learnt(results.cells[model, str(row["target"]), str(row["arm"])])
    }


def _is_learnt(cell: Cell) -> bool:
    return (cell.bank or "").startswith("scratch:")
