"""The drift of every pair of groups on the page: beside its level of chance, component by component, and in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .chance import DRAWS, Chance, chance, drawn_by_chance
from .collection import Grouping
from .drift import Drift
from .moments import Array
from .page import Column, LazyRows, Row, Table, Value
from .report_groups import DRAWN, word

_PAIR_COLUMNS = (
    Column("grouping", "grouping", "text"),
    Column("first", "first", "text"),
    Column("second", "second", "text"),
)
_FIGURES = (
    Column("drift", "D"),
    Column("by_chance", "by chance"),
    Column("above_chance", "above chance", "text"),
)
_SPARED = tuple(
    Column(f"{column.key}_without_degenerate", f"{column.label} without degenerate layers", column.kind)
    for column in _FIGURES
)
_NOTE = (
    f"D is the larger by chance alone the fewer filters a group has. By chance: the mean of {DRAWS} draws with the "
    "labels of the two groups' filters permuted (seed 0). Above chance: D is larger than each of them, as about one in "
    "twenty would be of pairs that do not differ."
)


@dataclass(frozen=True)
class Levelled:
    """The drift between groups with its level of chance; None for more groups than a picture shows."""

    drift: Drift
    chance: Chance | None

    def figures(self, a: int, b: int) -> list[Value]:
        """D of a pair of groups, what it is by chance, and whether it is above that."""
        value = float(self.drift.total[a, b])
        if self.chance is None:
            return [value, None, None]
        return [value, float(self.chance.mean[a, b]), "yes" if self.chance.above[a, b] else "no"]


Drifts = Mapping[Grouping, Levelled]


def levelled(drift: Drift) -> Levelled:
    """Give a drift its level of chance, if it has no more than 40 groups: 780 pairs of 7x7 take six seconds."""
    return Levelled(drift, chance(drift) if len(drift.labels) <= DRAWN else None)


def of_pairs(figures: Array) -> Array:
    """Of figures (G, G) between groups those of every two different ones, once each."""
    upper: Array = figures[np.triu_indices(len(figures), 1)]
    return upper


def pairs_table(drifts: Drifts, spared: Drifts, size: str) -> Table:
    """Return D of every pair; ``spared`` are the drifts without degenerate layers."""

    columns = (*_PAIR_COLUMNS, *_FIGURES, *_SPARED)
    keys = [column.key for column in columns]

    def rows() -> Iterator[Row]:
        for by, of in drifts.items():
            without = spared.get(by)
            number = {label: at for at, label in enumerate(without.drift.labels)} if without else {}
            for first, second, a, b in _pairs(of.drift):
                left: list[Value] = [None, None, None]
                if without and first in number and second in number:
                    left = without.figures(number[first], number[second])
                values = [word(by), first, second, *of.figures(a, b), *left]
                yield dict(zip(keys, values, strict=True))

    count = _count(drifts)
    return Table(f"drift-{size}", "Drift of every pair", columns, LazyRows(count, rows), _NOTE, folded=count > 12)


def components_table(drifts: Drifts, size: str) -> Table:
    """Return the divergence of every pair along each component."""

    def rows() -> Iterator[Row]:
        for by, of in drifts.items():
            for first, second, _, along in of.drift.pairs():
                for component, divergence in enumerate(along):
                    yield {
                        "grouping": word(by),
                        "first": first,
                        "second": second,
                        "component": component + 1,
                        "weight": float(of.drift.explained[component]),
                        "divergence": float(divergence),
                    }

    columns = (
        *_PAIR_COLUMNS,
        Column("component", "component", "count"),
        Column("weight", "explained variance", "share"),
        Column("divergence", "symmetric KL divergence"),
    )
    most = max((len(of.drift.explained) for of in drifts.values()), default=0)
    every = LazyRows(_count(drifts) * most, rows)
    return Table(f"drift-components-{size}", "Divergence along each component", columns, every, folded=True)


def largest_drift(of: Levelled) -> str:
    """Say in one sentence which pair has the largest drift above chance, or that none has."""
    pairs = [(first, second, float(of.drift.total[a, b]), a, b) for first, second, a, b in _pairs(of.drift)]
    above = [pair for pair in pairs if of.chance and of.chance.above[pair[3], pair[4]]]
    first, second, value, a, b = max(above or pairs, key=lambda pair: pair[2])
    mean = of.chance.mean[a, b] if of.chance else drawn_by_chance(of.drift, a, b).mean()
    largest = f"D = {value:.3g}, between {first} and {second} (by chance {mean:.3g})"
    if of.chance is None:
        return f"The largest drift is {largest}."
    if len(pairs) == 1:
        return f"The drift is {largest}: {'above' if above else 'not above'} chance."
    if not above:
        return f"No drift of the {len(pairs)} pairs is above chance; the largest is {largest}."
    return f"Of {len(pairs)} pairs {len(above)} drift more than by chance; the largest of these drifts is {largest}."


def _pairs(drift: Drift) -> Iterator[tuple[str, str, int, int]]:
    """Every two different groups, once each, with their numbers."""
    for (a, first), (b, second) in combinations(enumerate(drift.labels), 2):
        yield first, second, a, b


def _count(drifts: Drifts) -> int:
    """How many pairs of groups there are."""
    return sum(len(of.drift.labels) * (len(of.drift.labels) - 1) // 2 for of in drifts.values())
