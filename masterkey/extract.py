"""A bank out of a live network, a timm name, a state dict, or a checkpoint."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .bank import Bank
from .checkpoint import Checkpoint, Wanted, read_checkpoint, select_tensors
from .depthwise import Found, require_layers
from .errors import BankFormatError, CheckpointError, UnknownNameError
from .format import check_finite, file_sha256
from .host import on_host
from .licence import licence_parts
from .mask import stage_of
from .metadata import KINDS, Layer, Metadata, Source, check_layer_name
from .names import expanded, is_remote, load_bank
from .whole import as_seed
from .wrapped import unwrapped

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
_NAMED = "a name that ends in weight, and a shape"
_LOOKED_FOR = {
    "depthwise": f"{_NAMED} (n > 1, 1, kh, kw) larger than 1x1",
    "pointwise": f"{_NAMED} (n, c, 1, 1)",
    "dense": f"{_NAMED} (n, c > 1, kh, kw) larger than 1x1",
    "all": f"{_NAMED} (n, c, kh, kw)",
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
        CheckpointError: it is no network, or has no weights yet (it lives on the meta device).
        BankFormatError: a weight is NaN or infinite.
    """
    if not isinstance(model, nn.Module):
        hint = "; a state dict goes to Bank.from_state_dict" if isinstance(model, Mapping) else ""
        raise CheckpointError(f"expected a torch.nn.Module or a timm model name, not a {type(model).__name__}{hint}")
    model, _ = unwrapped(model)
    title = name or type(model).__name__
    return bank_of_layers(
        require_layers(model, kind),
        kind,
        name=title,
        source=source or Source(kind="model", id=title),
        licence=licence,
        base_model=base_model,
        datasets=datasets,
    )


def bank_of_layers(
    found: Found,
    kind: str,
    *,
    name: str,
    source: Source,
    licence: str | None,
    base_model: str | None,
    datasets: Sequence[str],
) -> Bank:
    """Make a bank of the layers found in a network.

    Raises:
        CheckpointError: they have no weights yet.
        BankFormatError: a weight is NaN or infinite.
    """
    layers = {f"{layer.name}.weight": _filters(f"{layer.name}.weight", layer.weight, name) for layer in found.layers}
    check_finite(layers, name)
    metadata = Metadata(
        name=name,
        kind=kind,
        source=source,
        layers=tuple(layer.described() for layer in found.layers),
        order=found.order,
        base_model=base_model,
        datasets=names_of(datasets),
        licence=licence,
    )
    return Bank(layers, metadata)


def names_of(datasets: str | Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple; a text, which is a sequence too, is one name.

    Raises:
        BankFormatError: they are no texts.
    """
    names = (datasets,) if isinstance(datasets, str) or not isinstance(datasets, Iterable) else tuple(datasets)
    if not all(isinstance(name, str) for name in names):
        raise BankFormatError(f"datasets are names, not {datasets!r:.80}")
    return names


@on_host()
def from_timm(name: str, kind: str = "depthwise", pretrained: bool = True, seed: int = 0) -> Bank:
    """Take the filters out of timm's network ``name``; without ``pretrained``, of its initial weights.

    Licence, data sets and base model come from timm's own configuration of the pretrained weights.

    Raises:
        UnknownNameError: timm has no such model, or no pretrained weights under that name.
        CheckpointError: the weights could not be fetched.
    """
    from .create import build_timm

    seed = as_seed(seed)
    if pretrained:
        model = build_timm(name, pretrained=True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that seeds every GPU, too, for good
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
        datasets=tag_datasets(tag),
    )


def tag_datasets(tag: str) -> list[str]:
    """Return the data sets that the tag of timm's pretrained weights names, as in ``fb_in22k_ft_in1k``."""
    return [_DATASETS[part] for part in re.split(r"[_.]", tag) if part in _DATASETS]


def from_state_dict(state: Mapping[str, Any], kind: str = "depthwise", *, name: str, **about: Any) -> Bank:
    """Take the filters out of a state dict, in its own order; shapes alone say which they are.

    A weight (n, 1, kh, kw) with n > 1 counts as depthwise, so the stem of a one-channel network does too.

    Raises:
        CheckpointError: it holds no filters of that kind, or none that are numbers of their own.
        BankFormatError: a filter is NaN or infinite.
    """
    checkpoint = select_tensors(state, wanted_for(kind))
    return bank_of_checkpoint(checkpoint, kind, Source(kind="state-dict", id=name), name, name, **about)


def from_filters(
    filters: Any,
    kind: str = "depthwise",
    *,
    name: str,
    licence: str | None = None,
    base_model: str | None = None,
    datasets: str | Sequence[str] = (),
) -> Bank:
    """Make a bank of filters of one's own.

    Args:
        filters: a tensor or array (n, kh, kw) or (n, channels per group, kh, kw), or several by layer, in order.
        kind: what the bank is of; depthwise filters have one channel.
        name: the bank's name.
        licence: of the filters; it travels with the bank.
        base_model: the network that they belong to.
        datasets: what they were trained on.

    Raises:
        CheckpointError: nothing, no tensor of real numbers of that shape, or a layer's name that no bank file can hold.
        BankFormatError: a filter is NaN or infinite, or not of that kind.
    """
    _require_kind(kind)
    given = filters if isinstance(filters, Mapping) else {"filters": filters}
    layers = {str(key): _filters(str(key), _planes(str(key), value, name), name) for key, value in given.items()}
    if not layers or len(layers) < len(given):
        problem = "two layers have the same name" if layers else "no filters were given"
        raise CheckpointError(f"{name}: {problem}")
    check_finite(layers, name)
    for key, each in layers.items():
        if kind in ("pointwise", "dense") and (each.shape[2:] == (1, 1)) != (kind == "pointwise"):
            raise BankFormatError(f"{name}: {key} of shape {list(each.shape)} holds no {kind} filters")
    described = tuple(Layer(key, (each.shape[2], each.shape[3]), len(each)) for key, each in layers.items())
    source = Source(kind="filters", id=name)
    about = Metadata(name, kind, source, described, "forward", base_model, names_of(datasets), licence)
    return Bank(layers, about)


def _planes(layer: str, value: Any, where: str) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where}: {layer} is no tensor and no array of numbers ({error})") from error
    if tensor.ndim == 3:
        tensor = tensor[:, None]
    if tensor.ndim != 4:
        raise CheckpointError(
            f"{where}: {layer} has shape {list(tensor.shape)}; filters are (n, kh, kw) or (n, c, kh, kw)"
        )
    return tensor


def from_checkpoint(
    path_or_url: str | Path,
    kind: str = "depthwise",
    *,
    name: str | None = None,
    licence: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Bank:
    """Take the filters out of a checkpoint: safetensors, a torch checkpoint, ONNX, or a text file of keys.

    Torch files are read with ``weights_only=True`` and may be wrapped in ``state_dict``, ``model`` or an EMA
    of either. The order is the file's own, or natural name order for safetensors, which keeps none. Of a remote
    file only the filters are read, where its format and its server allow it.

    Args:
        path_or_url: a local file, ``hf://org/repo/file`` or ``https://…``.
        kind: ``depthwise``, ``pointwise``, ``dense`` or ``all``.
        name: the bank's name; the file's stem if not given.
        licence: of the weights; it travels with the bank. What the Hub states of a file there need not be given.
        base_model: the network the weights belong to.
        datasets: what they were trained on.
        revision: of a remote file: a branch, a tag or a commit.
        cache_dir: folder to keep downloads in, instead of huggingface_hub's own.
        token: for the Hub; None takes the one that was logged in with, False sends none.
        local_files_only: take what was fetched before, and ask no network.

    Raises:
        CheckpointError: the file cannot be read safely, holds no filters of that kind, or, behind a URL or on the Hub,
            is under a licence that the one given would lose.
        HubError: a remote file cannot be fetched.
        UnknownNameError: a revision of a local file.
        BankFormatError: a filter is NaN or infinite.
    """
    datasets = names_of(datasets)
    if is_remote(path_or_url):
        bank = load_bank(path_or_url, revision, cache_dir, token, local_files_only, kind)
        known = bank.metadata
        if known.kind != kind:
            raise CheckpointError(f"{path_or_url} is a bank of {known.kind} filters, so there are no {kind} ones in it")
        lost = set(licence_parts(known.licence)) - {"other", "unknown", *licence_parts(licence or known.licence)}
        if lost:
            raise CheckpointError(
                f"{path_or_url} is under {known.licence} as it says itself, which {licence} would not keep; leave the "
                "licence out"
            )
        about = replace(
            known,
            name=name or known.name,
            licence=licence or known.licence,
            base_model=base_model or known.base_model,
            datasets=datasets or known.datasets,
        )
        return Bank(bank.layers, about)
    if not isinstance(path_or_url, str | PathLike):
        raise CheckpointError(f"a checkpoint is given as a path or a URL, not as {type(path_or_url).__name__}")
    path = expanded(path_or_url)
    if revision is not None:
        raise UnknownNameError(f"{str(path)!r:.200} is a file here and has no revisions")
    if path.suffix.lower() == ".onnx":
        from .onnx_source import from_onnx

        return from_onnx(path, kind, name=name, licence=licence, base_model=base_model, datasets=datasets)
    checkpoint = read_checkpoint(path, wanted_for(kind))
    source = Source(
        kind="text" if path.suffix.lower() == ".txt" else "file",
        id=path.name,
        file=path.name,
        entry=checkpoint.entry,
        sha256_verified=file_sha256(path),
    )
    stated: dict[str, Any] = {"licence": licence, "base_model": base_model, "datasets": datasets}
    return bank_of_checkpoint(checkpoint, kind, source, name or path.stem, str(path), **stated)


def wanted_for(kind: str) -> Wanted:
    """Return the test, on name and shape alone, for a weight of ``kind``."""
    _require_kind(kind)

    def wanted(name: str, shape: tuple[int, ...]) -> bool:
        if len(shape) != 4 or not name.endswith("weight"):
            return False
        depthwise = shape[1] == 1 and shape[0] > 1 and max(shape[2:]) > 1
        pointwise = shape[2:] == (1, 1)
        found = {"depthwise": depthwise, "pointwise": pointwise, "dense": not (depthwise or pointwise)}
        return kind == "all" or found[kind]

    return wanted


def _require_kind(kind: str) -> None:
    if kind not in KINDS:
        raise CheckpointError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")


def bank_of_checkpoint(
    checkpoint: Checkpoint,
    kind: str,
    source: Source,
    name: str,
    where: str,
    *,
    datasets: str | Sequence[str] = (),
    **about: Any,
) -> Bank:
    """Make a bank of the tensors of a checkpoint.

    Raises:
        CheckpointError: there are none.
        BankFormatError: a filter is NaN or infinite.
    """
    tensors = checkpoint.tensors
    if not tensors:
        raise CheckpointError(f"{where} holds {checkpoint.total:,} tensors, but no {kind} filters: {_LOOKED_FOR[kind]}")
    names = list(tensors) if checkpoint.ordered else sorted(tensors, key=_natural)
    layers = {key: _filters(key, tensors[key], where) for key in names}
    check_finite(layers, where)
    described = tuple(
        Layer(key, (tensor.shape[2], tensor.shape[3]), len(tensor), stage=stage_of(key), factor=_factor(key))
        for key, tensor in layers.items()
    )
    order = "registration" if checkpoint.ordered else "natural"
    return Bank(layers, Metadata(name, kind, source, described, order, datasets=names_of(datasets), **about))


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


def _natural(name: str) -> tuple[str, str]:
    """Order names as people do: ``blocks.2`` before ``blocks.10``."""
    return re.sub(r"\d+", lambda number: number[0].zfill(12), name), name
