"""Pieces of HTML: figures that carry their full value, sentences, tables."""

from collections.abc import Mapping
from html import escape

from .matrix import REFERENCE, Cross, crosses, matrix_columns
from .results import label
from .section import Section
from .svg import number
from .table import NONE, Figure, Kind, Sentence, Table, Value, plain, show

_ARROWS = {"above": ("▲", "up"), "below": ("▼", "down"), "open": ("", "level"), "no interval": ("", "level")}


def figure(value: Value, kind: Kind) -> str:
    """Return a value as text; a number as a data element that holds all of it."""
    text = escape(show(value, kind))
    if value is None or isinstance(value, str | bool):
        return text
    return f'<data value="{plain(value)}">{text}</data>'


def sentence(parts: Sentence) -> str:
    """Return a sentence."""
    return "".join(figure(part.value, part.kind) if isinstance(part, Figure) else escape(part) for part in parts)


def element(name: str, content: str, **attributes: str) -> str:
    """Return an element; ``class_`` stands for class, ``aria_label`` for aria-label."""
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    given = "".join(f' {names[key]}="{escape(value)}"' for key, value in attributes.items() if value)
    return f"<{name}{given}>{content}</{name}>"


def table(of: Table) -> str:
    """Return a table; it scrolls sideways where it does not fit."""
    columns = of.shown_columns(of.rows)
    kinds = {column.name: "text" if column.kind == "text" else "number" for column in columns}
    head = "".join(element("th", escape(column.label), class_=kinds[column.name], scope="col") for column in columns)
    body = "".join(
        element("tr", "".join(element("td", figure(row[c.name], c.kind), class_=kinds[c.name]) for c in columns))
        for row in of.rows
    )
    return _scrolling(of.title, head, body)


def overview(section: Section, model: str, target: str) -> str:
    """Return the arms of a network and target: accuracy, differences to the controls, seeds, rate, what is missing."""
    controls = section.results.controls(model, target)
    rows = at(section.tables["arms"], model, target)
    against = {(row["arm"], row["control"]): row for row in at(section.tables["differences"], model, target)}
    best = max((number(row, "top1") or 0.0 for row in rows), default=0.0) or 1.0
    labels = ["arm", "accuracy ± sd, %", *(f"against {control}" for control in controls), "seeds", "rate", "tried"]
    head = "".join(
        element("th", escape(label), class_="text" if label == "arm" else "number", scope="col") for label in labels
    )
    body = ""
    for row in rows:
        what = element("small", escape(str(row["what"])))
        lacking = element("small", escape(f"missing: {row['missing']}"), class_="missing") if row["missing"] else ""
        cells = element("th", f"{escape(label(str(row['arm'])))}{what}{lacking}", class_="text", scope="row")
        share = f"--share:{100 * (number(row, 'top1') or 0.0) / best:.1f}%"
        spread = "" if row["deviation"] is None else element("span", f" ± {figure(row['deviation'], 'deviation')}")
        cells += element("td", figure(row["top1"], "accuracy") + spread, class_="number bar", style=share)
        cells += "".join(_against(against.get((row["arm"], control))) for control in controls)
        wanted = len(section.experiment.seeds_for(target))
        cells += element("td", f"{figure(row['seeds'], 'count')} of {wanted}", class_="number")
        cells += element("td", figure(row["lr"], "rate"), class_="number")
        cells += element("td", figure(row["lrs_tried"], "count"), class_="number")
        body += element(
            "tr", cells, class_="control" if section.results.is_control(model, target, str(row["arm"])) else ""
        )
    return _scrolling(f"{section.tables['arms'].title}, {target}, {model}", head, body)


def _against(row: Mapping[str, Value] | None) -> str:
    if row is None:
        return element("td", f"{NONE} {element('span', '', class_='arrow')}", class_="number level")
    arrow, style = _ARROWS.get(str(row["reading"]), ("", "level"))
    shown = figure(row["difference"], "difference")
    return element("td", f"{shown} {element('span', arrow, class_='arrow')}", class_=f"number {style}")


def matrix(section: Section, model: str) -> str:
    """Return the transfer matrix of a network."""
    columns = matrix_columns(section.results, section.tables["matrix"])
    head = element("th", "target \\ source", class_="text", scope="col")
    head += "".join(element("th", escape(column), scope="col") for column in columns)
    body = ""
    for target, row in crosses(section.tables["matrix"], model).items():
        cells = "".join(_cross(row.get(column), column, target) for column in columns)
        body += element("tr", element("th", escape(target), class_="text", scope="row") + cells)
    return _scrolling(f"{section.tables['matrix'].title}, {model}", head, body, "matrix")


def _cross(cross: Cross | None, column: str, target: str) -> str:
    if cross is None:
        return element("td", "")
    direction = "" if cross.role == REFERENCE else cross.direction
    style = " ".join(name for name in (cross.role, direction) if name)
    shown = figure(cross.figure.value, cross.figure.kind) + element("span", cross.glyph, class_="arrow")
    return element("td", shown, class_=style, title=f"{column} to {target}")


def at(of: Table, model: str, target: str) -> list[Mapping[str, Value]]:
    """Return the rows of a table that are about a network and target."""
    return [row for row in of.rows if row["model"] == model and row["target"] == target]


def _scrolling(name: str, head: str, body: str, style: str = "") -> str:
    """Return a table in an area that the keyboard can scroll; ``name`` is what a screen reader calls it."""
    inner = element("thead", element("tr", head)) + element("tbody", body)
    grid = element("table", inner, class_=style)
    return element("div", grid, class_="scroll", tabindex="0", role="region", aria_label=name)
