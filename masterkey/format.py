"""The bank file: written byte for byte the same each time, and read with suspicion (docs/format.md)."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .errors import BankFormatError, NewerFormatError, UnreadableError
from .metadata import FORMAT_VERSION, Layer, Metadata, canonical_json, parse_metadata, strict_json
from .whole import LARGEST

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
METADATA_KEY = "masterkey"
_HEADER_LIMIT = 100_000_000  # safetensors' own limit on its header, in bytes


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: entries as written (dtype, shape, data_offsets), and its metadata."""

    tensors: dict[str, dict[str, Any]]
    metadata: dict[str, str]


def filters_sha256(layers: Mapping[str, Tensor]) -> str:
    """Hash the filters, independent of how a file lays them out.

    For each layer in order: its name, a NUL, its four sizes in decimal separated by commas, a NUL, and its
    weights as little-endian float32 in row-major order.
    """
    digest = hashlib.sha256()
    for name, tensor in layers.items():
        digest.update(f"{name}\0{','.join(map(str, tensor.shape))}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash a whole file.

    Raises:
        UnreadableError: it cannot be read.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_bank(path: Path) -> bool:
    """Whether there is a weights file of a bank, by its header alone."""
    try:
        return path.is_file() and METADATA_KEY in read_header(path).metadata  # a pipe would be waited for
    except (OSError, ValueError, BankFormatError):
        return False


def encode(layers: Mapping[str, Tensor], metadata: Metadata) -> bytes:
    """Return the bytes of ``model.safetensors``; equal banks give equal bytes in any process.

    All metadata goes under one key, because safetensors writes several keys in an order that varies.

    Raises:
        BankFormatError: the metadata says something that a reader would refuse.
    """
    text = canonical_json(metadata.to_dict(filters_sha256(layers)))
    parse_metadata(text, f"bank {metadata.name!r:.200}")
    # cloned, because safetensors refuses tensors that share memory, as the copies of a repeated bank do
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in layers.items()
    }
    data: bytes = save(tensors, metadata={METADATA_KEY: text})
    return data


def read(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    """Read and verify a bank file: layers (n, c, kh, kw) float32 in forward order, and its metadata.

    The header is checked against the file's size and against the metadata before any tensor is allocated;
    hash and finiteness after reading.

    Raises:
        UnreadableError: it cannot be read.
        NewerFormatError: a format that is still to come.
        BankFormatError: not a bank, or not the bank that its metadata and hash describe.
    """
    with opened(path) as file:
        header, raw = _read_header(file, path)
        if METADATA_KEY not in header.metadata:
            raise BankFormatError(
                f"{path} is a safetensors file but not a bank: it has no '{METADATA_KEY}' metadata; if it is a "
                f"network's checkpoint, make a bank of it with: masterkey extract {path} -o DIR"
            )
        metadata, stated = _parse(header.metadata[METADATA_KEY], path)
        _check_layers(path, header, metadata)
        # not mapped into memory: a mapped file that is cut short later would take the whole process down
        data = raw + file.read()
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise BankFormatError(f"{path} is not a sound safetensors file: {error}") from error
    layers = {layer.name: tensors[layer.name] for layer in metadata.layers}
    found = filters_sha256(layers)
    if found != stated:
        raise BankFormatError(
            f"{path} is damaged: its filters hash to {found[:16]}…, its metadata states {stated[:16]}…; "
            "get the file again"
        )
    check_finite(layers, str(path))
    return layers, metadata


def check_finite(layers: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        BankFormatError: names the first layer with such a weight and counts them.
    """
    for name, tensor in layers.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise BankFormatError(f"{where}: layer {name} holds {bad:,} weights that are NaN or infinite")


def read_header(path: Path) -> Header:
    """Read only the header of a safetensors file and check it against the file's size.

    Raises:
        UnreadableError: missing, or it cannot be read.
        BankFormatError: empty, truncated, foreign, or with sizes that lie.
    """
    with opened(path) as file:
        return _read_header(file, path)[0]


def foreign_kind(start: bytes) -> str | None:
    """Say what a file is that begins with ``start``, if it is something that is often mistaken for weights."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page; the download it came from went wrong"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; fetch it with: git lfs pull"
    return None


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file to read, and say in one sentence why it cannot be.

    Raises:
        UnreadableError: it cannot be opened, or not be read to its end.
    """
    try:
        with path.open("rb") as file:
            yield file
    except MemoryError as error:
        raise UnreadableError(f"{path} does not fit into memory") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnreadableError(f"cannot read {str(path)!r:.200}: {reason}") from error


def _parse(text: str, path: Path) -> tuple[Metadata, str]:
    """``parse_metadata``, which tells what is newer than we are from what is damaged."""
    try:
        return parse_metadata(text, str(path))
    except BankFormatError as error:
        if _is_newer(text):
            raise NewerFormatError(str(error)) from error
        raise


def _is_newer(text: str) -> bool:
    try:
        about = strict_json(text)
    except ValueError:
        return False
    version = about.get("format") if isinstance(about, dict) else None
    return type(version) is int and version > FORMAT_VERSION


def _read_header(file: BufferedReader, path: Path) -> tuple[Header, bytes]:
    """Return the header, checked, and the bytes it was read from; the file stands at the first weight then."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(512)
    if not start:
        raise BankFormatError(f"{path} is empty")
    length = header_length(start, size, str(path))
    file.seek(0)
    raw = file.read(8 + length)
    return parse_header(raw, size, str(path)), raw


def header_length(start: bytes, size: int, where: str) -> int:
    """Return how many bytes of header follow the first 8, for a file of ``size`` bytes that begins with ``start``.

    Raises:
        BankFormatError: it cannot be a safetensors file; says what it is instead.
    """
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > min(_HEADER_LIMIT, size - 8):
        raise BankFormatError(_not_safetensors(where, start, length, size))
    return length


def parse_header(raw: bytes, size: int, where: str) -> Header:
    """Read the header of a safetensors file of ``size`` bytes out of ``raw``, its length and itself.

    Raises:
        BankFormatError: not a header, or one whose tensors do not fill such a file.
    """
    if raw[8:9] != b"{":  # JSON might begin with a space, safetensors does not
        raise BankFormatError(f"{where} is not a safetensors file: its header does not begin with '{{'")
    try:
        content = strict_json(raw[8:].decode("utf-8"))
    except ValueError as error:
        raise BankFormatError(f"{where} is not a safetensors file: its header is not JSON ({error})") from error
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BankFormatError(f"{where}: the header's __metadata__ is not a map of strings")
    _check_offsets(where, content, size - len(raw))
    return Header(content, metadata)


def _not_safetensors(where: str, start: bytes, length: int, size: int) -> str:
    if kind := foreign_kind(start):
        return f"{where} is {kind}"
    if start.startswith((b"PK\3\4", b"\x80")):
        return (
            f"{where} is a torch checkpoint or another pickle or zip file, not a safetensors file; of a network's "
            "checkpoint masterkey extract makes a bank"
        )
    if len(start) < 8:
        return f"{where} is not a safetensors file: it ends after {len(start)} bytes"
    return (
        f"{where} is not a whole safetensors file: its first bytes promise a header of {length:,} bytes, "
        f"the file has {size:,} bytes"
    )


def _check_offsets(where: str, entries: dict[str, Any], data_size: int) -> None:
    """Every tensor must lie inside the file, and together they must fill it without gap or overlap."""
    position = 0
    try:
        for name, entry in sorted(entries.items(), key=lambda item: tuple(item[1]["data_offsets"])):
            begin, end = entry["data_offsets"]
            shape, dtype = entry["shape"], entry["dtype"]
            if not isinstance(shape, list) or not isinstance(dtype, str):
                raise TypeError("a shape that is no list, or a dtype that is no text")
            if not all(type(number) is int and 0 <= number <= LARGEST for number in (begin, end, *shape)):
                raise TypeError("sizes that are not whole numbers from 0 to 2**63 - 1")
            if begin != position or end < begin:
                raise BankFormatError(
                    f"{where}: tensor {name!r:.100} lies at bytes {begin} to {end}, expected it to begin at {position}"
                )
            if dtype == "F32" and prod(shape) * 4 != end - begin:
                raise BankFormatError(
                    f"{where}: tensor {name!r:.100} has a shape of {prod(shape):.3g} weights of 4 bytes, "
                    f"its header gives it {end - begin:,} bytes"
                )
            position = end
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
        raise BankFormatError(f"{where}: the header's entry of a tensor {what}") from error
    if position != data_size:
        raise BankFormatError(f"{where}: its header promises {position:,} bytes of weights, the file has {data_size:,}")


def _check_layers(path: Path, header: Header, metadata: Metadata) -> None:
    names = [layer.name for layer in metadata.layers]
    if not names:
        raise BankFormatError(f"{path}: a bank without layers")
    if len(set(names)) != len(names) or set(names) != set(header.tensors):
        raise BankFormatError(f"{path}: the layers named in its metadata are not the tensors it holds")
    for layer in metadata.layers:
        check_entry(str(path), metadata.kind, layer, header.tensors[layer.name])


def check_entry(where: str, kind: str, layer: Layer, entry: Mapping[str, Any]) -> None:
    """Check one tensor's dtype and shape (as a header states them) against what the metadata says of it.

    Raises:
        BankFormatError: dtype, rank or sizes differ, or the layer holds no weights.
    """
    shape = list(entry["shape"])
    if entry["dtype"] != "F32":
        raise BankFormatError(f"{where}: layer {layer.name} is {entry['dtype']!r:.20}, a bank holds float32")
    if len(shape) != 4:
        raise BankFormatError(
            f"{where}: layer {layer.name} has {len(shape)} dimensions, a bank's have 4: (out, in/groups, kh, kw)"
        )
    if 0 in shape:
        raise BankFormatError(f"{where}: layer {layer.name} of shape {shape} holds no filters")
    if [shape[0], *shape[2:]] != [layer.filters, *layer.kernel]:
        raise BankFormatError(
            f"{where}: layer {layer.name} has shape {shape}, its metadata says {layer.filters} filters of "
            f"{layer.kernel[0]}x{layer.kernel[1]}"
        )
    if kind == "depthwise" and shape[1] != 1:
        raise BankFormatError(
            f"{where}: layer {layer.name} has shape {shape}, a depthwise filter has one input channel"
        )
