"""A bank out of an ONNX file, which holds a network of any framework as a graph in the order of a forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .bank import Bank
from .errors import CheckpointError
from .format import check_finite, file_sha256
from .mask import stage_of
from .metadata import KINDS, Layer, Metadata, Source, check_layer_name
from .onnx_constants import Constants

SUFFIX = ".onnx"


class _Convolution(NamedTuple):
    name: str
    weight: Tensor
    groups: int
    stride: tuple[int, int]

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def is_spatial(self) -> bool:
        return self.kernel != (1, 1)

    def is_kind(self, kind: str) -> bool:
        """As ``masterkey.depthwise.find_layers`` has the kinds."""
        if kind == "depthwise":
            # one filter for each input channel; a single input channel alone is a stem's
            return self.is_spatial and self.weight.shape[1] == 1 and self.groups > 1
        return kind == "all" or (self.groups == 1 and self.is_spatial == (kind == "dense"))


def from_onnx(
    path: Path,
    kind: str = "depthwise",
    *,
    name: str | None = None,
    licence: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
) -> Bank:
    """Take the filters out of the two-dimensional convolutions (``Conv``) of an ONNX file.

    Weights that the file computes out of stored tensors, as from quantised ones, are taken as its convolutions see
    them. Transposed convolutions, integer ones, those inside a branch, and weights that depend on the input are left
    out.

    Raises:
        CheckpointError: the file cannot be read, holds no filters of that kind, or the extra ``onnx`` is missing.
        BankFormatError: a filter is NaN or infinite.
    """
    if kind not in KINDS:
        raise CheckpointError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    found = _found(path, lambda each: each.is_kind(kind))
    if not found:
        raise CheckpointError(f"{path} holds no {kind} convolution")
    known = _described(found, path, kind)
    metadata = replace(known, name=name or known.name, base_model=base_model, datasets=tuple(datasets), licence=licence)
    return _bank(found, metadata, path)


def spatial_from_onnx(path: Path) -> Bank:
    """Take all filters larger than 1x1, depthwise, grouped and dense, as a bank of kind ``all``; see ``from_onnx``.

    Raises:
        CheckpointError: the file cannot be read, holds no such filters, or the extra ``onnx`` is missing.
        BankFormatError: a filter is NaN or infinite.
    """
    found = _found(path, lambda each: each.is_spatial)
    if not found:
        raise CheckpointError(f"{path} holds no convolution larger than 1x1")
    return _bank(found, _described(found, path, "all"), path)


def _found(path: Path, wanted: Callable[[_Convolution], bool]) -> dict[str, _Convolution]:
    found: dict[str, _Convolution] = {}
    for each in _convolutions(path):
        if wanted(each):
            found.setdefault(each.name, each)  # a weight that several convolutions share is one layer
    return found


def _bank(found: Mapping[str, _Convolution], metadata: Metadata, path: Path) -> Bank:
    layers = {name: each.weight for name, each in found.items()}
    check_finite(layers, str(path))
    return Bank(layers, metadata)


def _described(found: Mapping[str, _Convolution], path: Path, kind: str) -> Metadata:
    described = tuple(
        Layer(each.name, each.kernel, len(each.weight), each.groups, each.stride, stage_of(each.name))
        for each in found.values()
    )
    source = Source(kind="onnx", id=path.name, file=path.name, sha256_verified=file_sha256(path))
    return Metadata(path.stem, kind, source, described, "forward")


def _convolutions(path: Path) -> Iterator[_Convolution]:
    try:
        import onnx
    except ImportError as missing:
        raise CheckpointError("ONNX files need the extra onnx: pip install 'masterkey[onnx]'") from missing
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise CheckpointError(f"{str(path)!r:.200} {what}")
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r:.200}: {error.strerror or error}") from error
    try:
        model = onnx.load(str(path))
    except Exception as error:  # whatever its parser and its readers of external data raise for a broken file
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} cannot be read as ONNX: {reason:.200}") from error
    constants = Constants(model)
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 2:
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        name = node.input[1]
        try:
            values = constants.array(name)
        except ValueError as error:
            raise CheckpointError(f"{path}: weight {name!r:.100}: {error}") from error
        if values is None or values.ndim != 4:  # drawn from the input, or of another dimension
            continue
        _check_name(path, name)
        strides = list(attributes["strides"].ints) if "strides" in attributes else [1, 1]
        if values.dtype.kind in "OSUc" or len(strides) != 2:
            raise CheckpointError(f"{path}: {name!r:.100} is no 2-d convolution of real weights")
        groups = int(attributes["group"].i) if "group" in attributes else 1
        weight = torch.from_numpy(values.astype("float32"))
        yield _Convolution(name, weight, groups, (int(strides[0]), int(strides[1])))


def _check_name(path: Path, name: str) -> None:
    try:
        check_layer_name(name)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
