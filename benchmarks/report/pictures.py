"""What the figures are of: how many pictures are learnt from, and how many are judged."""

from collections.abc import Sequence

from .results import Results
from .table import Column, Table, Value, make_table


def pictures_table(results: Results) -> Table:
    """Pictures and classes of every target; of one on which runs had different ones, a row for each."""
    rows: dict[Sequence[Value], None] = {}
    for cell in results.cells.values():
        for run in cell.runs.values():
            rows[cell.target, run.pixels, run.classes, run.learnt, run.judged] = None
    columns = (
        Column("target", "target", key=True),
        Column("pixels", "pixels", "count"),
        Column("classes", "classes", "count"),
        Column("learnt", "pictures learnt from", "count"),
        Column("judged", "pictures judged", "count"),
    )
    note = f"Pictures of the {results.part} part are judged; one of N moves an accuracy by 100/N points."
    return make_table("pictures", "Pictures", note, columns, list(rows))
