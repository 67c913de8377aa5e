"""The curve of the share of variance explained against the number of keys: as data and as a picture."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import MasterkeyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]


def curve_csv(curve: Curve) -> bytes:
    """The curve as CSV, columns ``keys`` and ``explained``."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("keys", "explained"))
    rows.writerows((keys, f"{share:.6f}") for keys, share in curve)
    return text.getvalue().encode()


def plot_curve(curves: Mapping[str, Curve]) -> "Figure":
    """Draw curves by name in one picture; the caller saves it (``figure.savefig``).

    Raises:
        MasterkeyError: the extra analysis is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise MasterkeyError("drawing needs the extra analysis: pip install 'masterkey[analysis]'") from missing
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot([keys for keys, _ in curve], [share for _, share in curve], marker="o", markersize=3, label=name)
    axes.set(xlabel="keys", ylabel="share of variance explained", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
