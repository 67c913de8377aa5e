"""The page as one HTML file that needs nothing else: no script, no request, light and dark, phone and paper."""

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from .content import Column, Picture, Section, Table, Value, plain, shown

# the browser itself then refuses whatever would be fetched from elsewhere
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_PIXELS = 1.5  # of a figure for one of the page
_LEAST = 600
_LONG = 64  # letters beyond which a text may be broken


def page_bytes(title: str, facts: Sequence[str], sections: Sequence[Section]) -> bytes:
    """Return the page: a heading, ``facts`` about what was analysed, and the sections."""
    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
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
    head = "".join(f'<th scope="col" class="{column.kind}">{escape(column.label)}</th>' for column in table.columns)
    body = "".join(
        "<tr>" + "".join(_cell(row[column.key], column) for column in table.columns) + "</tr>" for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    inner = f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if table.folded:
        summary = f"<summary>{escape(table.title)} ({len(table.rows):,} rows)</summary>"
        return f'<details id="{escape(table.name)}">{summary}{note}{inner}</details>'
    return f'<div id="{escape(table.name)}"><h3>{escape(table.title)}</h3>{note}{inner}</div>'


def _cell(value: Value, column: Column) -> str:
    text = escape(shown(value, column.kind))
    if value is not None and not isinstance(value, str):
        text = f'<data value="{plain(value)}">{text}</data>'
    marked = f" {str(value).replace(' ', '-')}" if column.key == "verdict" else ""
    long = " long" if isinstance(value, str) and len(value) > _LONG else ""
    return f'<td class="{column.kind}{marked}{long}">{text}</td>'
