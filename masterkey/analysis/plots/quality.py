"""Sparsity and variance entropy over depth, by group (001, Fig. 2)."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import TYPE_CHECKING

from ..quality import LayerQuality
from .style import COLOURS, SOFT, box, figure, plain, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW = 4  # layers in a decile up to which they are drawn one by one


def quality_over_depth(groups: Mapping[str, Sequence[LayerQuality]], title: str = "Quality over depth") -> "Figure":
    """Draw S and H of every layer over relative depth, one colour a group; box plots where deciles hold many layers.

    H is divided by the largest value that its kernel allows, so that kernels can stand in one picture.
    """
    drawn = figure(8.5, 3.6 + 0.16 * (len(groups) // 3), title)
    left, right = drawn.subplots(1, 2)
    plain(left, "depth", "sparsity S").set_ylim(-0.03, 1.03)
    plain(right, "depth", "variance entropy H / log10(K)").set_ylim(-0.03, 1.03)
    most = max(len(_decile(layers, decile)) for layers in groups.values() for decile in range(10))
    width = 0.08 / len(groups)
    for index, (label, layers) in enumerate(groups.items()):
        colour = COLOURS[index % len(COLOURS)]
        offset = (index - (len(groups) - 1) / 2) * width
        for axes, figure_of in ((left, _sparsity), (right, _entropy)):
            if most <= _FEW:
                ordered = sorted(layers, key=lambda layer: layer.depth)
                at = [layer.depth for layer in ordered]
                axes.plot(
                    at, [figure_of(layer) for layer in ordered], "o-", color=colour, markersize=3.5, linewidth=0.8
                )
                continue
            filled = [decile for decile in range(10) if _decile(layers, decile)]
            values = [[figure_of(layer) for layer in _decile(layers, decile)] for decile in filled]
            box(axes, values, [decile / 10 + 0.05 + offset for decile in filled], width * 0.9, colour)
        left.plot([], [], "o-", color=colour, markersize=3.5, label=shortened(label))
    for axes in (left, right):
        axes.set_xlim(-0.02, 1.02)
    drawn.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False, labelcolor=SOFT)
    return drawn


def _decile(layers: Sequence[LayerQuality], decile: int) -> list[LayerQuality]:
    return [layer for layer in layers if int(10 * layer.depth) == decile]


def _sparsity(layer: LayerQuality) -> float:
    return layer.sparsity


def _entropy(layer: LayerQuality) -> float:
    return layer.entropy / max(log10(layer.kernel[0] * layer.kernel[1]), 1e-12)
