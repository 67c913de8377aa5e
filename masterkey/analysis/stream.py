"""Filters a chunk at a time, layer after layer, from memory or from a bank's file: a file need not fit into memory."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bank import Bank
from ..errors import BankFormatError, MasterkeyError
from ..fit import fit_kernel
from ..format import METADATA_KEY, WEIGHTS_NAME, check_entry, read_header
from ..metadata import Kernel, Layer, Metadata, as_kernel, parse_metadata
from ..rules import KernelRule

LARGEST = 1_024  # weights of a filter that others are fitted to: each layer has two tables of that number squared
CHUNK = 150_000  # weights in a chunk: 0.6 MB, which stays in a core's own cache from step to step


@dataclass(frozen=True)
class LayerInfo:
    """Where a layer stands: of which bank, and at which ``position`` (from 0) among its ``of`` layers.

    ``filters`` counts spatial slices: output channels times input channels per group.
    """

    bank: str
    name: str
    kernel: Kernel
    filters: int
    position: int
    of: int

    @property
    def depth(self) -> float:
        """Relative depth of the layer's middle, between 0 (input) and 1 (output), among the layers that the bank has.

        After ``Bank.select`` that is no longer the depth in the network.
        """
        return (self.position + 0.5) / self.of

    @property
    def decile(self) -> int:
        """Depth decile, 0 to 9."""
        return int(10 * self.depth)


class Filters(Protocol):
    """Layers of filters that can be read again and again."""

    label: str
    metadata: Metadata
    layers: tuple[LayerInfo, ...]

    def read(self, position: int, *, first: bool = False) -> Iterator[Tensor]:
        """Yield a layer's filters in chunks (n, kh*kw), float32.

        ``first``: verify them; every layer is then to be read, in order.

        Raises:
            BankFormatError: the filters cannot be read or are not those that the file promises.
        """
        ...


class BankFilters:
    """The filters of a bank in memory."""

    def __init__(self, bank: Bank, label: str | None = None) -> None:
        self.label = label or bank.name
        self.metadata = bank.metadata
        self._layers = list(bank.layers.values())
        self.layers = _infos(self.label, bank.metadata.layers, [tensor.shape[1] for tensor in self._layers])

    def read(self, position: int, *, first: bool = False) -> Iterator[Tensor]:
        """Yield a layer's filters in chunks (n, kh*kw); they were verified when the bank was made."""
        yield from self._layers[position].flatten(2).flatten(0, 1).split(_rows(self.layers[position].kernel))


class FileFilters:
    """The filters of a bank's file, read anew each time.

    Raises:
        BankFormatError: the file is not a bank; what only its weights show is found while they are read.
    """

    def __init__(self, path: Path, label: str | None = None) -> None:
        self.path = path / WEIGHTS_NAME if path.is_dir() else path
        header = read_header(self.path)
        if METADATA_KEY not in header.metadata:
            raise BankFormatError(f"{self.path} is not a bank: it has no '{METADATA_KEY}' metadata")
        self.metadata, self._stated = parse_metadata(header.metadata[METADATA_KEY], str(self.path))
        names = [layer.name for layer in self.metadata.layers]
        if not names or len(set(names)) != len(names) or set(names) != set(header.tensors):
            raise BankFormatError(f"{self.path}: the layers named in its metadata are not the tensors it holds")
        for layer in self.metadata.layers:
            check_entry(str(self.path), self.metadata.kind, layer, header.tensors[layer.name])
        self.label = label or self.metadata.name
        self._shapes = [header.tensors[name]["shape"] for name in names]
        # offsets count from the end of the header, and the tensors fill the rest of the file
        start = self.path.stat().st_size - max(entry["data_offsets"][1] for entry in header.tensors.values())
        self._offsets = [start + header.tensors[name]["data_offsets"][0] for name in names]
        self.layers = _infos(self.label, self.metadata.layers, [shape[1] for shape in self._shapes])
        self._first = threading.local()  # halves of one file are read by several threads at once, each on its own

    def read(self, position: int, *, first: bool = False) -> Iterator[Tensor]:
        """Yield a layer's filters in chunks (n, kh*kw); verify them when they are read for the first time."""
        if first:
            self._begin(position)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._offsets[position])
                for block in self._blocks(file, position):
                    if first:
                        self._note(block, position)
                    yield torch.from_numpy(block)
        except OSError as error:
            raise BankFormatError(f"cannot read {self.path}: {error.strerror}") from error
        if first and position + 1 == len(self.layers) and (found := self._first.digest.hexdigest()) != self._stated:
            raise BankFormatError(
                f"{self.path} is damaged: its filters hash to {found[:16]}…, its metadata states {self._stated[:16]}…; "
                "get the file again"
            )

    def _blocks(self, file: FileIO, position: int) -> Iterator[NDArray[np.float32]]:
        info = self.layers[position]
        rows, area = _rows(info.kernel), info.kernel[0] * info.kernel[1]
        for start in range(0, info.filters, rows):
            block = np.empty((min(rows, info.filters - start), area), dtype="<f4")
            if file.readinto(block.data.cast("B")) != block.nbytes:
                raise BankFormatError(f"{self.path} ends within layer {info.name}; get the file again")
            yield block.astype(np.float32, copy=False)

    def _begin(self, position: int) -> None:
        """Hash a layer's name and sizes, as ``masterkey.format.filters_sha256`` does."""
        if position == 0:
            self._first.digest = hashlib.sha256()
        shape = ",".join(map(str, self._shapes[position]))
        self._first.digest.update(f"{self.layers[position].name}\0{shape}\0".encode())

    def _note(self, block: NDArray[np.float32], position: int) -> None:
        self._first.digest.update(block.astype("<f4", copy=False).data.cast("B"))
        if not np.isfinite(block.sum(dtype=np.float64)):  # finite if and only if every weight is
            raise BankFormatError(
                f"{self.path}: layer {self.layers[position].name} holds weights that are NaN or infinite"
            )


class ResizedFilters:
    """Other filters, every one fitted to ``kernel`` while it is read (see ``masterkey.fit``).

    Raises:
        MasterkeyError: ``kernel`` is no kernel, or one of more than 1,024 weights.
    """

    def __init__(self, filters: Filters, kernel: int | Kernel, how: KernelRule = "resample") -> None:
        kernel = as_kernel(kernel)
        if kernel[0] * kernel[1] > LARGEST:
            raise MasterkeyError(
                f"filters cannot be compared at {kernel[0]}x{kernel[1]}, for that takes gigabytes; 32x32 is the largest"
            )
        self.label, self.metadata = filters.label, filters.metadata
        self.layers = tuple(replace(info, kernel=kernel) for info in filters.layers)
        self._filters, self._kernel, self._how = filters, kernel, how

    def read(self, position: int, *, first: bool = False) -> Iterator[Tensor]:
        """Yield a layer's filters in chunks (n, kh*kw)."""
        kernel = self._filters.layers[position].kernel
        for chunk in self._filters.read(position, first=first):
            for part in chunk.split(_rows(self._kernel)):
                yield fit_kernel(part.view(-1, 1, *kernel), self._kernel, self._how).flatten(1)


def _infos(label: str, layers: Sequence[Layer], channels: Sequence[int]) -> tuple[LayerInfo, ...]:
    return tuple(
        LayerInfo(label, layer.name, layer.kernel, layer.filters * c, position, len(layers))
        for position, (layer, c) in enumerate(zip(layers, channels, strict=True))
    )


def _rows(kernel: Kernel) -> int:
    return max(1, CHUNK // (kernel[0] * kernel[1]))
