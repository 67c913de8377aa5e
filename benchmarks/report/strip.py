"""The strip plot: the accuracy of every seed of every arm, as a picture that stands alone, for a README."""

from collections.abc import Mapping
from importlib.resources import files
from statistics import fmean, stdev

from .results import SCRATCH, Results, label
from .svg import Canvas, Scale, span
from .table import Figure

_LEFT, _RIGHT, _TOP, _STEP = 200.0, 540.0, 42.0, 28.0


def strip(results: Results, model: str, target: str, title: str, names: Mapping[str, str]) -> bytes:
    """Return an SVG file: a row for each arm that has runs, best mean first, a dot for each seed, a bar at the mean.

    Controls are grey, so that what is claimed stands out, and scratch's mean is a line through all rows.

    Args:
        results: of the experiment.
        model: the network.
        target: the data set.
        title: what the picture is of.
        names: what to call an arm, where its own name says too little.
    """
    cells = [cell for cell in results.at(model, target).values() if cell.runs]
    cells.sort(key=lambda cell: -fmean(cell.top1))
    bottom = _TOP + _STEP * len(cells)
    scale = Scale(*span([top1 for cell in cells for top1 in cell.top1]), _LEFT, _RIGHT)
    canvas = Canvas(640, bottom + 42, f"{title}: every seed of every arm")
    canvas.box((0, 0), canvas.width, canvas.height, "paper")
    canvas.text((12, 24), title, "title")
    canvas.axis_x(scale, _TOP, bottom, scale.ticks(8), "%")
    for i, cell in enumerate(cells):
        y, mean = _TOP + _STEP * (i + 0.5), fmean(cell.top1)
        style = "level" if results.is_control(model, target, cell.arm) else "own"
        if cell.arm == SCRATCH:
            canvas.line((scale(mean), _TOP), (scale(mean), bottom), "line flat dash2")
        name = names.get(cell.arm, label(cell.arm))
        canvas.text((_LEFT - 10, y + 4), name, "quiet" if style == "level" else "", "end", 30)
        for top1 in cell.top1:
            canvas.mark((scale(top1), y), 0, f"dot {style}", 4.5)
        canvas.line((scale(mean), y - 9), (scale(mean), y + 9), f"mean {style}")
        canvas.text((585, y + 4), Figure(mean, "accuracy"), f"value {style}", "end")
        if len(cell.top1) > 1:
            canvas.text((590, y + 4), "±", "tick")
            canvas.text((624, y + 4), Figure(stdev(cell.top1), "deviation"), "tick", "end")
    return canvas.render_file((files(__package__) / "figure.css").read_text(encoding="utf-8"))
