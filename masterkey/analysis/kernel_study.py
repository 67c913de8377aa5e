"""What families and keys of one kernel are found from: its filters, what pruning says of them, the methods trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..distill import Prepared, Pruning, prepare, prune
from ..distill.autoencoder import CodeLine
from ..distill.greedy import CANDIDATES, GreedyKeys
from ..metadata import Kernel
from ..shapes import FilterTable, filter_table, shapes_of
from .drawn import MOST, Drawn, draw
from .structure import Surveyed

SEED = 0


@dataclass(frozen=True)
class KernelStudy:
    """Filters of one kernel, ready for families and keys.

    Attributes:
        kernel: (kh, kw).
        drawn: the filters, and of how many.
        table: the same in one tensor; ``layer`` counts in ``drawn.layers``.
        pruning: as ``masterkey.distill`` prunes before it seeks keys.
        methods: by name, trained on the filters that pruning kept; empty if it kept none, and without ``greedy`` if it
            kept fewer than that has candidates.
    """

    kernel: Kernel
    drawn: Drawn
    table: FilterTable
    pruning: Pruning
    methods: dict[str, Prepared]

    @property
    def size(self) -> str:
        """The kernel in words."""
        return f"{self.kernel[0]}x{self.kernel[1]}"

    @property
    def alive(self) -> Tensor:
        """Mask (n,) of the filters that have a shape: neither dead nor constant."""
        return self.pruning.living

    @property
    def line(self) -> CodeLine | None:
        """The autoencoder of ``greedy``, if that was trained."""
        keys_of = self.methods["greedy"].keys_of if "greedy" in self.methods else None
        return keys_of.line if isinstance(keys_of, GreedyKeys) else None

    @property
    def kept(self) -> Tensor:
        """The filters (n, kh, kw) that pruning kept."""
        return self.table.filters[self.pruning.kept]


def study(read: Sequence[Surveyed], kernel: Kernel, most: int = MOST) -> KernelStudy:
    """Draw the filters of one kernel, prune them and train ``greedy`` and ``kmeans`` on what is kept, all by seed 0.

    Without a sample the keys of each method are those that ``masterkey distill`` finds in a single bank.

    Raises:
        MasterkeyError: there is no such filter, or 1x1 is asked for.
        BankFormatError: a file can no longer be read.
    """
    drawn = draw(read, kernel, most, SEED)
    table = filter_table(drawn.bank.layers, "the collection")
    pruning = prune(table, shapes_of(table.filters))
    left = int(pruning.kept.sum())
    names = ["greedy"] * (left >= CANDIDATES) + ["kmeans"] * (left > 0)
    return KernelStudy(kernel, drawn, table, pruning, {name: prepare(drawn.bank, name, SEED) for name in names})
