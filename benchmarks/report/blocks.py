"""The blocks of the page: cards, figures and tables, each with its note and the command that makes it again."""

from collections.abc import Iterable, Sequence
from html import escape

from .curves import Legend, against_n, learning_curve, legend_key, retention_bars
from .forest import forest
from .html import at, element, figure, matrix, overview, sentence, table
from .results import RANDOM, SCRATCH, label
from .section import Section
from .svg import Row
from .words import GAIN, LOSS, NO_CLAIM, OPEN, Verdict, interval, over

_CARDS = {
    GAIN: ("up", "▲", ""),
    OPEN: ("level", "", "No clear gain: an interval holds zero."),
    LOSS: ("down", "▼", "Below a control: no gain."),
    NO_CLAIM: ("level", "", ""),
}


def block(section: Section, name: str, *content: str) -> str:
    """Return a table or figure under its title, with its note and command; nothing where there is not a row."""
    of = section.tables[name]
    if not of.rows:
        return ""
    command = element("pre", escape(section.command(name)))
    parts = [element("h2", escape(of.title)), element("p", escape(of.note), class_="note"), *content, command]
    return element("figure", "".join(parts), id=section.anchor(name))


def folded(title: str, section: Section, name: str) -> str:
    """Return a table that opens on demand; paper goes without it."""
    return element("details", element("summary", escape(title)) + table(section.tables[name]))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def card(verdict: Verdict) -> str:
    """Return the answer for a network and target, to be read in five seconds."""
    style, arrow, tag = _CARDS[verdict.outcome]
    if verdict.outcome == GAIN:
        tag = _sentence(verdict.gain)
    parts = [element("h2", f"{escape(verdict.target)} {element('small', escape(verdict.model))}")]
    if verdict.refusal is not None:
        parts += [element("p", "No claim", class_="big"), element("p", escape(_sentence(verdict.refusal)))]
        tag = ""
    if verdict.best is not None:
        reached = f"{figure(verdict.accuracy, 'accuracy')}&nbsp;%"
        parts.append(element("p", f"{element('b', escape(label(verdict.best)))} reaches {reached}"))
    numbers = ""
    for control, sample in verdict.over.items():
        if sample.n:
            big = element("span", f"{arrow} {sentence(over(sample))}".strip(), class_="big")
            against = element("small", f"points against {escape(control)}")
            within = element("small", sentence(["95 %:", *interval(sample)])) if sample.low is not None else ""
            numbers += element("li", big + against + within)
    parts += [element("ul", numbers) if numbers else "", element("p", tag, class_="tag") if tag else ""]
    return element("article", "".join(parts), class_=f"card {style}")


def main_figures(section: Section) -> list[str]:
    """Return what the experiment is about, by its layout; nothing for ``arms``, whose cards say it."""
    experiment, tables = section.experiment, section.tables
    again = "The same as a table"
    if experiment.layout == "matrix":
        grids = _headed((model, matrix(section, model)) for model in experiment.models)
        triangles = block(section, "triangles", table(tables["triangles"]))
        triples = block(section, "triples", table(tables["triples"]))
        return [block(section, "matrix", grids, folded(again, section, "matrix")), triangles, triples]
    if experiment.layout == "curve":
        figures = _headed((_name(place), _against_n(at(tables["series"], *place))) for place in section.results.places)
        return [block(section, "series", figures, folded(again, section, "series"))]
    if experiment.layout == "bars":
        by_target = {
            target: [row for row in tables["retention"].rows if row["target"] == target]
            for target in experiment.targets
        }
        figures = _headed(
            (target, _wide(*retention_bars(rows, experiment.models))) for target, rows in by_target.items() if rows
        )
        return [block(section, "retention", figures, folded(again, section, "retention"))]
    return []


def accuracies(section: Section) -> str:
    """Return the overview of arms for every network and target."""
    return _headed((_name(place), overview(section, *place)) for place in section.results.places)


def forests(section: Section) -> str:
    """Return a forest plot for every network, target and control."""
    results = section.results
    panels = (
        (
            _name(place),
            _panels(
                forest(
                    at(section.tables["differences"], *place),
                    control,
                    [arm for arm in results.at(*place) if results.is_control(*place, arm)],
                )
                for control in results.controls(*place)
            ),
        )
        for place in results.places
    )
    return _headed(panels)


def curves(section: Section) -> str:
    """Return a small learning curve for every arm; folded away where the experiment is about something else."""
    keys = "".join(
        element("span", legend_key(f"line {style}", None) + text)
        for style, text in (("own", "the arm"), ("scratch", SCRATCH), ("random", RANDOM))
    )
    panels = _headed(
        (
            _name(place),
            _panels(
                (
                    learning_curve(at(section.tables["curves"], *place), arm)
                    for arm in section.results.at(*place)
                    if arm not in (SCRATCH, RANDOM)
                ),
                "small",
            ),
        )
        for place in section.results.places
    )
    content = element("p", keys, class_="legend") + panels
    if section.experiment.layout == "arms":
        return content
    return element("details", element("summary", "The curves of every arm") + content, class_="paper")


def _against_n(rows: Sequence[Row]) -> str:
    """Draw accuracy against n, and below it the same relative to scratch's if that is known."""
    known = any(row["relative"] is not None for row in rows)
    return "".join(_wide(*against_n(rows, relative=relative)) for relative in ((False, True) if known else (False,)))


def _headed(parts: Iterable[tuple[str, str]]) -> str:
    """Put a heading over each part, unless there is only one."""
    named = list(parts)
    return "".join((element("h3", escape(name)) if len(named) > 1 else "") + content for name, content in named)


def _name(place: tuple[str, str]) -> str:
    model, target = place
    return f"{target}, {model}"


def _panels(drawn: Iterable[str], style: str = "") -> str:
    return element("div", "".join(element("div", svg) for svg in drawn), class_=f"panels {style}".strip())


def _wide(drawn: str, legend: Legend) -> str:
    keys = "".join(element("span", legend_key(style, shape) + escape(label(name))) for style, shape, name in legend)
    return element("div", drawn, class_="wide") + element("p", keys, class_="legend")
