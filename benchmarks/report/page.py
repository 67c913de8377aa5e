"""The report as one HTML page that needs nothing else: no script, no request, light and dark, phone and paper."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from masterkey.metadata import canonical_json
from masterkey.report_files import files_mark

from .blocks import accuracies, block, card, curves, folded, forests, main_figures
from .html import element, sentence, table
from .section import Section

# the browser itself then refuses whatever would be fetched from elsewhere
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_page(sections: Sequence[Section], beside: Iterable[str] | None = None) -> bytes:
    """Return the page with the report of several experiments; ``beside`` it lie its other files."""
    style = "".join((files(__package__) / name).read_text(encoding="utf-8") for name in ("figure.css", "page.css"))
    title = sections[0].experiment.title if len(sections) == 1 else "What the banks are worth"
    mark = "" if beside is None else files_mark(beside)
    head = (
        f'<meta charset="utf-8">{mark}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"{element('title', escape(title))}{element('style', style)}"
    )
    links = "".join(
        element("a", escape(section.experiment.name), href=f"#{section.anchor('')}") for section in sections
    )
    nav = element("nav", links) if len(sections) > 1 else ""
    # a data block, which is never run; < is spelt so that no text in it can end it
    data = canonical_json(data_of(sections)).replace("<", "\\u003c")
    body = (
        element("main", nav + "".join(map(_section, sections)))
        + f'<script type="application/json" id="data">{data}</script>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'.encode()


def data_of(sections: Sequence[Section]) -> list[dict[str, object]]:
    """Return every table of the report as plain data, as the page carries it."""
    return [
        {
            "experiment": section.experiment.name,
            "size": section.experiment.size,
            "tables": {name: [dict(row) for row in of.rows] for name, of in section.tables.items()},
        }
        for section in sections
    ]


def _section(section: Section) -> str:
    experiment, runs = section.experiment, section.results.listed
    done = sum(run.status == "done" for run in runs)
    facts = [f"size {experiment.size}", *experiment.models, *experiment.targets]
    seeds = sorted({len(experiment.seeds_for(target)) for target in experiment.targets})
    facts.append(f"{' or '.join(map(str, seeds))} seed{'s' if seeds[-1] > 1 else ''}")
    facts.append(f"{section.results.part} part")
    chips = "".join(element("li", escape(fact)) for fact in facts)
    chips += element("li", f"{done} of {len(runs)} runs finished", class_="missing" if done < len(runs) else "")
    cards = "".join(card(verdict) for verdict in section.verdicts)
    answer = [element("div", cards, class_="cards", id=section.anchor("verdicts"))]
    if section.verdicts:
        answer.append(element("p", escape(section.tables["verdicts"].note), class_="note"))
    main = main_figures(section)
    parts = [
        element("h1", escape(experiment.title)),
        element("ul", chips, class_="facts"),
        *(main + answer if main else answer),
        element("h2", "In words"),
        element("ul", "".join(element("li", sentence(said)) for said in section.sentences), class_="said"),
        *_expected(experiment.shows),
        block(section, "arms", accuracies(section)),
        block(section, "differences", forests(section), folded("The same as a table", section, "differences")),
        block(section, "curves", curves(section)),
        block(section, "cost", table(section.tables["cost"])),
        block(section, "runs", folded(f"All {len(runs)} runs", section, "runs")),
        block(section, "pictures", table(section.tables["pictures"])),
        block(section, "machines", table(section.tables["machines"])),
        element("h2", "All of it again"),
        element("pre", escape(f"{section.run_command}\n{section.report_command}")),
    ]
    return element("section", "".join(parts), id=section.anchor(""))


def _expected(shows: str) -> list[str]:
    """Return what the experiment says of itself, the paper's figures mostly; an own one may say nothing."""
    said = element("blockquote", escape(" ".join(shows.split())))
    return [element("p", "What it is about:", class_="note"), said] if shows.strip() else []
