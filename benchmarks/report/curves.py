"""Curves: accuracy by epoch, accuracy by n, and bars of accuracy retained."""

from collections.abc import Sequence
from itertools import groupby

from .results import RANDOM, SCRATCH, label
from .svg import Canvas, Point, Row, Scale, must, number, span
from .table import Figure

_COLOURS = 8  # series that the style sheet tells apart by colour; shapes tell six apart
Legend = list[tuple[str, int | None, str]]


def learning_curve(rows: Sequence[Row], arm: str) -> str:
    """Draw an arm's mean accuracy by epoch with its band, over the curves of scratch and random.

    ``rows`` are of the table of curves, all of one network and target, so that its panels share a scale.
    """
    left, right, top, bottom = 32.0, 268.0, 28.0, 150.0
    epochs = [int(must(row, "epoch")) for row in rows]
    x = Scale(0, max(epochs, default=1), left, right)
    tops = [must(row, "top1") + (number(row, "deviation") or 0) for row in rows]
    y = Scale(0, max([*tops, 1.0]) * 1.04, bottom, top)
    canvas = Canvas(280, 172, f"Learning curve of {arm}: accuracy in percent by epoch")
    canvas.axis_x(x, top, bottom, [tick for tick in x.ticks(4) if tick == int(tick)])
    canvas.axis_y(y, left, right, y.ticks(4))
    curves = {name: list(group) for name, group in groupby(rows, key=lambda row: str(row["arm"]))}
    own = curves.get(arm, [])
    banded = [row for row in own if row["deviation"] is not None]
    upper = [(x(must(row, "epoch")), y(must(row, "top1") + must(row, "deviation"))) for row in banded]
    lower = [(x(must(row, "epoch")), y(must(row, "top1") - must(row, "deviation"))) for row in banded]
    if len(banded) > 1:
        canvas.path([*upper, *reversed(lower)], "band", closed=True)
    for name, style in ((RANDOM, "line random"), (SCRATCH, "line scratch"), (arm, "line own")):
        if name in curves:
            points = [(x(must(row, "epoch")), y(must(row, "top1"))) for row in curves[name]]
            canvas.path(points, style)
            if len(points) == 1:
                canvas.mark(points[0], 0, f"mark {style}", 3)
    canvas.lines((left, 11), label(arm), "title", "start", 26)
    canvas.text((right, 15), Figure(own[-1]["top1"], "accuracy") if own else "missing", "value", "end")
    return canvas.render()


def against_n(rows: Sequence[Row], *, relative: bool = False) -> tuple[str, Legend]:
    """Draw accuracy against n for one network and target; return it with its legend as (style, shape, name).

    Arms without an n (scratch, selffer, random) are horizontal lines. ``relative``: in percent of scratch's.
    """
    value, error = ("relative", "relative_deviation") if relative else ("top1", "deviation")
    done = [row for row in rows if row[value] is not None]
    spread = [must(row, value) + sign * (number(row, error) or 0) for row in done for sign in (1, -1)]
    places = sorted({must(row, "n") for row in rows if row["n"] is not None})
    left, right, top, bottom = 40.0, 470.0, 20.0, 258.0
    x, y = Scale(*span(places, pad=0.04), left, right), Scale(*span(spread), bottom, top)
    title = "Accuracy in percent of scratch's" if relative else "Accuracy in percent"
    canvas = Canvas(480, 294, f"{title} against n")
    canvas.text((left, 11), title, "tick")
    few = len(places) <= 14 and all(place == int(place) for place in places)
    canvas.axis_x(x, top, bottom, places if few else x.ticks(6), "n, layers that hold the bank")
    canvas.axis_y(y, left, right, y.ticks(5))
    legend: Legend = []
    for i, row in enumerate(row for row in done if row["n"] is None):
        height = y(must(row, value))
        canvas.line((left, height), (right, height), f"line flat dash{i % 4}")
        legend.append((f"line flat dash{i % 4}", None, str(row["series"])))
    names = list(dict.fromkeys(str(row["series"]) for row in rows if row["n"] is not None))
    for i, name in enumerate(names):
        aside = 4 * (i - (len(names) - 1) / 2)  # so that the bars of two series do not cover each other
        style = f"s{i % _COLOURS}"
        own = [row for row in done if row["series"] == name and row["n"] is not None]
        own.sort(key=lambda row: must(row, "n"))
        points = [(x(must(row, "n")) + aside, y(must(row, value))) for row in own]
        if points:
            canvas.path(points, f"line {style}")
        for point, row in zip(points, own, strict=True):
            _draw_mark(canvas, point, number(row, error), y, i, style)
        legend.append((f"mark {style}", i, name))
    return canvas.render(), legend


def retention_bars(rows: Sequence[Row], models: Sequence[str]) -> tuple[str, Legend]:
    """Draw bars of accuracy retained on one target, in groups by network, with the line at 100 %."""
    done = [row for row in rows if row["retention"] is not None]
    arms = list(dict.fromkeys(str(row["arm"]) for row in rows))
    tops = [must(row, "retention") + (number(row, "deviation") or 0) for row in done]
    left, right, top, bottom = 40.0, 470.0, 14.0, 240.0
    y = Scale(0, max([100.0, *tops]) * 1.06, bottom, top)
    canvas = Canvas(480, 276, "Accuracy retained, in percent of scratch's")
    canvas.axis_y(y, left, right, y.ticks(6))
    group = (right - left) / len(models)
    bar = min(group * 0.8 / len(arms), 40.0)
    for row in done:
        place = models.index(str(row["model"])) + 0.5
        start = left + place * group + (arms.index(str(row["arm"])) - len(arms) / 2) * bar
        style = f"s{arms.index(str(row['arm'])) % _COLOURS}"
        value, deviation = must(row, "retention"), number(row, "deviation") or 0
        canvas.box((start + 1, y(value)), bar - 2, bottom - y(value), f"bar {style}")
        middle = start + bar / 2
        canvas.line((middle, y(value - deviation)), (middle, y(value + deviation)), "whisker ink")
        if bar >= 24:
            canvas.text((middle, bottom - 6), Figure(value, "accuracy"), "inside", "middle")
    for i, model in enumerate(models):
        canvas.text((left + (i + 0.5) * group, bottom + 16), model, "tick", "middle", limit=int(group / 6))
    canvas.line((left, y(100)), (right, y(100)), "zero")
    return canvas.render(), [(f"mark s{i % _COLOURS}", 1, arm) for i, arm in enumerate(arms)]


def legend_key(style: str, shape: int | None) -> str:
    """Draw a legend's sample."""
    canvas = Canvas(26, 14, "")
    if shape is None:
        canvas.line((1, 7), (25, 7), style)
    else:
        canvas.mark((13, 7), shape, style)
    return canvas.render()


def _draw_mark(canvas: Canvas, at: Point, deviation: float | None, y: Scale, shape: int, style: str) -> None:
    if deviation is not None:
        half = abs(y(deviation) - y(0))
        canvas.line((at[0], at[1] - half), (at[0], at[1] + half), f"whisker {style}")
    canvas.mark(at, shape, f"mark {style}")
