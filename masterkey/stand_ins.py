"""What training scripts save beside the weights, read as empty objects: nothing of it is imported or run.

torch reads with ``weights_only=True`` no more than tensors and plain containers, but timm's own ``train.py`` adds
its options (an ``argparse.Namespace``), others a path or a best accuracy that is a number of numpy's.
"""

from contextlib import AbstractContextManager

import torch

_NAMES = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    *(f"numpy.{core}.multiarray.{made}" for core in ("core", "_core") for made in ("scalar", "_reconstruct")),
    "numpy.ndarray",
    "numpy.dtype",
)


class StandIn:
    """An object in place of one that is of no interest, whatever that one was made of."""

    def __init__(self, *made_of: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def stand_ins() -> AbstractContextManager[None]:
    """Have ``torch.load(weights_only=True)`` read the kinds of ``_NAMES`` as stand-ins, and refuse all others."""
    context: AbstractContextManager[None] = torch.serialization.safe_globals([(StandIn, name) for name in _NAMES])
    return context
