"""Shares of families as bars; the code line's training, and its agreement over thresholds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..families import LABELS
from .style import COLOURS, SOFT, figure, plain, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# one hue a family, its directions in three strengths
_HUES = ("#333a41", "#1f5fae", "#7db4f5", "#8f4300", "#c25a00", "#f0a766", "#005540", "#00795a", "#6cc4aa", "#a3397d")
_FAMILY_COLOURS = dict(zip(LABELS, (*_HUES, "#e3e6e9"), strict=True))


def family_bars(rows: Mapping[str, Mapping[str, float]], title: str) -> "Figure":
    """Draw shares of families, each row (label -> family -> share, summing to one) as a bar of coloured parts."""
    drawn = figure(9.0, 0.27 * len(rows) + 1.9, title)
    axes = plain(drawn.subplots(), "share of filters")
    places = range(len(rows) - 1, -1, -1)
    left = np.zeros(len(rows))
    for family, colour in _FAMILY_COLOURS.items():
        widths = np.array([row[family] for row in rows.values()])
        axes.barh(places, widths, left=left, height=0.8, color=colour, label=family)
        left += widths
    axes.set_yticks(list(places), [shortened(label, 26) for label in rows], fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(visible=False)
    drawn.legend(loc="outside lower center", ncols=6, fontsize=8, frameon=False, labelcolor=SOFT)
    return drawn


def line_plot(losses: Sequence[tuple[int, float]], rows: Sequence[Mapping[str, float]], title: str) -> "Figure":
    """Draw an autoencoder's loss over (step, loss), and beside it shares over cosine thresholds.

    ``rows`` are those of ``masterkey.analysis.families_line.sweep``.
    """
    drawn = figure(9.0, 3.6, title)
    left, right = drawn.subplots(1, 2)
    plain(left, "training step", "squared error").set_ylim(0, 1.03 * max(loss for _, loss in losses))
    left.plot([step for step, _ in losses], [loss for _, loss in losses], color=COLOURS[0], linewidth=1.2)
    plain(right, "cosine threshold of the code line", "share").set_ylim(0, 1.03)
    at = [row["threshold"] for row in rows]
    for name, colour in zip(("assigned", "purity", "agreement", "neither"), COLOURS, strict=False):
        right.plot(at, [row[name] for row in rows], "o-", color=colour, markersize=3, linewidth=1.1, label=name)
    right.legend(fontsize=8, frameon=False, labelcolor=SOFT)
    return drawn
