"""What the analysis takes for filters: a bank, the path or name of one, an array, or what is read layer by layer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bank import Bank
from ..errors import MasterkeyError
from ..metadata import Layer, Metadata, Source
from ..names import expanded, is_there, load_bank
from .stream import BankFilters, FileFilters, Filters

FilterSource = Filters | Bank | Tensor | NDArray[Any] | str | Path


def as_filters(filters: FilterSource, label: str | None = None) -> Filters:
    """Return filters that can be read: of a bank, of a bank's folder, file or name, or of an array.

    An array is (n, kh, kw) or (n, c, kh, kw). A file is opened here and read when the filters are.

    Raises:
        MasterkeyError: an array of another rank, an empty one, one that is not of real numbers, or what is no source
            of filters at all.
        UnknownNameError: a text that is neither a path nor a bank's name.
        BankFormatError: not a sound bank; a weight is NaN or infinite.
    """
    if isinstance(filters, Bank):
        return BankFilters(filters, label)
    if isinstance(filters, str | Path):
        path = expanded(filters)
        return FileFilters(path, label) if is_there(str(path)) else BankFilters(load_bank(filters), label)
    if not isinstance(filters, Tensor | np.ndarray):
        if not hasattr(filters, "read"):
            raise MasterkeyError(
                "filters are a bank, the path or name of one, or an array (n, kh, kw) or (n, c, kh, kw), "
                f"not {type(filters).__name__}"
            )
        return filters
    tensor = _real(filters)
    tensor = tensor.unsqueeze(1) if tensor.dim() == 3 else tensor
    if tensor.dim() != 4 or not tensor.numel():
        raise MasterkeyError(f"filters have the shape (n, kh, kw) or (n, c, kh, kw), not {tuple(tensor.shape)}")
    layer = Layer("filters", (tensor.shape[2], tensor.shape[3]), len(tensor))
    about = Metadata(label or "filters", "all", Source("array", label or "filters"), (layer,), "forward")
    return BankFilters(Bank({"filters": tensor}, about), label)


def _real(filters: Tensor | NDArray[Any]) -> Tensor:
    """An array as a tensor of float32 on the CPU."""
    if isinstance(filters, Tensor):
        real = not filters.is_complex() and filters.dtype != torch.bool
    else:
        real = filters.dtype.kind in "fiu"
    if not real:
        raise MasterkeyError(f"filters are real numbers, not an array of {filters.dtype}")
    if isinstance(filters, np.ndarray):
        # a copy: torch takes no array that is read backwards, nor one in another byte order
        filters = torch.from_numpy(filters.astype(np.float32, order="C"))
    return filters.detach().cpu().float()


def as_planes(filters: FilterSource) -> Tensor:
    """Return filters of one kernel size as spatial slices (n, kh, kw), in order.

    Raises:
        MasterkeyError: filters of several sizes; else as for ``as_filters``.
        BankFormatError: they are not what their file promises.
    """
    if isinstance(filters, Tensor) and filters.ndim == 3:
        filters = filters[:, None]
    of = as_filters(filters)
    sizes = sorted({info.kernel for info in of.layers})
    if len(sizes) > 1:
        raise MasterkeyError(
            f"{of.label} has filters of {', '.join(f'{kh}x{kw}' for kh, kw in sizes)}, and this takes one size at a "
            "time; choose one, as Bank.select(kernel=7) does"
        )
    rows = [chunk for info in of.layers for chunk in of.read(info.position, first=True)]
    return torch.cat(rows).view(-1, *sizes[0])
