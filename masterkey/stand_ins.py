"""What training scripts save beside the weights, read as empty objects: nothing of it is imported or run.

torch reads with ``weights_only=True`` no more than tensors and plain containers, but timm's own ``train.py`` adds
its options (an ``argparse.Namespace``), others a path or a best accuracy that is a number of numpy's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_KINDS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    "numpy.ndarray",
    "numpy.dtype",
)
_ARRAYS = tuple(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core"))
_lock = Lock()  # torch's list of what is safe is one for all threads


class StandIn:
    """An object in place of one that is of no interest, whatever that one was made of."""

    def __init__(self, *made_of: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class ArrayStandIn(StandIn):
    """In place of a numpy array, which may be of interest: among weights it must not be passed over."""


@contextmanager
def stand_ins() -> Iterator[None]:
    """Have ``torch.load(weights_only=True)`` read these kinds as stand-ins, and refuse all others.

    What the caller has called safe is read as it is. One thread at a time; a load that another thread makes meanwhile
    without asking for it would see them too, so use it only for a file that was refused without.
    """
    with _lock:
        before = torch.serialization.get_safe_globals()
        known = {name for _, name in map(_named, before)}
        ours = [*((StandIn, name) for name in _KINDS), *((ArrayStandIn, name) for name in _ARRAYS)]
        with torch.serialization.safe_globals([each for each in ours if each[1] not in known]):
            yield


def _named(safe: object) -> tuple[object, str]:
    """Return an entry of torch's list with the name by which a pickle calls it."""
    if isinstance(safe, tuple):
        return safe
    return safe, f"{getattr(safe, '__module__', '')}.{getattr(safe, '__qualname__', '')}"
