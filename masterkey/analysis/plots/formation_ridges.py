"""Distributions of coefficients while filters form, one ridge a checkpoint (001, Fig. 7)."""

from typing import TYPE_CHECKING

from ...extra import needs
from ..formation import Formation
from .style import SEQUENTIAL, figure, finish_ridges, name_ridge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3
_HEIGHT = 1.8  # of the highest ridge, in distances between two


def formation_ridges(of: Formation, title: str = "Coefficients while filters form", most: int = 9) -> "Figure":
    """Draw the histogram along each of the first ``most`` components as one ridge a checkpoint, the first on top.

    All ridges of a component have one scale, so that a distribution that becomes narrower becomes higher.
    """
    shown = min(most, len(of.explained))
    rows = -(-shown // _COLUMNS)
    drawn = figure(9.0, rows * (0.26 * len(of.labels) + 0.8) + 0.6, title)
    colours = needs("matplotlib").colormaps[SEQUENTIAL]
    density, centres = of.ridges.density, of.ridges.centres
    for component, axes in enumerate(drawn.subplots(rows, _COLUMNS, squeeze=False).ravel()):
        if component >= shown:
            axes.set_axis_off()
            continue
        highest = max(float(density[:, component].max()), 1e-300)
        for number, label in enumerate(of.labels):
            base = float(len(of.labels) - 1 - number)
            colour = colours(0.9 * number / (len(of.labels) - 1))
            height = base + _HEIGHT * density[number, component] / highest
            axes.fill_between(
                centres[component], base, height, step="mid", color=colour, alpha=0.5, linewidth=0, zorder=number + 2
            )
            axes.step(centres[component], height, where="mid", color=colour, linewidth=0.9, zorder=number + 2)
            if component % _COLUMNS == 0:
                name_ridge(axes, label, base, colour)
        finish_ridges(axes, f"component {component + 1}: {of.explained[component]:.1%}")
    return drawn
