"""The report as Markdown: what is said, and the tables."""

from collections.abc import Mapping, Sequence

from .matrix import DIAGONAL, Cross, crosses, matrix_columns
from .section import Section, plain_text
from .table import NONE, Table, Value, show

_SHOWN = (
    "verdicts",
    "triangles",
    "triples",
    "retention",
    "series",
    "arms",
    "differences",
    "cost",
    "pictures",
    "machines",
)


def write_markdown(sections: Sequence[Section]) -> bytes:
    """Return the report of several experiments."""
    return "\n".join(line for section in sections for line in _section(section)).encode()


def _section(section: Section) -> list[str]:
    experiment = section.experiment
    lines = [f"# {_escape(experiment.title)}", "", f"`{experiment.name}`, size {experiment.size}.", ""]
    lines += [f"- {_escape(plain_text(sentence))}" for sentence in section.sentences]
    lines += ["", *([f"> {_escape(' '.join(experiment.shows.split()))}", ""] if experiment.shows.strip() else [])]
    lines += ["```sh", section.run_command]
    lines += [section.report_command, "```", ""]
    if "matrix" in section.tables:
        lines += _matrix(section)
    for name in _SHOWN:
        if name in section.tables and section.tables[name].rows:
            table = section.tables[name]
            lines += [f"## {table.title}", "", table.note, "", *_table(table, table.rows), ""]
            lines += [f"`{section.command(name)}`", ""]
    unfinished = [row for row in section.tables["runs"].rows if row["status"] != "done"]
    if unfinished:
        lines += ["## Runs that are missing", "", *_table(section.tables["runs"], unfinished), ""]
    return lines


def _matrix(section: Section) -> list[str]:
    table = section.tables["matrix"]
    lines = [f"## {table.title}", "", table.note, ""]
    columns = matrix_columns(section.results, table)
    for model in section.experiment.models:
        lines += [f"{model}:", ""] if len(section.experiment.models) > 1 else []
        lines += _rows(["target \\ source", *columns], [True] + [False] * len(columns))
        for target, row in crosses(table, model).items():
            cells = [_cross(row.get(column)) for column in columns]
            lines.append(f"| {' | '.join([_escape(target), *cells])} |")
        lines.append("")
    return [*lines, f"`{section.command('matrix')}`", ""]


def _cross(cross: Cross | None) -> str:
    if cross is None:
        return ""
    text = f"{cross.figure} {cross.glyph}".strip()
    return f"**{text}**" if cross.role == DIAGONAL and cross.figure.value is not None else text


def _table(table: Table, rows: Sequence[Mapping[str, Value]]) -> list[str]:
    columns = table.shown_columns(rows)
    lines = _rows([column.label for column in columns], [column.kind in ("text", "flag") for column in columns])
    for row in rows:
        lines.append(f"| {' | '.join(_escape(show(row[column.name], column.kind)) for column in columns)} |")
    return lines


def _rows(labels: Sequence[str], left: Sequence[bool]) -> list[str]:
    header = f"| {' | '.join(_escape(label) for label in labels)} |"
    return [header, f"|{'|'.join('---' if text else '---:' for text in left)}|"]


def _escape(text: str) -> str:
    """Keep a text in its cell and out of the markup."""
    for character in "\\`*_<|&~$":
        text = text.replace(character, f"\\{character}")
    # a bracket by itself stays readable; a link needs both
    return " ".join(text.replace("](", "]\\(").split()) or NONE
