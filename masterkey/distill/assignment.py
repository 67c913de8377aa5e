"""What became of every source filter: its key, ``f = a * key + b``, what that leaves, and whether it was pruned."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BankFormatError
from ..shapes import FilterTable, Shapes
from .pruning import REASONS, Pruning
from .randomness import CHUNK

COLUMNS = ("layer", "filter", "key", "a", "b", "error", "pruned")
NO_KEY = -1


@dataclass(frozen=True)
class Assignment:
    """One row for every source filter, in the source's order.

    Attributes:
        names: the source's layers.
        layer: (n,) number of the filter's layer in ``names``.
        index: (n,) number of the filter inside its layer.
        key: (n,) number of its key, -1 for a constant filter, which needs none.
        a, b: (n,) float32, so that ``a * key + b`` is nearest to the filter; b is the filter's mean.
        error: (n,) float32, |f - a * key - b|^2 / |f - b|^2: 0 is exact, 1 is nothing; 0 for a constant filter.
        verdict: (n,) number in ``masterkey.distill.pruning.REASONS``; keys were sought among those of verdict 0.
    """

    names: tuple[str, ...]
    layer: Tensor
    index: Tensor
    key: Tensor
    a: Tensor
    b: Tensor
    error: Tensor
    verdict: Tensor

    def __len__(self) -> int:
        return len(self.key)

    def counts(self, keys: int) -> list[int]:
        """How many filters that were not pruned each key stands for."""
        counts: list[int] = torch.bincount(self.key[self.verdict == 0], minlength=keys).tolist()
        return counts

    def reconstruct(self, keys: Tensor) -> Tensor:
        """The filters as the keys (K, 1, kh, kw) give them: (n, kh, kw)."""
        planes = torch.where((self.key == NO_KEY)[:, None, None], 0.0, keys[self.key.clamp(min=0), 0])
        return self.a[:, None, None] * planes + self.b[:, None, None]

    def to_csv(self) -> bytes:
        """The table as UTF-8 CSV; numbers with nine digits, which read back as the same float32."""
        columns = (self.layer, self.index, self.key, self.a, self.b, self.error, self.verdict)
        parts = zip(*(column.split(CHUNK) for column in columns), strict=True)
        return b"".join((",".join(COLUMNS).encode() + b"\n", *(self._lines(part) for part in parts)))

    def _lines(self, columns: Sequence[Tensor]) -> bytes:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for layer, index, key, a, b, error, verdict in zip(*(column.tolist() for column in columns), strict=True):
            named = "" if key == NO_KEY else key
            rows.writerow((self.names[layer], index, named, f"{a:.9g}", f"{b:.9g}", f"{error:.9g}", REASONS[verdict]))
        return text.getvalue().encode()


def assign(table: FilterTable, shapes: Shapes, keys: Tensor, pruning: Pruning) -> Assignment:
    """Give every filter the key, of (K, d) shapes, with the largest squared cosine."""
    cosines = torch.empty(len(shapes.unit))
    nearest = torch.empty(len(shapes.unit), dtype=torch.long)
    for start in range(0, len(shapes.unit), CHUNK):
        part = shapes.unit[start : start + CHUNK] @ keys.T
        which = part.abs().argmax(1)
        nearest[start : start + len(part)] = which
        cosines[start : start + len(part)] = part.gather(1, which[:, None])[:, 0]
    flat = shapes.norm == 0
    return Assignment(
        names=table.names,
        layer=table.layer,
        index=table.index,
        key=torch.where(flat, NO_KEY, nearest),
        a=torch.where(flat, 0.0, cosines.double() * shapes.norm).float(),
        b=shapes.mean.float(),
        error=torch.where(flat, 0.0, 1 - cosines.double().square()).clamp(0, 1).float(),
        verdict=pruning.verdict,
    )


def parse_assignment(data: bytes, where: str) -> Assignment:
    """Read what ``Assignment.to_csv`` wrote.

    Raises:
        BankFormatError: another header, or a row that cannot be understood; names the line.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BankFormatError(f"{where} is no CSV of an assignment: {error}") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise BankFormatError(f"{where} is no assignment: its first line is not {','.join(COLUMNS)}")
    names: dict[str, int] = {}
    read: list[tuple[float, ...]] = []
    for line, row in enumerate(rows[1:], start=2):
        try:
            name, index, key, *numbers, pruned = row
            a, b, left = map(float, numbers)
            place = (names.setdefault(name, len(names)), int(index), int(key) if key else NO_KEY)
            read.append((*place, a, b, left, REASONS.index(pruned)))
        except ValueError as problem:
            raise BankFormatError(f"{where}, line {line}: {problem}") from problem
    return _from_rows(tuple(names), read)


def _from_rows(names: tuple[str, ...], rows: Sequence[tuple[float, ...]]) -> Assignment:
    columns = torch.tensor(rows, dtype=torch.float64).reshape(-1, len(COLUMNS)).unbind(1)
    layer, index, key, a, b, error, verdict = columns
    return Assignment(
        names, layer.long(), index.long(), key.long(), a.float(), b.float(), error.float(), verdict.long()
    )
