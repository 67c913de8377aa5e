"""Coefficients of some filters of each group, for pictures that need points and not histograms."""

from collections.abc import Mapping, Sequence

import numpy as np

from .moments import Array
from .structure import Structure, Surveyed

MOST = 4_000


def sample_coefficients(
    structure: Structure, read: Sequence[Surveyed], groups: Mapping[str, Sequence[int]], most: int = MOST
) -> dict[str, Array]:
    """Return for each group the coefficients (n, K) of at most ``most`` filters, evenly spaced over its layers.

    Raises:
        BankFormatError: a file can no longer be read.
    """
    sources = {of.filters.label: of.filters for of in read}
    found = {}
    for label, layers in groups.items():
        total = sum(structure.layers[index].filters for index in layers)
        step = -(-total // most)
        rows, offset = [], 0
        for index in layers:
            info = structure.layers[index]
            for chunk in sources[info.bank].read(info.position):
                rows.append(structure.coefficients(chunk[offset::step]))
                offset = (offset - len(chunk)) % step
        found[label] = np.concatenate(rows)
    return found
