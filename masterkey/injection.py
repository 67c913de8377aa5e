"""Put a bank into a network and take it out again: plan, apply, report, undo."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from secrets import token_hex
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .bank import Bank
from .depthwise import Found, FoundLayer, require_layers, require_network
from .errors import NotInjectedError, PlanError
from .frozen import freeze_module, held_weight, is_frozen, require_freezable, thaw_module
from .host import on_host
from .mask import LayerMask, as_mask, require_meant
from .plan import Target, make_plan
from .report import Report, ReportRow
from .rules import DEFAULT_KERNEL, DEFAULT_POLICY, DEFAULT_SCALE, KernelRule, Policy, ScaleRule
from .whole import as_seed
from .wrapped import unwrapped

_LEAST_BYTES = 2  # of a weight: narrower floats are a format to keep numbers in, and cannot be computed with
_RECORD = "_masterkey"
# on the network that ``inject`` was given: the marks of its layers that hold a bank, and the layers' names, so that a
# layer that is gone is missed; one that a wrapper has given another name is not gone
_FILLED = "_masterkey_layers"
# on a layer whose bank was taken out of a part of a network: the mark by which the network knows it, and misses it not
_EJECTED = "_masterkey_ejected"


@dataclass(frozen=True)
class _Record:
    """What a layer was before its first bank, and what the last bank put in.

    It lives on the module as a plain attribute: outside the state dict, but carried along by deepcopy and
    pickle.
    """

    original: Tensor
    requires_grad: bool
    injected: Tensor
    mark: str

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # nothing writes to these tensors, so a copied network can do with the same ones


@on_host()
def inject(
    model: nn.Module,
    bank: Bank | str | Path,
    policy: Policy = DEFAULT_POLICY,
    layers: LayerMask | None = None,
    kernel: KernelRule = DEFAULT_KERNEL,
    scale: ScaleRule = DEFAULT_SCALE,
    freeze: bool = True,
    seed: int = 0,
) -> Report:
    """Put a bank's filters into a network's layers of the bank's kind, in place, and freeze them there.

    Modules, names, state-dict keys, device and dtype stay as they are; biases stay the network's own and go
    on learning. Nothing is changed unless everything fits. A second call replaces the filters of the layers
    it names. Inject before making an optimizer, an EMA or a DistributedDataParallel: a frozen filter is a buffer,
    no parameter. Inject after all initialisation, a surrounding module's ``self.apply(init)`` too, which writes to
    whatever it finds. On several processes that begin with different weights, ``scale="target"`` and the random
    controls, which go by those weights, give different filters: build the network under one seed.

    Args:
        model: any network, or one in a DataParallel or torch.compile; the layers are found by
            ``masterkey.depthwise.find_layers``.
        bank: a bank, or a name or path for ``Bank.from_pretrained``.
        policy: ``stack``, ``layerwise`` or ``sample``; see ``masterkey.plan.make_plan``.
        layers: which layers to fill: the first n, the last n (negative), ``stage:2``, name patterns.
        kernel: ``crop`` (or zero-pad about the centre), ``resample``, or ``exact``.
        scale: ``source``, ``unit``, or ``target``.
        freeze: keep the filters bit-identical whatever the training does; False leaves them as trainable as
            the weights that they replace.
        seed: for ``sample`` and for banks that are computed by a draw.

    Raises:
        NoTargetLayersError: the network has no such layer.
        PlanError: the bank does not fit under these rules, a layer's class allows no subclass, the network is
            distributed already, or no network.
        UnknownNameError, BankFormatError, CheckpointError, HubError: the bank cannot be loaded.
        MasterkeyError: ``seed`` is none (``masterkey.whole.as_seed``).
    """
    _require_undistributed(model)
    model, _ = unwrapped(model)  # so that names, in masks and in the report, are the network's own
    if not isinstance(freeze, bool):
        raise PlanError(f"freeze is True or False, not {freeze!r:.80}")
    seed = as_seed(seed)
    if not isinstance(bank, Bank):
        bank = Bank.from_pretrained(bank)
    found = require_layers(model, bank.kind)
    targets = _targets(model, found, require_meant(found.layers, layers))
    plan = make_plan(targets, bank, policy=policy, layers=layers, kernel=kernel, scale=scale, seed=seed)
    planned = [
        (layer, given if selected else None)
        for layer, given, selected in zip(found.layers, plan.assignments, plan.selected, strict=True)
    ]
    for layer, given in planned:
        if given is not None:
            _require_fitting(layer, given.filters)
            if freeze:
                require_freezable(layer.module)
    trainable_before = _count_trainable(model)
    rows, filled = [], {}
    _tell_apart(model)
    for layer, given in planned:
        row = ReportRow(layer.name, layer.kernel, layer.shape[0])
        if given is None:
            rows.append(row.left_alone(f"not among layers={as_mask(layers)!r}"))
        else:
            filled[_apply(layer, given.filters, freeze)] = layer.name
            rows.append(row.filled(given))
    _note_filled(model, filled)
    return Report(
        bank=bank.name,
        kind=bank.kind,
        policy=policy,
        frozen=freeze,
        order=found.order,
        rows=tuple(rows),
        trainable_before=trainable_before,
        trainable_after=_count_trainable(model),
        kernel=kernel,
        scale=scale,
        seed=seed,
        layers=as_mask(layers),
        steps=plan.bank.metadata.transformations,
        sha256=plan.bank.sha256,
    )


def eject(model: nn.Module) -> None:
    """Put back the weights that every layer had before its first bank, trainable as they were.

    Raises:
        NotInjectedError: no layer of ``model`` holds a bank, as after saving and loading a state dict.
        PlanError: as ``thaw``; or a layer has another shape since, or no values (the meta device).
    """
    found = _changeable(model, "ejected from")
    for name, module, record in found:
        shape = _replaceable_weight(name, module).shape
        if shape != record.original.shape:
            raise PlanError(
                f"the weight of {name} has become one of {tuple(shape)}, and the original, of "
                f"{tuple(record.original.shape)}, cannot be put back; nothing was changed"
            )
    known: set[str] = set()
    for module in model.modules():
        known.update(module.__dict__.pop(_FILLED, ()))
        module.__dict__.pop(_EJECTED, None)
    for _, module, record in found:
        thaw_module(module)
        with torch.no_grad():
            _weight(module).copy_(record.original)
        _weight(module).requires_grad_(record.requires_grad)
        delattr(module, _RECORD)
        if record.mark not in known:
            setattr(module, _EJECTED, record.mark)


def verify(model: nn.Module) -> list[str]:
    """Name the layers that no longer hold the filters that were put in, bit for bit.

    The list is empty while all is well. A state dict loaded later, training without ``freeze``, a cast to fewer bits
    and back, or layers that were replaced or removed since (reparametrised, fused, pruned) are what it finds.

    Raises:
        NotInjectedError: no layer of ``model`` holds a bank, and none of it ever did.
    """
    require_network(model)
    held = _with_record(model)
    lost = _lost(model)
    if not held and not lost:
        raise _not_injected(model, "verified in")
    changed = [name for name, module, record in held if not _holds(module, record.injected)]
    return list(dict.fromkeys([*changed, *lost]))


def freeze(model: nn.Module) -> None:
    """Freeze the layers that hold a bank, at their present weights.

    Raises:
        NotInjectedError: no layer of ``model`` holds a bank.
        PlanError: as ``thaw``; or a layer's class allows no subclass.
    """
    found = _changeable(model, "frozen in")
    for _, module, _ in found:
        require_freezable(module)
    for _, module, _ in found:
        freeze_module(module)


def thaw(model: nn.Module) -> None:
    """Let the layers that hold a bank learn; their weights are new parameters, so make optimizer and EMA anew.

    Raises:
        NotInjectedError: no layer of ``model`` holds a bank.
        PlanError: one of them computes its weight since, or the network is distributed; nothing is changed.
    """
    for _, module, _ in _changeable(model, "thawed in"):
        thaw_module(module)
        _weight(module).requires_grad_(True)


def _require_undistributed(model: nn.Module) -> None:
    """Refuse a network whose processes have agreed on which parameters there are.

    Raises:
        PlanError: no network at all; a DistributedDataParallel, which would wait for gradients that no longer come, or
            leave out those of new parameters without a word; or FSDP or tensor parallelism, whose parameters are parts
            of the network's.
    """
    require_network(model)
    wrappers: list[type] = [nn.parallel.DistributedDataParallel]
    if "torch.distributed.fsdp" in sys.modules:  # else no network can be of it, and the import takes a while
        from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

        wrappers += [FSDPModule, FullyShardedDataParallel]
    inside = next((type(module).__name__ for module in model.modules() if isinstance(module, tuple(wrappers))), None)
    if inside is None and any(type(parameter).__name__ == "DTensor" for parameter in model.parameters()):
        inside = "tensor parallelism"
    if inside is not None:
        raise PlanError(
            f"this network is distributed already ({inside}), with the parameters it began with; inject, freeze, thaw "
            "or eject the plain network first, and distribute it then"
        )


def _tell_apart(model: nn.Module) -> None:
    """Give a layer that was copied into another one's place a mark of its own, also where a network knows it by it."""
    seen: set[str] = set()
    for name, module, record in _with_record(model):
        if record.mark in seen:
            mark = token_hex(8)
            setattr(module, _RECORD, replace(record, mark=mark))
            for prefix, around in model.named_modules():
                filled = around.__dict__.get(_FILLED, {})
                if record.mark in filled and _joined(prefix, filled[record.mark]) == name:
                    setattr(around, _FILLED, {mark if old == record.mark else old: at for old, at in filled.items()})
        seen.add(record.mark)


def _note_filled(model: nn.Module, layers: Mapping[str, str]) -> None:
    """Remember on the network which of its layers (mark -> name) banks went into, so that lost ones can be named."""
    names = set(layers.values())  # a layer that was put in the place of a lost one is missed no longer
    before = {mark: name for mark, name in model.__dict__.get(_FILLED, {}).items() if name not in names}
    if filled := {**before, **layers}:
        setattr(model, _FILLED, filled)


def _require_fitting(layer: FoundLayer, filters: Tensor) -> None:
    """See that the layer's numbers can hold the filters.

    Raises:
        PlanError: they are too large for its type, or so small that nothing is left of them.
    """
    dtype = layer.weight.dtype
    held = filters.to(dtype)
    if not bool(held.isfinite().all()):
        problem = "some of its filters are not finite"
    elif bool(filters.any()) and not bool(held.any()):
        problem = "nothing is left of its filters, which are too small"
    else:
        return
    raise PlanError(
        f"{layer.name} holds {str(dtype).removeprefix('torch.')}, in which {problem}; scale the bank (scale='unit' or "
        "'target'), or widen the network; nothing was changed"
    )


def _apply(layer: FoundLayer, filters: Tensor, freeze: bool) -> str:
    """Put filters into a layer and return the layer's mark."""
    module = layer.module
    weight = _weight(module)
    # as the layer holds them: widened later, they are the same
    filters = filters.reshape(weight.shape).to(weight.dtype)
    before = module.__dict__.get(_RECORD)
    if before is None:
        record = _Record(weight.detach().clone(), weight.requires_grad, filters, token_hex(8))
    else:
        record = replace(before, injected=filters)
    with torch.no_grad():
        weight.copy_(filters)
    setattr(module, _RECORD, record)
    if freeze:
        freeze_module(module)
    elif is_frozen(module):
        thaw_module(module)
        _weight(module).requires_grad_(record.requires_grad)
    return record.mark


def _targets(model: nn.Module, found: Found, selected: Sequence[bool]) -> list[Target]:
    """Describe the layers as they were before any bank; of those that are left out the shape is enough.

    Raises:
        PlanError: a selected layer's weight cannot be replaced in place.
    """
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            holders.setdefault(id(parameter), []).append(name)
    targets = []
    last = max(len(found.layers) - 1, 1)
    for i, (layer, is_selected) in enumerate(zip(found.layers, selected, strict=True)):
        if is_selected:
            weight = _replaceable_weight(layer.name, layer.module)
            for other in set(holders.get(id(weight), ())) - {layer.name}:
                shared = other or "the network itself"
                raise PlanError(f"{layer.name} shares its weight with {shared}, so they cannot hold different filters")
        targets.append(Target(layer.name, layer.stage, i / last, _initial(layer, is_selected), layer.factor))
    return targets


def _initial(layer: FoundLayer, is_selected: bool) -> Tensor:
    """The weight before any bank, or, of a layer that is left out and has none that can be taken, zeros."""
    record = layer.module.__dict__.get(_RECORD)
    held = held_weight(layer.module) if record is None else record.original
    if held is not None and held.numel() == prod(layer.shape) and not held.is_meta and held.is_floating_point():
        return held.detach().reshape(layer.shape)
    if is_selected:
        before = "another" if held is None else tuple(held.shape)
        raise PlanError(
            f"the weight of {layer.name} has become one of {layer.shape} since its first bank, before which it was one "
            f"of {before}, so none can go in its place; build the network anew"
        )
    return torch.zeros(layer.shape)


def _own_weight(name: str, module: nn.Module) -> Tensor:
    weight = held_weight(module)
    if weight is None:
        raise PlanError(
            f"{name} computes its weight (a parametrization), so no filter can be put there; "
            "remove the parametrization first"
        )
    return weight


def _replaceable_weight(name: str, module: nn.Module) -> Tensor:
    weight = _own_weight(name, module)
    if weight.is_meta:
        raise PlanError(f"{name} is on the meta device, where filters have no values; materialise it first")
    if not weight.is_floating_point() or weight.dtype.itemsize < _LEAST_BYTES:
        raise PlanError(
            f"{name} has weights of {str(weight.dtype).removeprefix('torch.')}; filters are real numbers of 16 bits at "
            "least"
        )
    if any(step == 0 and size > 1 for step, size in zip(weight.stride(), weight.shape, strict=True)):
        raise PlanError(f"{name} has an expanded weight, whose filters share their memory; clone it first")
    if weight.is_inference():
        raise PlanError(f"{name} was made in inference mode, so nothing can be written there; build it outside")
    return weight


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _holds(module: nn.Module, filters: Tensor) -> bool:
    weight = held_weight(module)  # None: it is computed since, whatever it comes to
    if weight is None or weight.is_meta:
        return False
    return torch.equal(weight.detach().cpu(), filters.to(weight.dtype).cpu())


def _lost(model: nn.Module) -> list[str]:
    """Name the layers of ``model`` that banks were put into and that are there no longer, under whatever name.

    A network and a part of it may both have been injected: then a layer is there if one of them knows it.
    """
    is_here: dict[str, bool] = {}
    for prefix, module in model.named_modules():
        if filled := module.__dict__.get(_FILLED):
            marks = {record.mark for _, _, record in _with_record(module)}
            marks |= {inside.__dict__[_EJECTED] for inside in module.modules() if _EJECTED in inside.__dict__}
            for mark, inner in filled.items():
                name = _joined(prefix, inner)
                is_here[name] = is_here.get(name, False) or mark in marks
    return [name for name, found in is_here.items() if not found]


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}".strip(".")


def _with_record(model: nn.Module) -> list[tuple[str, nn.Module, _Record]]:
    return [
        (name, module, module.__dict__[_RECORD]) for name, module in model.named_modules() if _RECORD in module.__dict__
    ]


def _not_injected(model: nn.Module, done: str) -> NotInjectedError:
    return NotInjectedError(
        f"nothing can be {done} this {type(model).__name__}: none of its layers holds a bank that was put "
        "in here (a saved and loaded state dict keeps the filters, but not what they replaced)"
    )


def _changeable(model: nn.Module, done: str) -> list[tuple[str, nn.Module, _Record]]:
    """Return the layers that hold a bank, once it is known that each of them can be changed."""
    _require_undistributed(model)
    found = _with_record(model)
    if not found:
        raise _not_injected(model, done)
    for name, module, _ in found:
        _own_weight(name, module)
    return found


def _count_trainable(model: nn.Module) -> int:
    """Count the weights that learn; a lazy layer has none until its first call."""
    return sum(
        parameter.numel() for parameter in model.parameters() if parameter.requires_grad and not is_lazy(parameter)
    )
