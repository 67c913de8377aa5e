"""What a bank knows about itself: its layers, where they came from, and what was done to them since."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import PurePosixPath
from typing import Any

from .errors import BankFormatError, MasterkeyError
from .whole import LARGEST, several, whole_number

FORMAT_VERSION = 1
KINDS = ("depthwise", "pointwise", "dense", "all")
ORDERS = ("forward", "registration", "natural")
CHECKSUM_KEY = "metadata_sha256"
LONGEST_LAYER_NAME = 1000

_DEPTH_LIMIT = 200  # of nested JSON: a third of what Python's own reader and writer stand
# Names are printed: no escape sequences, no line breaks, and nothing that UTF-8 cannot hold.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

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
    transformations: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        texts = {"name": self.name, "base_model": self.base_model or "", "licence": self.licence or ""}
        for what, text in texts.items():
            if not isinstance(text, str):
                raise BankFormatError(f"{what} of a bank is a text, not {text!r:.80}")
        if len(self.name.splitlines()) != 1:
            raise BankFormatError(f"name of a bank is a line of text, not {self.name!r:.80}")

    def after(self, op: str, layers: tuple[Layer, ...], /, **arguments: Any) -> "Metadata":
        """Return the metadata of a bank made from this one by the step ``op``."""
        # as it will be read back: a tuple becomes a list now, not after a save
        step = json.loads(canonical_json({"op": op, **arguments}))
        return replace(self, layers=layers, transformations=(*self.transformations, step))

    def to_dict(self, sha256: str) -> dict[str, Any]:
        """Return the JSON object of docs/format.md; ``sha256`` is the hash over the bank's tensors.

        Raises:
            BankFormatError: a text or a step that the format cannot hold.
        """
        layers = [{**asdict(layer), "factor": float(layer.factor)} for layer in self.layers]
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        content |= {"format": FORMAT_VERSION, "source": asdict(self.source), "layers": layers, "sha256": sha256}
        try:
            _check_tree(content)
            plain = json.loads(canonical_json(content))
        except (TypeError, ValueError) as error:
            raise BankFormatError(f"bank {self.name!r:.200}: its metadata cannot be written ({error})") from error
        return {**plain, CHECKSUM_KEY: _checksum(plain)}


def as_kernel(kernel: int | Sequence[int]) -> Kernel:
    """Return a kernel size as (kh, kw).

    Raises:
        MasterkeyError: not one or two whole numbers from 1 to 1,001.
    """
    sides = several(kernel)
    if len(sides) == 1 and not isinstance(kernel, Sequence):
        sides = sides * 2
    if isinstance(kernel, str) or len(sides) != 2:
        raise MasterkeyError(f"a kernel size is one or two whole numbers from 1 to 1001, not {kernel!r:.80}")
    kh, kw = (whole_number(side, f"a side of the kernel size {kernel!r:.80}", 1, 1001) for side in sides)
    return kh, kw


def canonical_json(value: Any) -> str:
    """Return the one spelling of ``value``: keys sorted, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def strict_json(text: str) -> Any:
    """Read JSON as its standard has it: no NaN, no infinity, no key twice in one object.

    Raises:
        ValueError: not such JSON, or nested so deeply that reading it would exhaust the stack.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_metadata(text: str, where: str) -> tuple[Metadata, str]:
    """Read the JSON object of docs/format.md and return it with the hash over the tensors that it states.

    Raises:
        BankFormatError: not JSON, an unknown format version, a field that is missing or of a wrong type, or
            not what its own checksum says.
    """
    try:
        raw = strict_json(text)
    except ValueError as error:
        raise BankFormatError(f"{where}: its masterkey metadata is not JSON ({error})") from error
    if not isinstance(raw, dict) or "format" not in raw:
        raise BankFormatError(f"{where}: its masterkey metadata states no format version")
    if type(raw["format"]) is not int or raw["format"] != FORMAT_VERSION:
        raise BankFormatError(
            f"{where}: bank format {raw['format']!r:.40}, but this masterkey reads format {FORMAT_VERSION}; "
            "a newer masterkey may read it"
        )
    try:
        _check_tree(raw)
        stated, found = _text(raw, CHECKSUM_KEY), _checksum(raw)
        if stated != found:
            raise BankFormatError(
                f"{where} is damaged or was edited: its metadata hashes to {found[:16]}…, it states "
                f"{stated[:16]}…; get the file again"
            )
        metadata = _metadata(raw)
        sha256 = _text(raw, "sha256")
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(f"sha256 {sha256!r:.80} is no hash")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
        raise BankFormatError(f"{where}: its masterkey metadata {what}") from error
    return metadata, sha256


def check_layer_name(name: str) -> None:
    """Refuse a layer name that a bank file cannot hold.

    Raises:
        ValueError: empty, too long, unprintable, or safetensors' own name for its metadata.
    """
    if not 1 <= len(name) <= LONGEST_LAYER_NAME:
        raise ValueError(f"a layer name of {len(name):,} characters; at most {LONGEST_LAYER_NAME:,} are allowed")
    if name == "__metadata__" or _UNPRINTABLE.search(name):
        raise ValueError(f"{name!r:.80} cannot be the name of a layer")


def _checksum(content: Mapping[str, Any]) -> str:
    covered = {key: value for key, value in content.items() if key != CHECKSUM_KEY}
    return hashlib.sha256(canonical_json(covered).encode()).hexdigest()


def _check_tree(value: object) -> None:
    """Check depth, texts and numbers of a JSON value, level by level: recursion is what a hostile depth is after."""
    level = [value]
    for _ in range(_DEPTH_LIMIT):
        below: list[object] = []
        for item in level:
            if isinstance(item, str) and _UNPRINTABLE.search(item):
                raise ValueError(f"{item!r:.80} holds control characters or broken Unicode")
            if isinstance(item, int) and abs(item) > LARGEST:
                raise ValueError("it holds a whole number beyond 2**63 - 1, which other readers cannot")
            if isinstance(item, Mapping):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, Sequence) and not isinstance(item, str):
                below += item
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {_DEPTH_LIMIT} levels; join many banks in one step with masterkey.join")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _metadata(raw: Mapping[str, Any]) -> Metadata:
    kind, order = _text(raw, "kind"), _text(raw, "order")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if order not in ORDERS:
        raise ValueError(f"order {order!r} is none of {', '.join(ORDERS)}")
    steps = raw["transformations"]
    if not isinstance(steps, list) or not all(isinstance(step, dict) and _text(step, "op") for step in steps):
        raise TypeError("transformations must be a list of objects, each with its op")
    if not isinstance(raw["layers"], list):
        raise TypeError("layers must be a list")
    datasets = raw["datasets"]
    if not isinstance(datasets, list) or not all(isinstance(item, str) for item in datasets):
        raise TypeError("datasets must be a list of strings")
    return Metadata(
        name=_text(raw, "name"),
        kind=kind,
        source=_source(raw["source"]),
        layers=tuple(_layer(item) for item in raw["layers"]),
        order=order,
        base_model=_optional_text(raw, "base_model"),
        datasets=tuple(datasets),
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
        drive = re.match(r"[A-Za-z]:|\w+:/", str(path))
        if not path.parts or path.is_absolute() or ".." in path.parts or drive:
            raise ValueError(f"source.file {source.file!r:.80} points outside its folder")
    return source


_SOURCE_OPTIONAL = ("revision", "file", "entry", "sha256_announced", "sha256_verified")


def _layer(raw: Mapping[str, Any]) -> Layer:
    name = _text(raw, "name")
    check_layer_name(name)
    factor = raw["factor"]
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not math.isfinite(factor):
        raise TypeError(f"the factor of {name} must be a finite number")
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
    return None if raw[key] is None else _text(raw, key)


def _count(value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise ValueError(f"{value!r:.40} is not a whole number from {least} to 2**63 - 1")
    return value


def _pair(value: Any) -> Kernel:
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError(f"{value!r:.40} is not a pair of whole numbers")
    return _count(value[0]), _count(value[1])
