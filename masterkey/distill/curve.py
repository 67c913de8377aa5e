"""The curve of the error against the number of keys: as data and as a picture."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..analysis.plots.style import as_shown
from ..errors import MasterkeyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]  # number of keys, and the share of variance that they explain
FEW = (1, 2, 4, 8, 16, 32)
EVERY = tuple(range(1, 33))


def curve_csv(curves: Mapping[str, Curve]) -> bytes:
    """Curves by name as CSV: ``keys``, ``explained`` and ``error``, the filters' mean error, which is 1 - explained.

    Several curves have their name in a first column ``filters``.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    named = len(curves) > 1
    rows.writerow((*["filters"] * named, "keys", "explained", "error"))
    for name, curve in curves.items():
        rows.writerows((*[name] * named, keys, f"{share:.6f}", f"{1 - share:.6f}") for keys, share in curve)
    return text.getvalue().encode()


def is_curve(path: Path) -> bool:
    """Whether a CSV file is there and one of curves."""
    try:
        with path.open("rb") as file:
            return file.readline().rstrip() in (b"keys,explained,error", b"filters,keys,explained,error")
    except OSError:
        return False


def plot_curve(curves: Mapping[str, Curve]) -> "Figure":
    """Draw the error of curves by name in one picture, the share explained on the right; the caller saves it.

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
        axes.plot(
            [keys for keys, _ in curve],
            [1 - share for _, share in curve],
            marker="o",
            markersize=3,
            label=as_shown(name),
        )
    axes.set(xlabel="keys", ylabel="mean error of the filters", ylim=(0, 1))
    axes.secondary_yaxis("right", functions=(_other, _other)).set_ylabel("share of variance explained")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _other(share: ArrayLike) -> NDArray[np.float64]:
    return 1 - np.asarray(share, dtype=np.float64)
