"""Tensors out of a remote safetensors file, single or sharded, of which the rest is never read."""

import json
from collections.abc import Mapping
from math import prod
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ..checkpoint import Checkpoint, Wanted, common_prefix
from ..errors import BankFormatError, CheckpointError, IsBankError
from ..format import METADATA_KEY, Header, header_length, parse_header
from .ranges import RangeReader
from .remote_file import HubFile

# Read at first: the header of a network of some hundred layers, so that most files need one request for it.
_FIRST_READ = 64 * 1024
INDEX_SUFFIX = ".safetensors.index.json"


def read_header(reader: RangeReader) -> tuple[Header, int]:
    """Return the header, and where in the file the first weight lies.

    Raises:
        CheckpointError: not a safetensors file, or sizes that lie.
    """
    start = reader.first(_FIRST_READ)
    try:
        end = 8 + header_length(start, reader.size, reader.name)
        raw = start[:end] if end <= len(start) else start + reader.read([(len(start), end)])[0]
        return parse_header(raw, reader.size, reader.name), end
    except BankFormatError as error:
        raise CheckpointError(str(error)) from error


def read_safetensors(reader: RangeReader, wanted: Wanted, prefix: str | None = None) -> Checkpoint:
    """Read the tensors for which ``wanted(name, shape)`` holds; in no order, because the file keeps none.

    ``prefix`` is what wrappers have put before every name, where more than this file is to be asked for that.

    Raises:
        CheckpointError: not a sound safetensors file.
        IsBankError: it is a bank.
        HubError: it could not be read.
    """
    header, begin = read_header(reader)
    if METADATA_KEY in header.metadata:
        raise IsBankError(f"{reader.name} is a bank already; load it by the name of its repository")
    prefix = common_prefix(header.tensors) if prefix is None else prefix
    own = {name.removeprefix(prefix): entry for name, entry in header.tensors.items()}
    chosen = {name: entry for name, entry in own.items() if wanted(name, tuple(entry["shape"]))}
    spans = [(begin + entry["data_offsets"][0], begin + entry["data_offsets"][1]) for entry in chosen.values()]
    data = reader.read(spans) if spans else []
    tensors = _decoded(reader.name, chosen, dict(zip(chosen, data, strict=True)))
    return Checkpoint(tensors, ordered=False, total=len(header.tensors))


def read_sharded(index: HubFile, wanted: Wanted) -> Checkpoint:
    """Read the wanted tensors out of every shard that ``index`` names.

    Raises:
        CheckpointError: not an index, or a shard is not a sound safetensors file.
        HubError: one of them could not be read.
    """
    reader = index.reader()
    try:
        names = json.loads(reader.first(reader.size))["weight_map"]
        shards = sorted(set(names.values()))
        if not all(isinstance(shard, str) and "/" not in shard and shard.endswith(".safetensors") for shard in shards):
            raise ValueError("it names shards that are no safetensors files beside it")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index.name} is no index of a sharded safetensors file: {error!s:.100}") from error
    tensors: dict[str, Tensor] = {}
    prefix = common_prefix(names)
    for shard in shards:
        tensors |= read_safetensors(index.sibling(shard).reader(), wanted, prefix).tensors
    return Checkpoint(tensors, ordered=False, total=len(names))


def _decoded(where: str, entries: Mapping[str, Mapping[str, Any]], data: Mapping[str, bytes]) -> dict[str, Tensor]:
    """Let safetensors decode the tensors: put them into a small file of their own."""
    header: dict[str, Any] = {}
    position = 0
    # safetensors wants the larger types first, for alignment
    for name in sorted(entries, key=lambda name: -_width(entries[name])):
        header[name] = {**entries[name], "data_offsets": [position, position + len(data[name])]}
        position += len(data[name])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    try:
        tensors = load(len(text).to_bytes(8, "little") + text + b"".join(data[name] for name in header))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} is not a sound safetensors file: {error!s:.200}") from error
    return {name: tensors[name] for name in entries}


def _width(entry: Mapping[str, Any]) -> float:
    begin, end = entry["data_offsets"]
    return float(end - begin) / float(max(prod(entry["shape"]), 1))
