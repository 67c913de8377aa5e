"""A bank out of a live network, a timm name, a state dict, or a checkpoint file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .bank import Bank
from .checkpoint import Checkpoint, Wanted, read_checkpoint, select_tensors
from .depthwise import require_layers
from .errors import CheckpointError
from .format import check_finite, file_sha256
from .mask import stage_of
from .metadata import KINDS, Layer, Metadata, Source, check_layer_name
from .names import expanded

# timm's tags name the training data; the last one of a tag is what the weights were last trained on.
_DATASETS = {
    "in1k": "imagenet-1k",
    "in12k": "imagenet-12k",
    "in22k": "imagenet-22k",
    "in21k": "imagenet-21k",
    "lvd1689m": "lvd-1689m",
    "laion2b": "laion-2b",
    "laiona": "laion-aesthetics",
}


def from_model(
    model: nn.Module,
    kind: str = "depthwise",
    *,
    name: str | None = None,
    source: Source | None = None,
    licence: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
) -> Bank:
    """Take the filters out of a live network, in the order of a forward pass.

    A network inside DataParallel or torch.compile is taken out of it, so that names are its own.

    Raises:
        NoTargetLayersError: it has no layer of that kind.
        CheckpointError: it has no weights yet (it lives on the meta device).
        BankFormatError: a weight is NaN or infinite.
    """
    model = _unwrapped(model)
    found = require_layers(model, kind)
    title = name or type(model).__name__
    layers: dict[str, Tensor] = {}
    about = []
    for layer in found.layers:
        parameter = f"{layer.name}.weight"
        weight = _filters(parameter, layer.weight, title)
        layers[parameter] = weight
        stage = stage_of(parameter)
        about.append(Layer(parameter, layer.kernel, len(weight), layer.groups, layer.stride, stage, layer.factor))
    check_finite(layers, title)
    metadata = Metadata(
        name=title,
        kind=kind,
        source=source or Source(kind="model", id=title),
        layers=tuple(about),
        order=found.order,
        base_model=base_model,
        datasets=tuple(datasets),
        licence=licence,
    )
    return Bank(layers, metadata)


def from_timm(name: str, kind: str = "depthwise", pretrained: bool = True, seed: int = 0) -> Bank:
    """Take the filters out of timm's network ``name``; without ``pretrained``, of its initial weights.

    Licence, data sets and base model come from timm's own configuration of the pretrained weights.

    Raises:
        UnknownNameError: timm has no such model, or no pretrained weights under that name.
        CheckpointError: the weights could not be fetched.
    """
    from .create import build_timm

    if pretrained:
        model = build_timm(name, pretrained=True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_timm(name, pretrained=False)
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if not pretrained:
        source = Source(kind="timm", id=name, revision=f"random initial weights, seed {seed}")
        return from_model(model, kind, name=f"{name}.random", source=source)
    tag = config.get("tag") or ""
    full_name = f"{config.get('architecture', name)}.{tag}" if tag else name
    return from_model(
        model,
        kind,
        name=full_name,
        source=Source(kind="timm", id=f"timm/{full_name}"),
        licence=config.get("license"),
        base_model=config.get("hf_hub_id") or f"timm/{full_name}",
        datasets=[_DATASETS[part] for part in re.split(r"[_.]", tag) if part in _DATASETS],
    )


def from_state_dict(state: Mapping[str, Any], kind: str = "depthwise", *, name: str, **about: Any) -> Bank:
    """Take the filters out of a state dict, in its own order; shapes alone say which they are.

    A weight (n, 1, kh, kw) with n > 1 counts as depthwise, so the stem of a one-channel network does too.

    Raises:
        CheckpointError: it holds no filters of that kind, or none that are numbers of their own.
        BankFormatError: a filter is NaN or infinite.
    """
    checkpoint = select_tensors(state, _wanted(kind))
    return _bank(checkpoint, kind, Source(kind="state-dict", id=name), name, name, **about)


def from_checkpoint(
    path_or_url: str | Path,
    kind: str = "depthwise",
    *,
    name: str | None = None,
    licence: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
) -> Bank:
    """Take the filters out of a checkpoint file: safetensors, a torch checkpoint, or a text file of keys.

    Torch files are read with ``weights_only=True`` and may be wrapped in ``state_dict``, ``model`` or an EMA
    of either. The order is the file's own, or natural name order for safetensors, which keeps none.

    Args:
        path_or_url: a local file.
        kind: ``depthwise``, ``pointwise``, ``dense`` or ``all``.
        name: the bank's name; the file's stem if not given.
        licence: of the weights; it travels with the bank.
        base_model: the network the weights belong to.
        datasets: what they were trained on.

    Raises:
        CheckpointError: the file cannot be read safely, or holds no filters of that kind.
        BankFormatError: a filter is NaN or infinite.
    """
    if re.match(r"(?i)(https?|hf)://", str(path_or_url)):
        raise CheckpointError(f"{path_or_url}: remote checkpoints are not read yet; download the file first")
    path = expanded(path_or_url)
    checkpoint = read_checkpoint(path, _wanted(kind))
    source = Source(
        kind="text" if path.suffix.lower() == ".txt" else "file",
        id=path.name,
        file=path.name,
        entry=checkpoint.entry,
        sha256_verified=file_sha256(path),
    )
    about = {"licence": licence, "base_model": base_model, "datasets": tuple(datasets)}
    return _bank(checkpoint, kind, source, name or path.stem, str(path), **about)


def _wanted(kind: str) -> Wanted:
    """Return the test, on name and shape alone, for a weight of ``kind``."""
    if kind not in KINDS:
        raise CheckpointError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")

    def wanted(name: str, shape: tuple[int, ...]) -> bool:
        if len(shape) != 4 or not name.endswith("weight"):
            return False
        depthwise = shape[1] == 1 and shape[0] > 1 and max(shape[2:]) > 1
        pointwise = shape[2:] == (1, 1)
        found = {"depthwise": depthwise, "pointwise": pointwise, "dense": not (depthwise or pointwise)}
        return kind == "all" or found[kind]

    return wanted


def _bank(checkpoint: Checkpoint, kind: str, source: Source, name: str, where: str, **about: Any) -> Bank:
    tensors = checkpoint.tensors
    if not tensors:
        raise CheckpointError(f"{where} holds {checkpoint.total:,} tensors, but no {kind} filters")
    names = list(tensors) if checkpoint.ordered else sorted(tensors, key=_natural)
    layers = {key: _filters(key, tensors[key], where) for key in names}
    check_finite(layers, where)
    described = tuple(
        Layer(key, (tensor.shape[2], tensor.shape[3]), len(tensor), stage=stage_of(key), factor=_factor(key))
        for key, tensor in layers.items()
    )
    order = "registration" if checkpoint.ordered else "natural"
    return Bank(layers, Metadata(name, kind, source, described, order, **about))


def _factor(name: str) -> float:
    """Return the factor of an architecture that is known by its names alone: HorNet's 1/3 (arXiv:2207.14284)."""
    return 1 / 3 if name.endswith("gnconv.dwconv.weight") else 1.0


def _filters(name: str, weight: Tensor, where: str) -> Tensor:
    """Return a copy of ``weight`` as a bank holds it.

    Raises:
        CheckpointError: a name that no bank file can hold, or no tensor of numbers that are all really there.
    """
    try:
        check_layer_name(name)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if weight.is_meta or weight.layout != torch.strided or not weight.is_floating_point():
        what = "has no values" if weight.is_meta else f"is {weight.dtype}, {weight.layout}"
        raise CheckpointError(f"{where}: {name} {what}; filters are plain floating-point tensors")
    if not weight.numel():
        raise CheckpointError(f"{where}: {name} of shape {list(weight.shape)} holds no weights")
    if weight.numel() * weight.element_size() > weight.untyped_storage().nbytes():
        # strides of zero let a tiny file claim terabytes, which the copy below would allocate
        raise CheckpointError(f"{where}: {name} claims {weight.numel():,} weights, but far fewer are stored")
    return weight.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        inner = model.module if parallel else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _natural(name: str) -> tuple[str, str]:
    """Order names as people do: ``blocks.2`` before ``blocks.10``."""
    return re.sub(r"\d+", lambda number: number[0].zfill(12), name), name
