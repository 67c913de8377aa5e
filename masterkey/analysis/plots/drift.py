"""Drift between groups: heat map, components over all pairs (001, Fig. 6), box plots per depth decile (Fig. 9)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..chance import Chance
from ..drift import Drift
from ..moments import Array
from .style import COLOURS, SEQUENTIAL, SOFT, box, figure, plain, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WRITTEN = 14  # groups up to which the map's cells carry their figure


def drift_map(drift: Drift, title: str = "Drift D between groups", chance: Chance | None = None) -> "Figure":
    """Draw D between all pairs as a heat map; cells carry their value where there is room.

    With the level of ``chance`` a value that is not above it stands in brackets.
    """
    count = len(drift.labels)
    side = max(2.0, 0.52 * count)
    drawn = figure(side + 2.4, side + 1.6, f"{title}, {drift.kernel[0]}x{drift.kernel[1]}")
    axes = drawn.subplots()
    image = axes.imshow(drift.total, cmap=SEQUENTIAL, vmin=0)
    labels = [shortened(label) for label in drift.labels]
    axes.set_xticks(range(count), labels, rotation=40, ha="right", fontsize=8, color=SOFT)
    axes.set_yticks(range(count), labels, fontsize=8, color=SOFT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count <= _WRITTEN:
        half = drift.total.max() / 2
        for row in range(count):
            for column in range(count):
                value = drift.total[row, column]
                colour = "white" if value <= half else "black"
                doubtful = chance is not None and row != column and not chance.above[row, column]
                text = f"({value:.2g})" if doubtful else f"{value:.2g}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        if chance:
            axes.set_xlabel("in brackets: not above chance", fontsize=8, color=SOFT)
    bar = drawn.colorbar(image, ax=axes, shrink=0.8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=SOFT)
    return drawn


def component_box(drift: Drift) -> "Figure":
    """Draw the divergence along each component over all pairs of groups (Fig. 6).

    At most 25 components are shown; what follows explains little.
    """
    shown = min(25, len(drift.explained))
    upper = np.triu_indices(len(drift.labels), 1)
    values = [drift.components[..., component][upper] for component in range(shown)]
    title = f"Divergence along each component, {len(upper[0])} pairs, {drift.kernel[0]}x{drift.kernel[1]}"
    drawn = figure(max(5.0, 0.3 * shown + 2), 3.4, title)
    axes = plain(drawn.subplots(), "principal component", "symmetric KL divergence")
    box(axes, values, [component + 1.0 for component in range(shown)], 0.6, COLOURS[0])
    axes.set_xticks(range(1, shown + 1))
    axes.set_ylim(bottom=0)
    return drawn


def decile_box(
    by_decile: Mapping[str, Sequence[float] | Array],
    title: str = "Drift per depth decile",
    by_chance: Mapping[str, float] | None = None,
) -> "Figure":
    """Draw the drifts between models within each depth decile (Fig. 9).

    Args:
        by_decile: label -> D of every pair.
        title: above the figure.
        by_chance: label -> D of the pairs by chance, on average; a dashed line.
    """
    drawn = figure(max(5.0, 0.6 * len(by_decile) + 2), 3.4, title)
    axes = plain(drawn.subplots(), "", "D between pairs")
    box(
        axes, [list(values) for values in by_decile.values()], [1.0 + i for i in range(len(by_decile))], 0.6, COLOURS[0]
    )
    if by_chance:
        at = [1 + list(by_decile).index(label) for label in by_chance]
        axes.hlines(
            list(by_chance.values()),
            [place - 0.4 for place in at],
            [place + 0.4 for place in at],
            color=COLOURS[1],
            linestyles="dashed",
            label="by chance, on average",
        )
        axes.legend(fontsize=8, frameon=False)
    axes.set_xticks(range(1, len(by_decile) + 1), list(by_decile), fontsize=8)
    axes.set_ylim(bottom=0)
    return drawn
