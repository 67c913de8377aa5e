"""Filters while they form (001, Fig. 7), and drift between seeds against drift between layers and models."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...extra import needs
from ..formation import Formation, Reproducibility
from .style import COLOURS, INK, SEQUENTIAL, SOFT, box, figure, plain, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def formation_curves(of: Formation, title: str = "Formation of filters") -> "Figure":
    """Draw S, H - T_H and the drift from the last checkpoint of every layer over training; colour is depth."""
    drawn = figure(10.5, 3.6, title)
    panels = drawn.subplots(1, 3)
    colours = needs("matplotlib").colormaps[SEQUENTIAL]
    figures = (
        ("sparsity S", of.sparsity),
        ("H - T_H (above 0: random)", of.entropy - of.threshold),
        ("drift D from the last", of.to_last[:-1]),
    )
    for axes, (label, values) in zip(panels, figures, strict=True):
        plain(axes, "checkpoint", label)
        for layer, info in enumerate(of.layers):
            axes.plot(range(len(values)), values[:, layer], "-", color=colours(0.9 * info.depth), linewidth=1.1)
        axes.set_xticks(range(len(of.labels)), of.labels, fontsize=7)
    panels[1].axhline(0, color=INK, linewidth=0.8, linestyle=":")
    panels[2].plot(range(len(of.labels) - 1), of.whole_to_last[:-1], "o--", color=INK, markersize=3, label="all layers")
    panels[2].legend(fontsize=8, frameon=False, labelcolor=SOFT)
    if bool((of.to_last[:-1] > 0).all()):
        panels[2].set_yscale("log")
    scale = needs("matplotlib.cm").ScalarMappable(cmap=SEQUENTIAL)
    scale.set_clim(0, 1 / 0.9)
    bar = drawn.colorbar(scale, ax=panels, shrink=0.8, label="depth")
    bar.outline.set_visible(False)
    bar.ax.set_ylim(0, 1)
    return drawn


def reproducibility_boxes(of: Reproducibility, title: str = "Drift between seeds, layers and models") -> "Figure":
    """Draw on one logarithmic scale: left whole networks, right layer by layer; one colour a model."""
    drawn = figure(9.5, 3.8, title)
    left, right = drawn.subplots(1, 2)
    models = list(of.seeds)
    panels: list[tuple[Axes, list[tuple[str, Mapping[str, Any]]]]] = [
        (left, [("halves of a run", of.halves), ("two seeds", of.seeds)]),
        (right, [("same layer, two seeds", of.same_layer), ("two layers, one seed", of.other_layer)]),
    ]
    for axes, rows in panels:
        plain(axes, "", "D")
        ticks = [label for label, _ in rows]
        for place, (_, values) in enumerate(rows):
            for number, model in enumerate(models):
                found = np.ravel(values[model])
                if len(found):
                    at = place + 0.25 * (number - (len(models) - 1) / 2)
                    box(axes, [found], [at], 0.2, COLOURS[number % len(COLOURS)])
        if axes is left and of.models:
            box(axes, [of.models], [float(len(rows))], 0.2, COLOURS[-1])
            ticks.append("two models")
        axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
        axes.set_yscale("log")
    for number, model in enumerate(models):
        left.plot([], [], "s", color=COLOURS[number % len(COLOURS)], label=shortened(model))
    left.legend(fontsize=8, frameon=False, labelcolor=SOFT)
    return drawn
