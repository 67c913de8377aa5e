"""Keys that are known already, to compare those found with: the closed form, and a bank of one's own."""

from collections.abc import Iterable

from torch import Tensor

from ..bank import Bank
from ..closed_form.scale_space import scale_space_filters
from ..errors import MasterkeyError
from ..late import LateBank
from ..metadata import Kernel
from ..shapes import filter_table

CLOSED_FORM = "scale-space-8"
MOST = 50
_LEAST = 3  # side of the smallest kernel at which the closed form is more than a blur

Known = dict[str, Tensor]


def known_keys(kernels: Iterable[Kernel], reference: Bank | None = None) -> dict[Kernel, Known]:
    """Return for each kernel the keys (P, kh, kw) to compare with, by name: ``scale-space-8``, and ``reference``.

    Raises:
        MasterkeyError: ``reference`` has none of the kernels, or more than 50 filters of one.
    """
    kernels = list(kernels)
    known = {
        kernel: {CLOSED_FORM: scale_space_filters(kernel)[:, 0]} if min(kernel) >= _LEAST else {} for kernel in kernels
    }
    if reference is None:
        return known
    given = {kernel: planes for kernel in kernels if (planes := _filters(reference, kernel)) is not None}
    if not given:
        raise MasterkeyError(
            f"{reference.name} has filters of {_sizes(reference.counts())}, so it is no reference for keys of "
            f"{_sizes(kernels) or 'nothing'}"
        )
    for kernel, planes in given.items():
        if len(planes) > MOST:
            raise MasterkeyError(
                f"{reference.name} has {len(planes):,} filters of {_sizes([kernel])}; a reference for keys has {MOST} "
                "at most, such as a bank that masterkey distill made"
            )
        known[kernel][reference.name] = planes
    return known


def _filters(reference: Bank, kernel: Kernel) -> Tensor | None:
    if isinstance(reference, LateBank):
        reference = reference.at(kernel)
    if kernel not in reference.counts():
        return None
    return filter_table(reference.select(kernel=kernel).layers, reference.name).filters


def _sizes(kernels: Iterable[Kernel]) -> str:
    return ", ".join(f"{kh}x{kw}" for kh, kw in kernels)
