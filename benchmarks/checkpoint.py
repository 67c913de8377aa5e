"""The checkpoint of an unfinished run: whole or not there, and of no other run."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from masterkey.metadata import canonical_json

from .config import BenchmarkError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain data to ``path``; what stood there stays until the new file is on the disk.

    A process killed while it writes leaves a ``.partial`` beside it, which the next call overwrites.

    Raises:
        BenchmarkError: the disk is full or the folder cannot be written; the previous checkpoint is intact.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer turns a failed write into a RuntimeError
        partial.unlink(missing_ok=True)
        raise BenchmarkError(
            f"cannot write the checkpoint {path}: {error}; the one before is intact, so make room and start again"
        ) from error


def load_checkpoint(path: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    """Return what ``save_checkpoint`` wrote, on the CPU; None if there is nothing.

    Args:
        path: the file.
        run: what the run is; it must equal the state's ``run``.

    Raises:
        BenchmarkError: the file cannot be read, is no checkpoint, or one of another run; it is left alone.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        theirs = dict(state["run"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read now ({error.strerror or error}); it is left alone") from error
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file raises depends on where the damage is
        raise BenchmarkError(
            f"{path} is no checkpoint of a run ({type(error).__name__} on reading it); delete it to start afresh"
        ) from error
    for key in sorted(run.keys() | theirs.keys()):
        if run.get(key) != theirs.get(key):
            raise BenchmarkError(
                f"{path} is the checkpoint of another run: its {key} is {theirs.get(key)!r}, this run's is "
                f"{run.get(key)!r}; delete it to start afresh, or choose another file"
            )
    loaded: dict[str, Any] = state
    return loaded


def fingerprint(model: nn.Module) -> str:
    """Return a digest of names, shapes and what learns: a state that loads into one such network fits all."""
    state = {name: list(value.shape) for name, value in model.state_dict().items()}
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return hashlib.sha256(canonical_json([state, trainable]).encode()).hexdigest()[:12]
