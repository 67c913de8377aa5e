"""Tensors out of a remote checkpoint in torch's zip format, of which the rest is never read.

A zip archive ends with its directory; torch's holds one record with the pickle, which knows names, shapes and
types, and one record a storage. Directory and pickle are read; torch itself reads the pickle, without running
anything, in a copy of the archive whose storages are empty, and says for each tensor which storage it lies in; the
storages of the wanted tensors are read then.
"""

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import Checkpoint, Wanted, load_torch_zip, select_tensors, state_in
from ..errors import CheckpointError
from .ranges import RangeReader

_BLOCK = 64 * 1024  # what is read at once of directory and pickle
_WITH_CONTENT = ("data.pkl", "byteorder", "version")
_WITHOUT = (".format_version", ".storage_alignment", ".data/serialization_id")
_LONGEST_EXTRA = 256  # torch fills up to the next multiple of 64 bytes
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


class NotReadInPartsError(CheckpointError):
    """A checkpoint that has to be read whole."""


@dataclass(frozen=True)
class _Record:
    begin: int  # of the record's own header
    end: int  # at most
    size: int


def read_torch(reader: RangeReader, wanted: Wanted) -> Checkpoint:
    """Read the tensors for which ``wanted(name, shape)`` holds, in the checkpoint's own order.

    Raises:
        NotReadInPartsError: an older format.
        CheckpointError: damaged, or a pickle that asks for more than tensors and plain containers.
        HubError: it could not be read.
    """
    if not reader.first(_BLOCK).startswith(b"PK\3\4"):
        raise NotReadInPartsError(f"{reader.name} is not in torch's zip format")
    try:
        archive = zipfile.ZipFile(_Blocks(reader))
        stub, records = _without_storages(archive, reader.name)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise CheckpointError(f"{reader.name} is cut short or damaged: {error!s:.100}") from error
    content = load_torch_zip(stub, reader.name)
    entry, state = state_in(content, reader.name)
    chosen = select_tensors(state, wanted)
    placed = {name: _record_of(name, value, records, reader.name) for name, value in chosen.tensors.items()}
    blocks = reader.read([(record.begin, record.end) for record in placed.values()]) if placed else []
    read = {
        name: _tensor(name, value, placed[name], block, reader.name)
        for (name, value), block in zip(chosen.tensors.items(), blocks, strict=True)
    }
    return Checkpoint(read, ordered=True, entry=entry, total=chosen.total)


def _without_storages(archive: zipfile.ZipFile, where: str) -> tuple[io.BytesIO, dict[int, _Record]]:
    """Copy an archive without its storages; return it, and the records by where the copy has them."""
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    stub = io.BytesIO()
    records: dict[int, _Record] = {}
    with zipfile.ZipFile(stub, "w") as copy:
        for info in infos:
            inner = info.filename.partition("/")[2]
            if info.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"{where} is a compressed archive, which torch.save does not write")
            if inner in _WITHOUT:  # with these torch would count storages' places for itself
                continue
            content = archive.read(info) if inner in _WITH_CONTENT else b""
            if inner == "byteorder" and content != b"little":
                raise NotReadInPartsError(f"{where} has big-endian numbers")
            begin = stub.tell()
            copy.writestr(zipfile.ZipInfo(info.filename), content)
            start = _LOCAL_HEADER.size + len(info.filename.encode())
            end = info.header_offset + start + _LONGEST_EXTRA + info.file_size
            records[begin + start] = _Record(info.header_offset, end, info.file_size)
    stub.seek(0)
    return stub, records


def _record_of(name: str, tensor: Tensor, records: Mapping[int, _Record], where: str) -> _Record:
    storage = tensor.untyped_storage()
    offset = getattr(storage, "_checkpoint_offset", None)
    record = records.get(offset) if offset is not None else None
    if record is None:
        raise NotReadInPartsError(f"{where}: torch does not say where {name} lies")
    # torch 2.10 takes a fake storage's bytes for its elements; that a tensor fits its record is seen when it is read
    if record.size not in (storage.nbytes(), storage.nbytes() // tensor.element_size()):
        raise CheckpointError(
            f"{where}: {name} lies in a storage of {storage.nbytes():,} bytes, the archive has {record.size:,}"
        )
    return record


def _tensor(name: str, described: Tensor, record: _Record, block: bytes, where: str) -> Tensor:
    """Put the bytes of a record under a tensor that so far had none."""
    if len(block) < _LOCAL_HEADER.size or not block.startswith(b"PK\3\4"):
        raise CheckpointError(f"{where}: the archive has no record where its directory says {name} lies")
    *_, name_length, extra_length = _LOCAL_HEADER.unpack_from(block)
    begin = _LOCAL_HEADER.size + name_length + extra_length
    data = bytearray(block[begin : begin + record.size])
    if len(data) != record.size or not data:
        raise CheckpointError(f"{where}: the archive's record of {name} is cut short or not where it should be")
    storage = torch.frombuffer(data, dtype=torch.uint8).untyped_storage()
    try:
        empty = torch.empty(0, dtype=described.dtype)
        return empty.set_(storage, described.storage_offset(), described.shape, described.stride())
    except RuntimeError as error:
        raise CheckpointError(f"{where}: {name} reaches beyond its storage") from error


class _Blocks(io.RawIOBase):
    """A remote file for ``zipfile`` to seek and read in, fetched in blocks that are kept."""

    def __init__(self, reader: RangeReader) -> None:
        self._reader = reader
        self._position = 0
        self._blocks: dict[int, bytes] = {}

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._reader.size}[whence]
        if start + offset < 0:
            raise ValueError("it is shorter than any archive")
        self._position = start + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._reader.size if size < 0 else min(self._position + size, self._reader.size)
        if end <= self._position:
            return b""
        first, last = self._position // _BLOCK, (end - 1) // _BLOCK
        missing = [i for i in range(first, last + 1) if i not in self._blocks]
        spans = [(i * _BLOCK, min((i + 1) * _BLOCK, self._reader.size)) for i in missing]
        self._blocks.update(zip(missing, self._reader.read(spans) if spans else [], strict=True))
        whole = b"".join(self._blocks[i] for i in range(first, last + 1))
        found = whole[self._position - first * _BLOCK : end - first * _BLOCK]
        self._position = end
        return found
