"""Filters of an ONNX file in a collection: parsed anew when they are needed, so that many need not fit into memory."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from ..bank import Bank
from ..errors import BankFormatError
from ..onnx_source import spatial_from_onnx
from .stream import BankFilters

_AT_A_TIME = 2  # files kept in memory: two threads read, each the layers of one file after the other


class OnnxFilters:
    """All filters larger than 1x1 of an ONNX file, depthwise, grouped and dense.

    Raises:
        CheckpointError: the file cannot be read, holds no such filters, or the extra ``onnx`` is missing.
        BankFormatError: a filter is NaN or infinite.
    """

    def __init__(self, path: Path, label: str) -> None:
        self.path, self.label = path, label
        bank = _bank(path, _stamp(path))
        self._verified = bank.metadata.source.sha256_verified
        self.metadata, self.layers = bank.metadata, BankFilters(bank, label).layers

    def read(self, position: int, *, first: bool = False) -> Iterator[Tensor]:
        """Yield a layer's filters in chunks (n, kh*kw); what is wrong with a file is found when it is parsed.

        Raises:
            CheckpointError: the file can no longer be read.
            BankFormatError: it is another file by now.
        """
        bank = _bank(self.path, _stamp(self.path))
        if bank.metadata.source.sha256_verified != self._verified:
            raise BankFormatError(f"{self.path} was changed while it was read")
        yield from BankFilters(bank, self.label).read(position)


@lru_cache(maxsize=_AT_A_TIME)
def _bank(path: Path, stamp: tuple[int, int]) -> Bank:
    return spatial_from_onnx(path)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError as error:
        raise BankFormatError(f"cannot read {path}: {error.strerror}") from error
    return about.st_mtime_ns, about.st_size
