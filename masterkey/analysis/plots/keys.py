"""Shapes one by one, and the share of variance that K keys explain, against K."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .style import COLOURS, DIVERGING, INK, SOFT, figure, plain, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 20  # letters of a name beside shapes


def shapes_picture(rows: Mapping[str, tuple[Tensor, Sequence[str]]], across: int, title: str) -> "Figure":
    """Draw shapes (n, kh, kw), red positive and blue negative, each on its own scale, at most ``across`` side by side.

    ``rows`` maps a name, written to the left of where its shapes begin, to them and to a caption for each, of one line
    or two.
    """
    across = min(across, max(len(shapes) for shapes, _ in rows.values()))
    lines = []
    for name, (shapes, captions) in rows.items():
        starts = range(0, len(shapes), across)
        lines += [(name * (at == 0), shapes[at : at + across], captions[at : at + across]) for at in starts]
    kh, kw = lines[0][1].shape[1:]
    high = min(2.0, max(0.3, kh / kw))  # of a shape that is one wide
    room = 0.3 if any("\n" in caption for _, captions in rows.values() for caption in captions) else 0.18
    step = high + room + 0.08
    margin = 0.1 * min(_LONGEST, max(map(len, rows)))
    drawn = figure(0.85 * (across + margin) + 0.2, 0.85 * step * len(lines) + 0.5, title)
    axes = drawn.subplots()  # one for all: each of its own would take a hundred times as long
    axes.set_axis_off()
    for number, (name, shapes, captions) in enumerate(lines):
        below = -number * step - high
        axes.text(-0.15, below + high / 2, shortened(name, _LONGEST), ha="right", va="center", fontsize=8, color=INK)
        for column, (shape, caption) in enumerate(zip(shapes, captions, strict=True)):
            limit = max(float(shape.abs().max()), 1e-12)
            extent = (column + 0.03, column + 0.97, below, below + high)
            axes.imshow(shape.numpy(), cmap=DIVERGING, vmin=-limit, vmax=limit, extent=extent)
            axes.text(column + 0.5, below + high + 0.04, caption, ha="center", va="bottom", fontsize=6, color=SOFT)
    axes.set_xlim(-margin, across)
    axes.set_ylim(-len(lines) * step, room)
    axes.set_aspect("equal")
    return drawn


def explained_over_keys(curves: Mapping[str, Mapping[int, float]], chosen: int, title: str) -> "Figure":
    """Draw curves (name -> number of keys -> share explained) with a mark at the number that was chosen."""
    drawn = figure(7.0, 3.8, title)
    axes = plain(drawn.subplots(), "keys", "share of variance explained")
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(list(curve), list(curve.values()), "o-", color=colour, markersize=3, linewidth=1.1, label=name)
    axes.axvline(chosen, color=SOFT, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1.03)
    axes.set_xlim(left=0)
    drawn.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False, labelcolor=SOFT)
    return drawn
