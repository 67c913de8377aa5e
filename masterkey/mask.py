"""Which layers are meant: the first n, the last n, a stage, a name pattern."""

import operator
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

from .errors import NothingMeantError, PlanError
from .whole import several

LayerMask = int | str | Sequence[str]

# A stage is what the names call one ("stages.2", RDNet's "dense_stages.2"); a lone running number ("blocks.7.conv", or
# ConvMixer's "blocks.7.0.fn.0") is a block, not a stage.
_BLOCKS = r"blocks(?=[._]\d+[._]\d)(?![._]\d+[._]0[._]fn[._])"
_STAGE = re.compile(rf"(?:(?:^|[._/])stages?|(?:^|[./])(?:levels?|layers?|{_BLOCKS}))[._]?(\d+)(?=[._/]|$)")


class Named(Protocol):
    """Anything with a layer's name and, where names tell it, a stage."""

    @property
    def name(self) -> str:
        """The layer's full name."""

    @property
    def stage(self) -> int | None:
        """The stage, counted as the names count it."""


def stage_of(name: str) -> int | None:
    """Return the stage that a parameter's name states (``stages.2.blocks.0…`` -> 2), or None."""
    found = _STAGE.search(name)
    return int(found[1]) if found else None


def as_mask(mask: Any) -> int | str | list[str] | None:
    """Return a mask as numbers and texts that JSON has: numpy's numbers and tensors of one number are numbers.

    Raises:
        PlanError: neither a number, a pattern nor several patterns.
    """
    if mask is None or isinstance(mask, str):
        return mask
    if isinstance(mask, bool):  # which Python would take for 0 or 1
        raise PlanError(f"layers is a number, a pattern, or several patterns, not {mask}")
    terms = several(mask)
    if all(isinstance(term, str) for term in terms):
        return terms
    try:
        return operator.index(mask)
    except TypeError as error:
        raise PlanError(f"layers is a number, a pattern, or several patterns, not {mask!r:.100}") from error


def mask_layers(layers: Sequence[Named], mask: LayerMask | None) -> list[bool]:
    """Say for each layer whether the mask means it.

    Args:
        layers: in forward order.
        mask: None (all), n (the first n), -n (the last n), a shell pattern over the whole name
            (``stages.0.*``), with or without ``.weight`` at its end, ``stage:2`` for a whole stage, or several of the
            last two.

    Raises:
        PlanError: a list of anything but patterns, or one of several patterns means no layer.
    """
    mask = as_mask(mask)
    if mask is None:
        return [True] * len(layers)
    if isinstance(mask, int):
        chosen = range(len(layers))[:mask] if mask >= 0 else range(len(layers))[mask:]
        return [i in chosen for i in range(len(layers))]
    terms = [mask] if isinstance(mask, str) else mask
    meant = [[_meant(layer, term) for layer in layers] for term in terms]
    for term, chosen_by in zip(terms, meant, strict=True):
        # a single one that means nothing is for the caller to judge, who knows what the layers belong to
        if len(terms) > 1 and not any(chosen_by):
            hint = "; a number stands alone" if _is_number(term) else _hint(layers, term)
            raise NothingMeantError(
                f"{term!r:.100} among several patterns matches none of the {len(layers)} layers{hint}"
            )
    return [any(chosen_by) for chosen_by in zip(*meant, strict=True)] if meant else [False] * len(layers)


def require_meant(layers: Sequence[Named], mask: LayerMask | None) -> list[bool]:
    """As :func:`mask_layers`, for a mask that is meant to mean something; 0 is meant to mean nothing.

    Raises:
        PlanError: it means no layer, or as there.
    """
    meant = mask_layers(layers, mask)
    if not any(meant) and mask != 0:
        masked = as_mask(mask)
        terms = [masked] if isinstance(masked, str) else masked if isinstance(masked, list) else []
        hint = "".join(_hint(layers, term) for term in terms)
        raise NothingMeantError(
            f"layers={mask!r} matches none of the {len(layers)} layers ({first_names(layers)}){hint}"
        )
    return meant


def first_names(layers: Sequence[Named]) -> str:
    """Return the first three names, for a message about a mask that matches none of them."""
    return ", ".join([*(layer.name for layer in layers[:3]), *(["…"] if len(layers) > 3 else [])])


def _hint(layers: Sequence[Named], term: str) -> str:
    """Say what was probably meant by a pattern that is a part of names and means none."""
    for pattern in (f"{term}.*", f"*.{term}"):
        found = [layer for layer in layers if _meant(layer, pattern)]
        if found and not _is_number(term):
            stage = stage_of(f"{term}.")
            whole = stage is not None and found == [layer for layer in layers if layer.stage == stage]
            also = f" or 'stage:{stage}'" if whole else ""
            return f"; patterns match whole names: {pattern!r:.100}{also} is probably meant"
    return ""


def _is_number(term: str) -> bool:
    return re.fullmatch(r"-?\d+", term) is not None


def _meant(layer: Named, term: str) -> bool:
    if term.startswith("stage:"):
        return layer.stage is not None and term.removeprefix("stage:") == str(layer.stage)
    name = layer.name.removesuffix(".weight")  # a bank's layers are named as weights, a network's as modules
    return fnmatchcase(name, term) or fnmatchcase(f"{name}.weight", term)
