"""Decide which filter of a bank goes where, before anything is changed."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from .bank import Bank
from .errors import PlanError
from .fit import fit_kernel
from .mask import LayerMask, require_meant
from .metadata import Kernel, Layer
from .rules import (
    DEFAULT_KERNEL,
    DEFAULT_POLICY,
    DEFAULT_SCALE,
    KERNEL_RULES,
    POLICIES,
    SCALE_RULES,
    KernelRule,
    Policy,
    ScaleRule,
)
from .shapes import ROUNDING
from .whole import as_seed


@dataclass(frozen=True)
class Target:
    """A layer that a filter could go into, as it was before any bank.

    ``depth`` is 0 for the network's first such layer and 1 for its last; ``initial`` has the shape
    (filters, channels per group, kh, kw); ``factor`` is what the network multiplies the layer's output by.
    """

    name: str
    stage: int | None
    depth: float
    initial: Tensor
    factor: float = 1.0

    @property
    def kernel(self) -> Kernel:
        """(kh, kw)."""
        return self.initial.shape[2], self.initial.shape[3]


@dataclass(frozen=True)
class Span:
    """A run of a bank layer's filters: ``layer[start:stop]``."""

    layer: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.layer.removesuffix('.weight')}[{self.start}:{self.stop}]"


@dataclass(frozen=True)
class Pool:
    """All filters of a bank that share one kernel size, in order, and the output factor of each one's source."""

    kernel: Kernel
    filters: Tensor
    factors: Tensor
    starts: tuple[int, ...]
    names: tuple[str, ...]

    def spans(self, indices: Sequence[int]) -> list[Span]:
        """Name the filters at ``indices``, neighbours merged into runs."""
        spans: list[Span] = []
        for index in indices:
            layer = bisect_right(self.starts, index) - 1
            name, position = self.names[layer], index - self.starts[layer]
            if spans and spans[-1].layer == name and spans[-1].stop == position:
                spans[-1] = Span(name, spans[-1].start, position + 1)
            else:
                spans.append(Span(name, position, position + 1))
        return spans


@dataclass(frozen=True)
class Assignment:
    """What one target layer gets: ``pool.filters[indices]``, fitted and scaled."""

    target: Target
    pool: Pool
    indices: Tensor
    kernel_rule: KernelRule
    scale_rule: ScaleRule
    wrapped: bool

    @cached_property
    def filters(self) -> Tensor:
        """The filters as they go in, (filters, channels per group, kh, kw) float32."""
        fitted = fit_kernel(self.pool.filters[self.indices], self.target.kernel, self.kernel_rule)
        return _scaled(fitted, self.pool.factors[self.indices], self.target, self.scale_rule)

    @property
    def fitted(self) -> str | None:
        """How the kernel was fitted (``crop 7x7 to 5x5``), or None where it had the target's size."""
        if self.pool.kernel == self.target.kernel:
            return None
        (kh, kw), (th, tw) = self.pool.kernel, self.target.kernel
        return f"{self.kernel_rule} {kh}x{kw} to {th}x{tw}"

    @property
    def spans(self) -> list[Span]:
        """Where the filters come from, in order."""
        return self.pool.spans(self.indices.tolist())


@dataclass(frozen=True)
class Plan:
    """One assignment for each target layer, which of them the mask lets through, and the filters they are from."""

    assignments: tuple[Assignment | None, ...]
    selected: tuple[bool, ...]
    bank: Bank


def make_plan(
    targets: Sequence[Target],
    bank: Bank,
    *,
    policy: Policy = DEFAULT_POLICY,
    layers: LayerMask | None = None,
    kernel: KernelRule = DEFAULT_KERNEL,
    scale: ScaleRule = DEFAULT_SCALE,
    seed: int = 0,
) -> Plan:
    """Assign filters to every target layer; ``layers`` only masks, it never shifts what a layer gets.

    Policies: ``stack`` (2412.16751's): the bank's filters in order, one cursor for each target kernel size,
    running on from layer to layer and wrapping round at the bank's end. ``sample``: a seeded draw, with
    replacement only where a layer needs more filters than there are. ``layerwise``: layer i from layer i,
    equal shapes. For stack and sample, a target takes filters of its own kernel size, or else of the
    nearest larger one, or else of the nearest smaller one.

    Kernel rules: see ``masterkey.fit``. Scale rules: ``source`` keeps each filter's size, as it
    is seen after the factors that source and target multiply a layer's output by (so what goes in is filter *
    source's factor / target's factor), ``unit`` gives each an L2 norm of 1, ``target`` scales a layer as a whole
    to the deviation of its initial weights.

    Raises:
        PlanError: an unknown policy or rule, a mask that means no layer, filters that do not fit, or under ``target``
            initial weights that do not vary.
    """
    for what, value, known in (
        ("policy", policy, POLICIES),
        ("kernel rule", kernel, KERNEL_RULES),
        ("scale rule", scale, SCALE_RULES),
    ):
        if not isinstance(value, str) or value not in known:
            raise PlanError(f"unknown {what} {value!r:.80}; known: {', '.join(known)}")
    if bank.kind != "depthwise" and policy != "layerwise":
        raise PlanError(f"a bank of kind {bank.kind} goes in by policy 'layerwise' only, not {policy!r}")
    selected = require_meant(targets, layers)
    seed = as_seed(seed)
    bound = bank.bind(targets, seed, kernel)
    if policy == "layerwise":
        return Plan(tuple(_layerwise(targets, selected, bound, scale)), tuple(selected), bound)
    pools = _pools(bound)
    generator = torch.Generator().manual_seed(seed)
    cursors: dict[Kernel, int] = {}
    assignments: list[Assignment] = []
    for target in targets:
        pool = pools[nearest_kernel(target.kernel, list(pools))]
        need, size = len(target.initial), len(pool.filters)
        start = cursors.get(target.kernel, 0)
        if policy == "stack":
            indices = torch.arange(start, start + need) % size
            cursors[target.kernel] = start + need
        elif need <= size:
            indices = torch.randperm(size, generator=generator)[:need]
        else:
            indices = torch.randint(size, (need,), generator=generator)
        wrapped = policy == "stack" and start + need > size
        assignments.append(Assignment(target, pool, indices, kernel, scale, wrapped))
    for assignment, is_selected in zip(assignments, selected, strict=True):
        if is_selected:
            _ = assignment.filters  # a kernel that cannot be fitted is refused here, before anything changes
    return Plan(tuple(assignments), tuple(selected), bound)


def nearest_kernel(target: Kernel, available: Sequence[Kernel]) -> Kernel:
    """Choose among kernel sizes: the same, else the smallest that covers the target, else the nearest smaller.

    Of those that do not cover it, the nearest is the one that overlaps it most when both are centred.
    """
    if target in available:
        return target
    covering = [kernel for kernel in available if kernel[0] >= target[0] and kernel[1] >= target[1]]
    if covering:
        return min(covering, key=prod)
    return max(available, key=lambda kernel: min(kernel[0], target[0]) * min(kernel[1], target[1]))


def _pools(bank: Bank) -> dict[Kernel, Pool]:
    pools = {}
    for kernel in bank.counts():
        layers = [layer for layer in bank.metadata.layers if layer.kernel == kernel]
        starts = [0]
        for layer in layers[:-1]:
            starts.append(starts[-1] + layer.filters)
        filters = torch.cat([bank.layers[layer.name] for layer in layers])
        factors = torch.cat([_factors(layer) for layer in layers])
        pools[kernel] = Pool(kernel, filters, factors, tuple(starts), tuple(layer.name for layer in layers))
    return pools


def _factors(layer: Layer) -> Tensor:
    # float64, so that a source's 1/3 over a target's 1/3 is exactly 1
    return torch.full((layer.filters,), layer.factor, dtype=torch.float64)


def _layerwise(
    targets: Sequence[Target], selected: Sequence[bool], bank: Bank, scale: ScaleRule
) -> list[Assignment | None]:
    _require_same_order(targets, bank)
    assignments: list[Assignment | None] = []
    for i, (target, is_selected) in enumerate(zip(targets, selected, strict=True)):
        if not is_selected:
            assignments.append(None)
            continue
        if i >= len(bank.metadata.layers):
            raise PlanError(
                f"layerwise: {target.name} is layer {i} of its kind, bank {bank.name} has {len(bank.layers)}"
            )
        layer = bank.metadata.layers[i]
        filters = bank.layers[layer.name]
        if filters.shape != target.initial.shape:
            raise PlanError(
                f"layerwise: layer {i} of bank {bank.name}, {layer.name}, has shape {list(filters.shape)}, "
                f"{target.name} needs {list(target.initial.shape)}; policy 'stack' fits other shapes"
            )
        pool = Pool(layer.kernel, filters, _factors(layer), (0,), (layer.name,))
        assignments.append(Assignment(target, pool, torch.arange(len(filters)), "exact", scale, wrapped=False))
    return assignments


def _require_same_order(targets: Sequence[Target], bank: Bank) -> None:
    # a checkpoint does not keep the forward order: where shapes agree its filters would go into each other's layers
    named = [layer.name.removesuffix(".weight") for layer in bank.metadata.layers]
    wanted = [target.name for target in targets]
    if bank.metadata.order != "forward" and named != wanted and sorted(named) == sorted(wanted):
        raise PlanError(
            f"layerwise: bank {bank.name} holds the layers of this network in {bank.metadata.order} order, not in that "
            "of its forward pass; load the weights into the network and take masterkey.Bank.from_model(network)"
        )


def _scaled(filters: Tensor, factors: Tensor, target: Target, rule: ScaleRule) -> Tensor:
    if rule == "source":
        return filters * (factors / target.factor).to(filters.dtype).view(-1, 1, 1, 1)
    # squares of very large or small float32 weights leave its range
    wide = filters.double() * factors.view(-1, 1, 1, 1)
    norms = wide.flatten(1).norm(dim=1)
    if rule == "unit":
        return (wide / torch.where(norms > 0, norms, 1.0).view(-1, 1, 1, 1)).float()
    deviation = wide.std()
    if not deviation > ROUNDING * norms.norm() / wide.numel() ** 0.5:  # of all weights' root mean square
        return wide.float()
    wanted = target.initial.detach().cpu().double().std()
    if not wanted > 0:
        raise PlanError(
            f"the initial weights of {target.name} do not vary, or are no numbers, so they give no deviation to scale "
            "to; use scale='source' or 'unit'"
        )
    return (wide * (wanted / deviation)).float()
