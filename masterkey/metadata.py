"""What a bank knows about itself: its layers, where they came from, and what was done to them since."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from .errors import BankFormatError

FORMAT_VERSION = 1
KINDS = ("depthwise", "pointwise", "dense", "all")
ORDERS = ("forward", "registration", "natural")

Kernel = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """One layer of a bank: ``filters`` filters of ``kernel``, under the source's own parameter name.

    ``groups``, ``stride`` and ``stage`` are None where the source does not tell (a bare state dict knows no
    stride). ``factor`` is what the source's architecture multiplies the layer's output by (HorNet: 1/3).
    """

    name: str
    kernel: Kernel
    filters: int
    groups: int | None = None
    stride: Kernel | None = None
    stage: int | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Source:
    """Where the filters were taken from.

    ``sha256_announced`` is a server's word for the whole source file, ``sha256_verified`` the hash of a file
    that was read in full; either is None when nobody computed it. ``entry`` is the key of the state dict
    inside a wrapped checkpoint.
    """

    kind: str
    id: str
    revision: str | None = None
    file: str | None = None
    entry: str | None = None
    sha256_announced: str | None = None
    sha256_verified: str | None = None


@dataclass(frozen=True)
class Metadata:
    """Everything but the numbers; ``order`` says how the order of ``layers`` was found."""

    name: str
    kind: str
    source: Source
    layers: tuple[Layer, ...]
    order: str
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    licence: str | None = None
    transformations: tuple[dict[str, Any], ...] = field(default=())

    def after(self, op: str, layers: tuple[Layer, ...], /, **arguments: Any) -> "Metadata":
        """Return the metadata of a bank made from this one by the step ``op``."""
        step = {"op": op, **arguments}
        return replace(self, layers=layers, transformations=(*self.transformations, step))

    def to_dict(self, sha256: str) -> dict[str, Any]:
        """Return the JSON object of docs/format.md; ``sha256`` is the hash over the bank's tensors."""
        return {"format": FORMAT_VERSION, **asdict(self), "sha256": sha256}


def canonical_json(value: Any) -> str:
    """Return the one spelling of ``value``: keys sorted, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def parse_metadata(text: str, where: str) -> tuple[Metadata, str]:
    """Read the JSON object of docs/format.md and return it with the hash it states.

    Raises:
        BankFormatError: not JSON, an unknown format version, or a field that is missing or of a wrong type.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BankFormatError(f"{where}: its masterkey metadata is not JSON ({error})") from error
    if not isinstance(raw, dict) or "format" not in raw:
        raise BankFormatError(f"{where}: its masterkey metadata states no format version")
    if raw["format"] != FORMAT_VERSION:
        raise BankFormatError(
            f"{where}: bank format {raw['format']!r}, but this masterkey reads format {FORMAT_VERSION}; "
            "a newer masterkey may read it"
        )
    try:
        metadata = _metadata(raw)
        sha256 = _text(raw, "sha256")
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
        raise BankFormatError(f"{where}: its masterkey metadata {what}") from error
    return metadata, sha256


def _metadata(raw: Mapping[str, Any]) -> Metadata:
    kind, order = _text(raw, "kind"), _text(raw, "order")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if order not in ORDERS:
        raise ValueError(f"order {order!r} is none of {', '.join(ORDERS)}")
    steps = raw["transformations"]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise TypeError("transformations must be a list of objects")
    if not isinstance(raw["layers"], list) or not isinstance(raw["datasets"], list):
        raise TypeError("layers and datasets must be lists")
    return Metadata(
        name=_text(raw, "name"),
        kind=kind,
        source=_source(raw["source"]),
        layers=tuple(_layer(item) for item in raw["layers"]),
        order=order,
        base_model=_optional_text(raw, "base_model"),
        datasets=tuple(str(item) for item in raw["datasets"]),
        licence=_optional_text(raw, "licence"),
        transformations=tuple(steps),
    )


def _source(raw: Mapping[str, Any]) -> Source:
    source = Source(
        kind=_text(raw, "kind"),
        id=_text(raw, "id"),
        **{key: _optional_text(raw, key) for key in _SOURCE_OPTIONAL},
    )
    if source.file is not None:
        # the name is shown and may one day be fetched: it must stay inside the source's own folder
        path = PurePosixPath(source.file.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in source.file or ":" in path.parts[0]:
            raise ValueError(f"source.file {source.file!r} points outside its folder")
    return source


_SOURCE_OPTIONAL = ("revision", "file", "entry", "sha256_announced", "sha256_verified")


def _layer(raw: Mapping[str, Any]) -> Layer:
    name = _text(raw, "name")
    if not name or "\0" in name or len(name) > 1000:
        raise ValueError(f"a layer name of {len(name)} characters, or with a NUL")
    factor = raw["factor"]
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        raise TypeError(f"the factor of {name} must be a number")
    return Layer(
        name=name,
        kernel=_pair(raw["kernel"]),
        filters=_count(raw["filters"]),
        groups=None if raw["groups"] is None else _count(raw["groups"]),
        stride=None if raw["stride"] is None else _pair(raw["stride"]),
        stage=None if raw["stage"] is None else _count(raw["stage"], least=0),
        factor=float(factor),
    )


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} must be a string")
    return value


def _optional_text(raw: Mapping[str, Any], key: str) -> str | None:
    return None if raw.get(key) is None else _text(raw, key)


def _count(value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} is not a whole number of at least {least}")
    return value


def _pair(value: Any) -> Kernel:
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError(f"{value!r} is not a pair of whole numbers")
    return _count(value[0]), _count(value[1])
