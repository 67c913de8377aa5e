"""Principal components as pictures, and the distributions of coefficients along them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..moments import Array
from ..structure import Structure
from .style import COLOURS, DIVERGING, INK, SOFT, figure, finish_ridges, name_ridge, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 280


def basis_picture(structure: Structure, title: str = "Principal components", most: int = 16) -> "Figure":
    """Draw the first ``most`` components with their explained variance, and its running sum (001, Fig. 5)."""
    kh, kw = structure.kernel
    shown = min(most, len(structure.explained))
    columns = 9 if shown == 9 else min(8, shown)
    rows = -(-shown // columns)
    drawn = figure(8.0, 1.25 * rows + 2.3, f"{title}, {kh}x{kw}")
    above, below = drawn.subfigures(2, 1, squeeze=False, height_ratios=[1.25 * rows + 0.2, 2.1])[:, 0]
    grid = np.atleast_1d(above.subplots(rows, columns, squeeze=False)).ravel()
    for index, axes in enumerate(grid):
        axes.set_axis_off()
        if index < shown:
            component = structure.components[index].reshape(kh, kw)
            limit = float(np.abs(component).max())
            axes.imshow(component, cmap=DIVERGING, vmin=-limit, vmax=limit)
            axes.set_title(f"{index + 1}: {structure.explained[index]:.1%}", fontsize=8, color=SOFT)
    axes = plain(below.subplots(), "component", "explained variance")
    positions = np.arange(1, len(structure.explained) + 1)
    axes.bar(positions, structure.explained, color=COLOURS[0], alpha=0.6)
    axes.plot(positions, np.cumsum(structure.explained), color=INK, marker=".", linewidth=1)
    axes.set_ylim(0, 1.03)
    return drawn


def ridges(
    structure: Structure, groups: Mapping[str, Sequence[int]], title: str = "Coefficients", most: int = 9
) -> "Figure":
    """Draw for each group a density estimate along each of the first ``most`` components (001, Fig. 3).

    The density is that of the histogram's bins, smoothed by a normal kernel of Scott's width, a bin at least.
    """
    shown = min(most, len(structure.explained))
    columns = 3 if shown >= 3 else shown
    rows = -(-shown // columns)
    drawn = figure(
        9.0, rows * (0.34 * len(groups) + 0.75) + 0.6, f"{title}, {structure.kernel[0]}x{structure.kernel[1]}"
    )
    grid = drawn.subplots(rows, columns, squeeze=False)
    for component, axes in enumerate(grid.ravel()):
        if component >= shown:
            axes.set_axis_off()
            continue
        first = component % columns == 0
        for level, (label, layers) in enumerate(groups.items()):
            at, density = _density(structure, component, layers)
            base = float(len(groups) - 1 - level)
            colour = COLOURS[level % len(COLOURS)]
            height = base + 1.5 * density / max(float(density.max()), 1e-300)
            axes.fill_between(at, base, height, color=colour, alpha=0.5, linewidth=0, zorder=level + 2)
            axes.plot(at, height, color=colour, linewidth=0.9, zorder=level + 2)
            if first:
                name_ridge(axes, label, base, colour)
        finish_ridges(axes, f"component {component + 1}: {structure.explained[component]:.1%}")
    return drawn


def _density(structure: Structure, component: int, layers: Sequence[int]) -> tuple[Array, Array]:
    counts = structure.counts[list(layers), component].sum(axis=0)
    low, high = structure.low[component], max(structure.high[component], structure.low[component] + 1e-12)
    width = (high - low) / len(counts)
    centres = low + width * (np.arange(len(counts)) + 0.5)
    shares = counts / counts.sum()
    deviation = float(np.sqrt(shares @ (centres - shares @ centres) ** 2))
    bandwidth = max(deviation * float(counts.sum()) ** -0.2, width)
    at: Array = np.linspace(low - 2 * bandwidth, high + 2 * bandwidth, _POINTS)
    return at, np.exp(-0.5 * ((at[:, None] - centres) / bandwidth) ** 2) @ shares
