"""Degenerate filters by name: near zero, near copies of another, or in a layer that cannot be told from chance."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import SaveError
from .alike import COPY, first_alike
from .quality import DEGENERATE, LayerQuality, Verdict
from .stream import Filters, LayerInfo
from .survey import is_near_zero
from .workers import workers

__all__ = ["COPY", "SEARCHED", "Finding", "FindingLog", "degenerate_filters"]

SEARCHED = 4_500_000  # weights of a layer in which copies are looked for: 500,000 filters of 3x3 are in memory then
_RECORD = np.dtype([("layer", "<u4"), ("index", "<u4"), ("kind", "u1"), ("copy_of", "<u4")])
_TOGETHER = 65_536  # findings that are read back at a time

Records = NDArray[np.void]


@dataclass(frozen=True)
class Finding:
    """One degenerate filter: ``index`` within its layer, and for a near copy the first filter it resembles."""

    bank: str
    layer: str
    index: int
    kind: Verdict
    copy_of: int | None = None


def degenerate_filters(filters: Filters, layers: Sequence[LayerQuality]) -> Iterator[Finding]:
    """Yield degenerate filters in order; copies are not looked for in layers of more than 4,500,000 weights.

    Sparse: eq. 6. Low diversity: |cosine| of at least 0.99 with an earlier filter that is not near zero itself.
    Random: every other filter of a random layer.

    Raises:
        BankFormatError: a file can no longer be read.
        SaveError: there is no room for temporary files.
    """
    log = FindingLog()
    log.search(filters, layers)
    yield from log


def is_searched(info: LayerInfo) -> bool:
    """Whether near copies are looked for in a layer."""
    return info.filters * info.kernel[0] * info.kernel[1] <= SEARCHED


class FindingLog:
    """Findings in a temporary file, 13 bytes each: of an untrained collection every filter is one.

    ``counts`` has how many there are by bank and kind.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Verdict]] = Counter()
        self._layers: list[tuple[str, str]] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as this does

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __iter__(self) -> Iterator[Finding]:
        for records in self._read():
            for layer, index, kind, copy_of in records.tolist():
                (bank, name), verdict = self._layers[layer], DEGENERATE[kind]
                yield Finding(bank, name, index, verdict, copy_of if verdict == "low diversity" else None)

    def search(self, filters: Filters, layers: Sequence[LayerQuality]) -> None:
        """Add the degenerate filters of a bank, in order; ``layers`` are its layers' verdicts.

        Raises:
            BankFormatError: a file can no longer be read.
            SaveError: there is no room for temporary files.
        """
        with workers() as pool:
            found = pool.map(lambda info, quality: _search(filters, info, quality), filters.layers, layers)
            for info, records in zip(filters.layers, found, strict=True):
                self._add(info, records)

    def verdicts(self, layers: Sequence[tuple[str, str]], index: NDArray[np.int64]) -> list[Verdict | None]:
        """Return what was found about some filters, none of them twice.

        Args:
            layers: bank and layer of each.
            index: (n,) its number within its layer.
        """
        numbers = {layer: number for number, layer in enumerate(self._layers)}
        wanted = _keys(np.array([numbers[layer] for layer in layers], dtype=np.uint64), index)
        order = np.argsort(wanted)
        found = np.full(len(wanted), -1)
        for records in self._read():
            keys = _keys(records["layer"], records["index"])
            at = order[np.searchsorted(wanted, keys, sorter=order).clip(max=len(wanted) - 1)]
            same = wanted[at] == keys
            found[at[same]] = records["kind"][same]
        return [DEGENERATE[kind] if kind >= 0 else None for kind in found]

    def _add(self, info: LayerInfo, records: Records) -> None:
        records["layer"] = len(self._layers)
        self._layers.append((info.bank, info.name))
        counts = np.bincount(records["kind"], minlength=len(DEGENERATE)).tolist()
        self.counts.update({(info.bank, kind): count for kind, count in zip(DEGENERATE, counts, strict=True) if count})
        try:
            self._file.seek(0, 2)
            self._file.write(records.tobytes())
        except OSError as error:
            raise SaveError(f"no room for temporary files in {tempfile.gettempdir()}: {error.strerror}") from error

    def _read(self) -> Iterator[Records]:
        at, step = 0, _TOGETHER * _RECORD.itemsize
        while True:
            self._file.seek(at)
            if not (part := self._file.read(step)):
                return
            yield np.frombuffer(part, dtype=_RECORD)
            at += step


def _keys(layer: NDArray[np.unsignedinteger], index: NDArray[np.integer]) -> NDArray[np.uint64]:
    return layer.astype(np.uint64) << np.uint64(32) | index.astype(np.uint64)


def _search(filters: Filters, info: LayerInfo, quality: LayerQuality) -> Records:
    """Find a layer's degenerate filters: records in order, their ``layer`` not yet known."""
    kept, sizes = [], []
    searched = is_searched(info)
    for chunk in filters.read(info.position):
        sizes.append(chunk.abs().amax(dim=1))
        if searched:
            kept.append(chunk)
    sparse = is_near_zero(torch.cat(sizes), quality.near_zero)
    first = own = torch.arange(info.filters)
    if searched:
        weights = torch.cat(kept).double()
        kept.clear()
        weights /= weights.norm(dim=1, keepdim=True).clamp_min(1e-300)
        weights[sparse] = 0.0
        first = first_alike(weights)
    kind = torch.full((info.filters,), DEGENERATE.index("random") if quality.verdict == "random" else -1)
    kind[first < own] = DEGENERATE.index("low diversity")
    kind[sparse] = DEGENERATE.index("sparse")
    index = (kind >= 0).nonzero()[:, 0]
    records = np.zeros(len(index), dtype=_RECORD)
    records["index"], records["kind"], records["copy_of"] = index.numpy(), kind[index].numpy(), first[index].numpy()
    return records
