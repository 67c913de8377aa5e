"""Clusterability of networks' filters against their accuracy (arXiv:2401.14469)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .style import COLOURS, SOFT, figure, plain, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def clusterability_scatter(
    points: Mapping[str, Sequence[tuple[float, float]]], title: str = "Clusterability against accuracy"
) -> "Figure":
    """Draw networks in one panel a group: label -> (variance explained beyond the control, top-1 in percent).

    Accuracies on different data sets cannot be compared, so every data set is a group of its own.
    """
    columns = min(3, len(points))
    rows = -(-len(points) // columns)
    drawn = figure(3.1 * columns + 0.4, 2.8 * rows + 0.5, title)
    for index, axes in enumerate(drawn.subplots(rows, columns, squeeze=False).ravel()):
        if index >= len(points):
            axes.set_axis_off()
            continue
        label = list(points)[index]
        plain(axes, "explained by 8 centres, beyond the control", "top-1 in %")
        gains, accuracies = zip(*points[label], strict=True)
        axes.scatter(gains, accuracies, s=22, color=COLOURS[index % len(COLOURS)], alpha=0.75, linewidths=0)
        axes.set_title(shortened(label, 44), fontsize=8, color=SOFT)
    return drawn
