"""What an injection did, layer by layer."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .metadata import Kernel
from .rules import DEFAULT_SCALE, KernelRule, ScaleRule

if TYPE_CHECKING:
    from .plan import Assignment, Span


@dataclass(frozen=True)
class ReportRow:
    """One layer of the network: what went in and from where, or why nothing did."""

    layer: str
    kernel: Kernel
    filters: int
    replaced: bool = False
    sources: tuple[str, ...] = ()
    fitted: str | None = None
    wrapped: bool = False
    reason: str | None = None

    def filled(self, assignment: "Assignment") -> "ReportRow":
        """Return the row of a layer that got ``assignment``."""
        return replace(
            self,
            replaced=True,
            sources=tuple(_repeats(assignment.spans)),
            fitted=assignment.fitted,
            wrapped=assignment.wrapped,
        )

    def left_alone(self, reason: str) -> "ReportRow":
        """Return the row of a layer that kept its own weights."""
        return replace(self, reason=reason)

    def cells(self) -> list[str]:
        """The row of the table that people read."""
        size = f"{self.filters} of {self.kernel[0]}x{self.kernel[1]}"
        if not self.replaced:
            return [self.layer, size, "left alone", self.reason or ""]
        source = self.sources[0] if len(self.sources) == 1 else f"{self.sources[0]} … {self.sources[-1]}"
        notes = [note for note in (self.fitted, "wrapped" if self.wrapped else None) if note]
        return [self.layer, size, source, ", ".join(notes)]


def _repeats(spans: "Iterable[Span]") -> Iterator[str]:
    """Name each run once, with how often it follows itself: eight keys fill a layer many times over."""
    for span, again in groupby(spans):
        times = len(list(again))
        yield f"{span} x{times}" if times > 1 else str(span)


_UNSAID = ("computed", "renamed")  # steps that the bank's name tells


@dataclass(frozen=True)
class Report:
    """What ``inject`` did. ``str(report)`` is a table, ``report.to_dict()`` plain data.

    ``sha256`` is of the bank's filters, those of a computed bank as it was computed for this network, and ``steps``
    are what the algebra did to them, as in their metadata; ``kernel``, ``scale``, ``seed`` and ``layers`` are what
    ``inject`` was given. ``trainable_before`` and ``trainable_after`` count weights in ``model.parameters()`` that
    learn; frozen filters are buffers and no longer counted.
    """

    bank: str
    kind: str
    policy: str
    frozen: bool
    order: str
    rows: tuple[ReportRow, ...]
    trainable_before: int
    trainable_after: int
    kernel: KernelRule
    scale: ScaleRule
    seed: int
    layers: int | str | list[str] | None
    steps: tuple[dict[str, Any], ...]
    sha256: str

    @property
    def replaced(self) -> tuple[ReportRow, ...]:
        """The rows of the layers that hold the bank."""
        return tuple(row for row in self.rows if row.replaced)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """One sentence: how many layers and filters, and what became of the trainable weights."""
        count = sum(row.filters for row in self.replaced)
        state = "frozen" if self.frozen else "trainable"
        taken = "".join(f", {step['op']}" for step in self.steps if step["op"] not in _UNSAID)
        scaled = "" if self.scale == DEFAULT_SCALE else f", scale={self.scale}"
        # the order decides which layer takes what, and a network that could not be followed has only that of its code
        order = "" if self.order == "forward" else f"; layers in order of {self.order}"
        return (
            f"{self.bank}{taken}: {count:,} {self.kind} filters in {len(self.replaced)} of {len(self.rows)} "
            f"layers, {state}{scaled}; trainable weights {self.trainable_before:,} -> {self.trainable_after:,}{order}"
        )

    def __str__(self) -> str:
        from .table import format_table

        rows = [row.cells() for row in self.rows]
        return f"{format_table(['layer', 'filters', 'from', 'how'], rows)}\n{self.summary()}"
