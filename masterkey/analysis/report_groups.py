"""How a page compares groups of filters, how many of them its pictures can show, and what it says of the others."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..metadata import Kernel, canonical_json
from .collection import Grouping
from .drift import EPSILON, Drift, check_epsilon, drift
from .stream import Filters
from .structure import Structure, Surveyed, kernels

DRAWN = 40  # groups up to which a picture can be read
PAIRED = 700  # groups up to which every two are compared: their number grows with the square
_NAMED = 10  # labels that a sentence lists

_SINGULAR: dict[Grouping, str] = {"dataset": "data set", "decile": "depth decile"}
_PLURAL: dict[Grouping, str] = {"family": "families"}

Of = TypeVar("Of")


@dataclass(frozen=True)
class Comparison:
    """How groups are formed and compared.

    Attributes:
        by: grouping of the distributions, the divergence along components, and S and H over depth; None: banks, or of
            one bank depth deciles.
        epsilon, renormalise: as for ``masterkey.analysis.drift.drift``.
    """

    by: Grouping | None = None
    epsilon: float = EPSILON
    renormalise: bool = True

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def drift(self, structure: Structure, groups: Mapping[str, Sequence[int]]) -> Drift:
        """Measure the drift between groups of layers."""
        return drift(structure, groups, epsilon=self.epsilon, renormalise=self.renormalise)

    @property
    def said(self) -> list[str]:
        """What differs from the defaults of eq. 4, for people."""
        if self.epsilon == EPSILON and self.renormalise:
            return []
        again = "divided by their sum again" if self.renormalise else "not divided by their sum again"
        return [f"Distributions have at least epsilon = {self.epsilon:g} in every bin and are {again}."]


def word(by: Grouping) -> str:
    """A grouping in words: one of its groups."""
    return _SINGULAR.get(by, by)


def words(by: Grouping, count: int) -> str:
    """So many groups in words."""
    return f"{count:,} {word(by) if count == 1 else _PLURAL.get(by, f'{word(by)}s')}"


def drawable(groups: Mapping[str, Of], by: Grouping, what: str) -> tuple[dict[str, Of], list[str]]:
    """Return the groups that a picture shows, the first 40, and what to say if those are not all."""
    shown = dict(list(groups.items())[:DRAWN])
    if len(shown) == len(groups):
        return shown, []
    return shown, [f"{what}: the first {DRAWN} of {words(by, len(groups))}; another --by may have fewer groups."]


def listed(labels: Sequence[str]) -> str:
    """The first ten labels, and how many more there are."""
    more = f" and {len(labels) - _NAMED:,} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def alone(read: Sequence[Surveyed]) -> dict[str, list[Kernel]]:
    """Return the banks that have no kernel in common with any other, and the kernels they have; 1x1 does not count."""
    found = {of.filters.label: kernels([of]) for of in read}
    banks = Counter(kernel for sizes in found.values() for kernel in sizes)
    return {
        label: sizes
        for label, sizes in found.items()
        if len(found) > 1 and sizes and all(banks[kernel] < 2 for kernel in sizes)
    }


def refusal(read: Sequence[Surveyed]) -> str:
    """Say in one sentence which banks are left out of the drift, because no other has their kernel; "" if none is."""
    left_out = alone(read)
    if not left_out:
        return ""
    banks = listed([f"{label} ({', '.join(map(size_of, sizes)) or 'none'})" for label, sizes in left_out.items()])
    have, are = ("have", "are") if len(left_out) > 1 else ("has", "is")
    largest = size_of(max(kernels(read), default=(7, 7)))
    return (
        f"drift compares filters of one kernel: {banks} {have} none in common with any other bank "
        f"and {are} left out of it; --resize {largest} fits the filters of all banks to one"
    )


def selected(banks: Iterable[Filters]) -> list[str]:
    """Say which banks lack layers of their network, since their depths are then not those in it; [] if none does."""
    # in canonical JSON a step reads the same at any depth, as those of a joined bank's parts are
    labels = [bank.label for bank in banks if '"op":"select"' in canonical_json(bank.metadata.transformations)]
    if not labels:
        return []
    return [
        f"Depth counts the layers that a bank has. Layers were left out of {listed(labels)} (select), so depths and "
        "deciles there are not those in the network; a whole bank is analysed kernel by kernel, with its own depths."
    ]


def size_of(kernel: Kernel) -> str:
    """A kernel in words."""
    return f"{kernel[0]}x{kernel[1]}"
