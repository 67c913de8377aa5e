"""The page as one HTML file that needs nothing else: no script, no request, light and dark, phone and paper."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from itertools import islice

from ...report_files import files_mark
from .content import SHOWN, Column, Picture, Section, Table, Value, plain, shown

# the browser itself then refuses whatever would be fetched from elsewhere
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_PIXELS = 1.5  # of a figure for one of the page
_LEAST = 600
_LONG = 64  # letters beyond which a text may be broken


def page_bytes(
    title: str, facts: Sequence[str], sections: Sequence[Section], beside: Iterable[str] | None = None
) -> bytes:
    """Return the page: a heading, ``facts`` about what was analysed, and the sections; ``beside`` it lie its files."""
    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    mark = "" if beside is None else files_mark(beside)
    head = (
        f'<meta charset="utf-8">{mark}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style>"
    )
    chips = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    links = "".join(f'<a href="#{escape(section.id)}">{escape(section.title)}</a>' for section in sections)
    body = f'<h1>{escape(title)}</h1><ul class="facts">{chips}</ul><nav>{links}</nav>' + "".join(
        map(_section, sections)
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>{body}</main></body></html>\n'.encode()


def _section(section: Section) -> str:
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in section.sentences)
    content = "".join(_picture(part) if isinstance(part, Picture) else _table(part) for part in section.content)
    return f'<section id="{escape(section.id)}"><h2>{escape(section.title)}</h2>{said}{content}</section>\n'


def _picture(picture: Picture) -> str:
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    pixels = int.from_bytes(picture.png[16:20])  # the width in a PNG's header
    width = pixels if picture.wide else round(pixels / _PIXELS)
    image = f'<img src="{source}" alt="{escape(picture.alt)}" width="{width}">'
    # on a phone a figure shrinks until its letters are just readable, then it scrolls
    least = f' style="--least:{width if picture.wide else min(width, _LEAST)}px"'
    return f'<figure class="scroll" tabindex="0"{least}>{image}</figure>'


def _table(table: Table) -> str:
    name, title, count = escape(table.name), escape(table.title), len(table.rows)
    if not table.on_page:
        note = escape(f"{table.note} {count:,} rows, in {table.name}.csv only.".strip())
        return f'<div id="{name}"><h3>{title}</h3><p class="note">{note}</p></div>'
    head = "".join(f'<th scope="col" class="{column.kind}">{escape(column.label)}</th>' for column in table.columns)
    body = "".join(
        "<tr>" + "".join(_cell(row[column.key], column) for column in table.columns) + "</tr>"
        for row in islice(table.rows, SHOWN)
    )
    notes = [table.note] if table.note else []
    if count > SHOWN:
        notes.append(f"The first {SHOWN:,} of {count:,} rows; all of them are in {table.name}.csv.")
    note = f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""
    inner = f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if table.folded:
        return f'<details id="{name}"><summary>{title} ({count:,} rows)</summary>{note}{inner}</details>'
    return f'<div id="{name}"><h3>{title}</h3>{note}{inner}</div>'


def _cell(value: Value, column: Column) -> str:
    text = escape(shown(value, column.kind))
    if value is not None and not isinstance(value, str):
        text = f'<data value="{plain(value)}">{text}</data>'
    marked = f" {str(value).replace(' ', '-')}" if column.key == "verdict" else ""
    long = " long" if isinstance(value, str) and len(value) > _LONG else ""
    return f'<td class="{column.kind}{marked}{long}">{text}</td>'
