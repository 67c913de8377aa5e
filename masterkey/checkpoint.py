"""Read a state dict out of a checkpoint file, whatever its wrapping, without running what it brings."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import BankFormatError, CheckpointError
from .format import METADATA_KEY, read_header

# Weights averaged over training come first, as in timm.models.load_checkpoint.
_ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's prefixes, no part of a name

TORCH_SUFFIXES = (".pth", ".pt", ".pkl", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".txt")

Wanted = Callable[[str, tuple[int, ...]], bool]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a checkpoint that were wanted, in the file's order where it keeps one.

    ``entry`` is the key under which a wrapped checkpoint held them.
    """

    tensors: dict[str, Tensor]
    ordered: bool
    entry: str | None = None
    total: int = 0


def read_checkpoint(path: Path, wanted: Wanted) -> Checkpoint:
    """Read the tensors for which ``wanted(name, shape)`` holds from a file of any of ``SUFFIXES``.

    Raises:
        CheckpointError: no such file, of an unknown kind, damaged, or a pickle that asks for more than tensors.
    """
    if not path.is_file():
        what = "is a folder, not a checkpoint file" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: unknown kind of checkpoint '{suffix}'; known: {', '.join(SUFFIXES)}")
    try:
        if suffix == ".safetensors":
            return _read_safetensors(path, wanted)
        return _read_keys(path, wanted) if suffix == ".txt" else _read_torch(path, wanted)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def select_tensors(state: Mapping[str, Any], wanted: Wanted) -> Checkpoint:
    """Take the wanted tensors out of a state dict, names without the prefixes that wrappers add."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for wrapper in _WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    chosen = {name: value for name, value in tensors.items() if wanted(name, tuple(value.shape))}
    return Checkpoint(chosen, ordered=True, total=len(tensors))


def _read_safetensors(path: Path, wanted: Wanted) -> Checkpoint:
    try:
        header = read_header(path)
    except BankFormatError as error:
        raise CheckpointError(str(error)) from error
    if METADATA_KEY in header.metadata:
        raise CheckpointError(f"{path} is a bank already; load it with Bank.from_pretrained, or give its folder")
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name, entry in header.tensors.items() if wanted(name, tuple(entry["shape"]))]
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a sound safetensors file: {error}") from error
    # safetensors sorts tensors by type and name; the order of the layers is lost
    return Checkpoint(tensors, ordered=False, total=len(header.tensors))


def _read_torch(path: Path, wanted: Wanted) -> Checkpoint:
    mapped = zipfile.is_zipfile(path)  # only torch's zip format can be mapped; the older one is read whole
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} was refused, none of it was run: {_refusal(error)}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a sound torch checkpoint: {reason}") from error
    entry, state = _unwrap(content)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        found = f"keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else type(content)
        raise CheckpointError(f"{path} holds no state dict: found {found}, looked under {', '.join(_ENTRIES)}")
    chosen = select_tensors(state, wanted)
    return Checkpoint(chosen.tensors, ordered=True, entry=entry, total=chosen.total)


def _unwrap(content: object) -> tuple[str | None, object]:
    if isinstance(content, Mapping):
        for entry in _ENTRIES:
            if isinstance(content.get(entry), Mapping):
                return entry, content[entry]
    return None, content


def _refusal(error: pickle.UnpicklingError) -> str:
    """Say in one sentence what a pickle wanted; torch's own message is a page of advice."""
    text = str(error)
    name = re.search(r"(?:GLOBAL|global|callable|function|class)\s+`?([\w.]+\.[\w.]+)`?", text)
    if name:
        return (
            f"its pickle calls for {name[1]}, and only tensors and plain containers are read; ask its author "
            "for a plain state dict or a .safetensors file"
        )
    return next((line.strip() for line in text.splitlines() if line.strip()), "its pickle is malformed")


def _read_keys(path: Path, wanted: Wanted) -> Checkpoint:
    """Read a text file of key filters: ``Filter n:`` and then one line of numbers per row."""
    try:
        blocks = re.split(r"^Filter\s+\d+:\s*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if len(blocks) < 2 or blocks[0].strip():
            raise ValueError("it does not begin with a line 'Filter 1:'")
        filters = [[[float(x) for x in row.split()] for row in block.strip().splitlines()] for block in blocks[1:]]
        keys = torch.from_numpy(np.array(filters, dtype=np.float32))
        if keys.ndim != 3:
            raise ValueError("an empty filter")
    except ValueError as error:
        raise CheckpointError(f"{path} is not a text file of filters: {error}") from error
    keys = keys[:, None]
    name = "keys.weight"
    return Checkpoint({name: keys} if wanted(name, tuple(keys.shape)) else {}, ordered=True, total=1)
