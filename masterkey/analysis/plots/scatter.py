"""Two components against each other, with the phenotype that the distributions have (001, Fig. 4)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..moments import Array
from ..phenotypes import phenotype
from ..structure import Structure
from .style import COLOURS, SOFT, figure, plain, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def phenotype_scatter(
    structure: Structure,
    groups: Mapping[str, Sequence[int]],
    coefficients: Mapping[str, Array],
    pair: tuple[int, int] = (0, 1),
) -> "Figure":
    """Draw the coefficients of two components, one panel a group.

    Args:
        structure: whose histograms decide the phenotype.
        groups: label -> layers of the structure.
        coefficients: label -> (n, K), the filters drawn (``sample_coefficients``).
        pair: the components, counted from 0.
    """
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    title = f"Components {pair[0] + 1} and {pair[1] + 1}, {structure.kernel[0]}x{structure.kernel[1]}"
    drawn = figure(2.3 * columns + 0.4, 2.4 * rows + 0.5, title)
    for index, axes in enumerate(drawn.subplots(rows, columns, squeeze=False).ravel()):
        if index >= len(groups):
            axes.set_axis_off()
            continue
        label = list(groups)[index]
        counts = structure.counts[list(groups[label])].sum(axis=0)
        shown = coefficients[label]
        plain(axes).grid(visible=False)
        size = min(8.0, 2000 / max(len(shown), 1) + 1)
        axes.scatter(shown[:, pair[0]], shown[:, pair[1]], s=size, alpha=0.4, color=COLOURS[0], linewidths=0)
        axes.set_xlim(structure.low[pair[0]], structure.high[pair[0]] + 1e-12)
        axes.set_ylim(structure.low[pair[1]], structure.high[pair[1]] + 1e-12)
        kind = phenotype(counts[pair[0]], counts[pair[1]])
        axes.set_title(f"{shortened(label, 24)}\n{kind}", fontsize=8, color=SOFT)
    return drawn
