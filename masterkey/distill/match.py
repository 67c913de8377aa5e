"""How near keys found come to keys that are known."""

from torch import Tensor

from ..extra import needs
from ..host import on_host


@on_host()
def match(keys: Tensor, known: Tensor) -> list[tuple[int | None, float]]:
    """Match keys (K, d) one to one with known ones (P, d), so that the sum of |cosine| is largest (Hungarian method).

    Both are shapes, centred and of norm 1; a key and its negative are the same.

    Returns:
        For each known key the number of its key and their cosine; None and 0 where there are too few keys.

    Raises:
        MasterkeyError: scipy is not installed.
    """
    cosines = known @ keys.T
    rows, columns = needs("scipy.optimize").linear_sum_assignment(-cosines.abs().numpy())
    matched: list[tuple[int | None, float]] = [(None, 0.0)] * len(known)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        matched[row] = (column, float(cosines[row, column]))
    return matched


@on_host()
def mean_match(keys: Tensor, known: Tensor) -> float:
    """Mean |cosine| over the known keys of ``match``."""
    return sum(abs(cosine) for _, cosine in match(keys, known)) / len(known)
