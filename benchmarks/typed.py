"""Plain data from TOML or JSON against the types of a dataclass: what a person wrote is checked before it is used."""

import difflib
import math
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from .errors import BenchmarkError


def check_fields(kind: type, raw: Mapping[str, Any], where: str) -> None:
    """See that ``raw`` has only fields of the dataclass ``kind``, each with a value of its type.

    A whole number will do for a number; a number that is not finite will not, nor will ``true``.

    Args:
        kind: a dataclass.
        raw: its fields by name; those that are missing are none of this function's business.
        where: what the message calls the place, as in ``[train]``.

    Raises:
        BenchmarkError: an unknown field (near names are given), or a value of another type.
    """
    hints = _hints(kind)
    known = list(hints)
    for name, value in raw.items():
        if name not in known:
            raise BenchmarkError(f"{where} has no {name[:80]!r}; {near(name, known)}")
        if not _fits(value, hints[name]):
            raise BenchmarkError(f"{where}: {name} is {value!r:.80}, which is no {_called(hints[name])}")


def as_typed(kind: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields that :func:`check_fields` let pass in one spelling: where a number is meant, 1 is 1.0."""
    hints = _hints(kind)
    return {name: _typed(value, hints[name]) for name, value in raw.items()}


def _typed(value: Any, hint: Any) -> Any:
    if hint is float or (type(value) is int and float in get_args(hint) and int not in get_args(hint)):
        return float(value)
    if get_origin(hint) is tuple and get_args(hint)[0] is float:
        return tuple(map(float, value))
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}


def near(name: str, known: Collection[str]) -> str:
    """Return the known names that are like one that is not known, or all."""
    found = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(found)}?" if found else f"there are {', '.join(known)}"


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is types.UnionType:
        return any(_fits(value, each) for each in arguments)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(each, arguments[0]) for each in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is dict:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return type(value) is (type(None) if hint is None else hint)


def _called(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        return " or ".join(_called(each) for each in arguments if each is not type(None))
    if origin is tuple:
        return f"list of {'any length' if Ellipsis in arguments else len(arguments)}, each a {_called(arguments[0])}"
    if origin is dict:
        return "table"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(hint, str(hint))
