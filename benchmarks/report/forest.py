"""The forest plot: every arm's paired difference to a control, with its interval."""

from collections.abc import Sequence

from .results import label
from .svg import Canvas, Row, Scale, number, span
from .table import Figure

_LEFT, _RIGHT, _TOP, _STEP = 132.0, 292.0, 30.0, 26.0
_STYLES = {"above": "up", "below": "down"}
_SHAPES = {"up": 2, "down": 4, "level": 0}


def forest(rows: Sequence[Row], control: str, quiet: Sequence[str]) -> str:
    """Draw differences in points: mean, 95 % interval, and the line at zero.

    Args:
        rows: of the table of differences, all of one network and target, so that its panels share a scale.
        control: the one to draw.
        quiet: arms that are controls themselves, drawn faint.
    """
    shown = [row for row in rows if row["control"] == control]
    bottom = _TOP + _STEP * len(shown)
    scale = Scale(*_range(rows), _LEFT, _RIGHT)
    canvas = Canvas(440, bottom + 36, f"Paired differences against {control}, in points")
    canvas.axis_x(scale, _TOP, bottom, scale.ticks(4), "points")
    canvas.line((scale(0), _TOP), (scale(0), bottom), "zero")
    canvas.text((scale(0), 18), f"against {control}", "title", "middle")
    for i, row in enumerate(shown):
        y = _TOP + _STEP * (i + 0.5)
        canvas.lines((122, y), label(str(row["arm"])), "quiet" if row["arm"] in quiet else "", "end", 18)
        _draw_row(canvas, scale, row, y)
    return canvas.render()


def _draw_row(canvas: Canvas, scale: Scale, row: Row, y: float) -> None:
    mean, low, high = (number(row, key) for key in ("difference", "low", "high"))
    if mean is None:
        canvas.text((_LEFT + 6, y + 4), "missing", "tick")
        return
    style = _STYLES.get(str(row["reading"]), "level")
    canvas.text((334, y + 4), Figure(mean, "difference"), f"value {style}", "end")
    if low is not None and high is not None:
        ends = max(scale(low), _LEFT), min(scale(high), _RIGHT)
        canvas.line((ends[0], y), (ends[1], y), f"whisker {style}")
        for value, end in zip((low, high), ends, strict=True):
            if scale(value) == end:  # an interval that leaves the picture has no cap there
                canvas.line((end, y - 4), (end, y + 4), f"whisker {style}")
        canvas.text((383, y + 4), Figure(low, "difference"), "tick", "end")
        canvas.text((387, y + 4), "to", "tick")
        canvas.text((437, y + 4), Figure(high, "difference"), "tick", "end")
    canvas.mark((scale(mean), y), _SHAPES[style], f"mark {style}", 5)


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    """Hold all means and zero, and intervals as far as they do not squeeze these: two seeds give very wide ones."""
    means = [0.0, *(mean for row in rows if (mean := number(row, "difference")) is not None)]
    reach = max(max(means) - min(means), 1.0)
    ends = [end for row in rows for key in ("low", "high") if (end := number(row, key)) is not None]
    inside = [min(max(end, min(means) - reach), max(means) + reach) for end in ends]
    return span([*means, *inside], least=2.0)
