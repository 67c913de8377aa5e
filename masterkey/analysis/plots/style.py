"""One look for all figures."""

import io
from typing import TYPE_CHECKING, Any

from ...extra import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1b2026", "#56606b", "#e3e6e9"
COLOURS = ("#1f5fae", "#c25a00", "#00795a", "#a3397d", "#7a6a00", "#2b8cbe", "#8c3b2a", "#555555")
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
_DPI = 150


def figure(width: float, height: float, title: str) -> "Figure":
    """Return an empty figure of a size in inches; it belongs to no window and no global state."""
    made: Figure = needs("matplotlib.figure").Figure(figsize=(width, height), layout="constrained", facecolor="white")
    made.suptitle(as_shown(title), x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return made


def plain(axes: "Axes", x: str = "", y: str = "") -> "Axes":
    """Label axes and take away what carries no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.set_xlabel(x, fontsize=9, color=SOFT)
    axes.set_ylabel(y, fontsize=9, color=SOFT)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    return axes


def name_ridge(axes: "Axes", label: str, base: float, colour: Any) -> None:
    """Write a ridge's label to the left of its base."""
    axes.annotate(
        shortened(label, 24),
        (0, base),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=7,
        color=colour,
    )


def finish_ridges(axes: "Axes", title: str) -> None:
    """Take away the scale of axes with ridges, which overlap, and name what they show."""
    plain(axes)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_title(as_shown(title), fontsize=8, color=SOFT)


def box(axes: "Axes", values: list[Any], positions: list[float], width: float, colour: str) -> None:
    """Draw box plots without outliers' crowds: box of the quartiles, whiskers to 1.5 of their distance."""
    drawn = axes.boxplot(
        values,
        positions=positions,
        widths=width,
        patch_artist=True,
        manage_ticks=False,
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": colour, "alpha": 0.5},
        medianprops={"color": INK},
    )
    for patch in drawn["boxes"]:
        patch.set(facecolor=colour, alpha=0.55, edgecolor=colour)
    for line in (*drawn["whiskers"], *drawn["caps"]):
        line.set_color(colour)


def shortened(label: str, most: int = 28) -> str:
    """Return a label of at most ``most`` letters, as matplotlib shows it; what is too much goes from the middle."""
    return as_shown(label if len(label) <= most else f"{label[: most - most // 2 - 1]}…{label[-(most // 2) :]}")


def as_shown(label: str) -> str:
    """Return a label that matplotlib shows as it is: between dollars it reads mathematics, one with ``_`` it hides."""
    escaped = label.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def png_bytes(drawn: "Figure") -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    needs("matplotlib.backends.backend_agg").FigureCanvasAgg(drawn)
    png = io.BytesIO()
    drawn.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    return png.getvalue()
