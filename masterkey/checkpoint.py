"""Read a state dict out of a checkpoint file, whatever its wrapping, without running what it brings."""

import pickle
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from .errors import BankFormatError, CheckpointError, IsBankError
from .format import METADATA_KEY, foreign_kind, read_header
from .stand_ins import ArrayStandIn, stand_ins

# Weights averaged over training come first, as in timm.models.load_checkpoint.
_ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "module", "net")
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's prefixes, no part of a name
_AVERAGED = "n_averaged"  # which torch's AveragedModel counts beside the model that it wraps

TORCH_SUFFIXES = (".pth", ".pt", ".pkl", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".txt")

_ZIP_START = b"PK\3\4"
# What torch.save wrote before its zip format: a pickle (of any protocol, the second byte) of one long number.
_LEGACY_START = re.compile(rb"\x80.\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)

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
    suffix = path.suffix.lower()
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise CheckpointError(f"{str(path)!r:.200} {'is a folder, not a checkpoint' if path.is_dir() else what}")
        if suffix not in SUFFIXES:
            raise CheckpointError(f"{path}: unknown kind of checkpoint {suffix!r}; known: {', '.join(SUFFIXES)}")
        if suffix == ".safetensors":
            return _read_safetensors(path, wanted)
        return _read_keys(path, wanted) if suffix == ".txt" else _read_torch(path, wanted)
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r:.200}: {error.strerror or error}") from error


def select_tensors(state: Mapping[str, Any], wanted: Wanted) -> Checkpoint:
    """Take the wanted tensors out of a state dict, names without the prefixes that wrappers add.

    Raises:
        CheckpointError: it is none.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"a state dict is a mapping of names to tensors, not a {type(state).__name__}")
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    prefix = common_prefix(tensors)
    own = {name.removeprefix(prefix): value for name, value in tensors.items()}
    chosen = {name: value for name, value in own.items() if wanted(name, tuple(value.shape))}
    return Checkpoint(chosen, ordered=True, total=len(tensors))


def common_prefix(names: Collection[str]) -> str:
    """Return what wrappers, one around the other, have put before every name."""
    prefix = ""
    names = [name for name in names if name != _AVERAGED]
    while more := next((each for each in _WRAPPERS if names and all(n.startswith(prefix + each) for n in names)), ""):
        prefix += more
    return prefix


def _read_safetensors(path: Path, wanted: Wanted) -> Checkpoint:
    try:
        header = read_header(path)
    except BankFormatError as error:
        raise CheckpointError(str(error)) from error
    if METADATA_KEY in header.metadata:
        raise IsBankError(f"{path} is a bank already; load it with Bank.from_pretrained, or give its folder")
    prefix = common_prefix(header.tensors)
    own = {name.removeprefix(prefix): tuple(entry["shape"]) for name, entry in header.tensors.items()}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(prefix + name) for name, shape in own.items() if wanted(name, shape)}
    except Exception as error:  # safetensors has its own for a broken file, torch others for a dtype it lacks
        raise CheckpointError(f"{path} is not a sound safetensors file: {_first_sentence(error)}") from error
    # safetensors sorts tensors by type and name; the order of the layers is lost
    return Checkpoint(tensors, ordered=False, total=len(header.tensors))


def _read_torch(path: Path, wanted: Wanted) -> Checkpoint:
    entry, state = state_in(_load_torch(path), str(path))
    chosen = select_tensors(state, wanted)
    return Checkpoint(chosen.tensors, ordered=True, entry=entry, total=chosen.total)


def state_in(content: object, where: str) -> tuple[str | None, Mapping[Any, Any]]:
    """Return the state dict in what a checkpoint holds, and the key it was under if it was wrapped.

    Raises:
        CheckpointError: there is none.
    """
    entry, state = _unwrap(content)
    if not isinstance(state, Mapping) or not _holds_tensors(state):
        keys = ", ".join(f"{key!s:.40}" for key in list(content)[:5]) if isinstance(content, Mapping) else ""
        found = f"the keys {keys!r:.300}" if keys else f"a {type(content).__name__}"
        raise CheckpointError(f"{where} holds no state dict: found {found}, looked under {', '.join(_ENTRIES)}")
    arrays = [name for name, value in state.items() if isinstance(value, ArrayStandIn)]
    if arrays:
        raise CheckpointError(
            f"{where}: {arrays[0]!s:.100} and {len(arrays) - 1} others are numpy arrays, and only tensors are read; "
            "ask its author for a state dict of tensors or a .safetensors file"
        )
    return entry, state


def load_torch_zip(archive: BinaryIO, where: str) -> object:
    """Read the pickle of a torch checkpoint in zip format: its tensors have names, shapes and types, no numbers.

    Raises:
        CheckpointError: damaged, or a pickle that asks for more than tensors and plain containers.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # not before it is needed: it takes a while

    with FakeTensorMode():  # torch's way to read no storages; that map_location="meta" is another came after 2.10
        return _load(archive, where)


def _load_torch(path: Path) -> object:
    """Read what torch.save wrote, tensors and plain containers only.

    Raises:
        CheckpointError: neither of torch's formats, damaged, or a pickle that asks for more.
    """
    with path.open("rb") as file:
        start = file.read(512)
    zipped = start.startswith(_ZIP_START)
    if not start:
        raise CheckpointError(f"{path} is empty")
    if not zipped and not _LEGACY_START.match(start):
        bare = start.startswith(b"\x80")
        what = foreign_kind(start) or (
            "a bare pickle, which only running it could read; where you trust it, load it and save its state dict anew"
            if bare
            else "no file that torch.save wrote, or its beginning is damaged"
        )
        raise CheckpointError(f"{path} was refused, none of it was run: it is {what}")
    return _load(path, str(path), map_location="cpu", mmap=zipped)


def _load(file: Path | BinaryIO, where: str, **how: Any) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                content: object = torch.load(file, weights_only=True, **how)
            except pickle.UnpicklingError:
                if not isinstance(file, Path):
                    file.seek(0)
                with stand_ins():
                    content = torch.load(file, weights_only=True, **how)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{where} was refused, none of it was run: {_refusal(error)}") from error
    except Exception as error:  # a damaged file fails wherever its bytes happen to lead
        raise CheckpointError(f"{where} is not a sound torch checkpoint: {_first_sentence(error)}") from error
    return content


def _unwrap(content: object) -> tuple[str | None, object]:
    if isinstance(content, Mapping):
        for entry in _ENTRIES:
            if _holds_tensors(content.get(entry)):
                return entry, content[entry]
    return None, content


def _holds_tensors(state: object) -> bool:
    return isinstance(state, Mapping) and any(isinstance(value, Tensor | ArrayStandIn) for value in state.values())


def _refusal(error: pickle.UnpicklingError) -> str:
    """Say in one sentence what a pickle wanted; torch's own message is a page that ends in unsafe advice."""
    name = re.search(r"(?:GLOBAL|global|callable|function|class)\s+`?([\w.]+\.[\w.]+)`?", str(error))
    if not name:
        return "its pickle is malformed, or asks for more than tensors and plain containers"
    return (
        f"its pickle calls for {name[1]:.100}, and only tensors and plain containers are read; ask its author "
        "for a plain state dict or a .safetensors file"
    )


def _first_sentence(error: Exception) -> str:
    """Shorten the messages of torch and safetensors, which go on for a page, to what happened."""
    if isinstance(error, EOFError | IndexError):
        return "it ends too early"
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, which is a program; save its state dict instead"
    first = re.split(r"\.\s|\n", str(error).strip())[0].rstrip(".:; ")[:200]
    # what the file brought into the message is not to be sent to a terminal
    return "".join(letter if letter.isprintable() else "?" for letter in first) or type(error).__name__


def _read_keys(path: Path, wanted: Wanted) -> Checkpoint:
    """Read a text file of key filters: ``Filter n:`` and then one line of numbers per row."""
    try:
        blocks = re.split(r"^Filter\s+\d+:\s*$", path.read_text(encoding="utf-8-sig"), flags=re.MULTILINE)
        if len(blocks) < 2 or blocks[0].strip():
            raise ValueError("it does not begin with a line 'Filter 1:'")
        filters = [[[float(x) for x in row.split()] for row in block.strip().splitlines()] for block in blocks[1:]]
        sizes = {(len(rows), *map(len, rows)) for rows in filters}
        if len(sizes) != 1 or len({*map(len, filters[0])}) != 1:
            raise ValueError("its filters are empty, have rows of different lengths, or differ in size")
    except ValueError as error:
        raise CheckpointError(f"{path} is not a text file of filters: {error}") from error
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        keys = torch.from_numpy(np.array(filters, dtype=np.float32))[:, None]
    name = "keys.weight"
    # a single key is depthwise too, which its shape alone would not tell
    found = wanted(name, (len(keys) + 1, *keys.shape[1:]))
    return Checkpoint({name: keys} if found else {}, ordered=True, total=1)
