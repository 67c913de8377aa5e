"""Weight selection, the peer: a small network's initial weights picked out of a larger one of its family.

Xu et al., "Initializing Models with Larger Ones" (arXiv:2311.18823), by the rule its paper states.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .config import BenchmarkError


def select_weights(student: nn.Module, teacher: Mapping[str, Tensor]) -> list[str]:
    """Overwrite the student's weights, but for its head, with evenly picked elements of the teacher's.

    Layers are matched by name, so a stage of n blocks takes the teacher's first n of that stage. Along every
    dimension that is larger in the teacher, indices are taken evenly (see ``even_indices``).

    Returns the names that were overwritten.

    Raises:
        BenchmarkError: the teacher lacks a layer, or is smaller along a dimension: it is no larger network of
            the same family.
    """
    head = _head_names(student)
    state = {name: value for name, value in student.state_dict().items() if not name.startswith(head)}
    chosen: dict[str, Tensor] = {}
    for name, value in state.items():
        if name not in teacher:
            raise BenchmarkError(f"weight selection: the teacher has no {name}, so it is not of the student's family")
        picked = _like(value, teacher[name])
        if picked.ndim != value.ndim or any(t < s for t, s in zip(picked.shape, value.shape, strict=True)):
            raise BenchmarkError(
                f"weight selection: {name} is {list(picked.shape)} in the teacher, {list(value.shape)} in the student"
            )
        for dimension, size in enumerate(value.shape):
            picked = picked.index_select(dimension, even_indices(picked.shape[dimension], size))
        chosen[name] = picked
    student.load_state_dict(chosen, strict=False)
    return list(chosen)


def _like(value: Tensor, picked: Tensor) -> Tensor:
    """Return a linear layer's weight as a 1x1 convolution's or the reverse: timm builds small ConvNeXts with either."""
    if picked.ndim == 2 and value.ndim == 4 and value.shape[2:] == (1, 1):
        return picked[:, :, None, None]
    if picked.ndim == 4 and value.ndim == 2 and picked.shape[2:] == (1, 1):
        return picked[:, :, 0, 0]
    return picked


def even_indices(teacher: int, student: int) -> Tensor:
    """Pick ``student`` of ``teacher`` indices evenly: every (t/s)-th where that divides, else by linspace."""
    if teacher % student == 0:
        return torch.arange(0, teacher, teacher // student)
    return torch.linspace(0, teacher - 1, student, dtype=torch.float64).round().long()


def _head_names(student: nn.Module) -> tuple[str, ...]:
    """Prefixes of the classifier's parameters, as timm's configuration names it."""
    config = getattr(student, "default_cfg", None) or {}
    classifier = config.get("classifier") or "head"
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return tuple(f"{name}." for name in names)
