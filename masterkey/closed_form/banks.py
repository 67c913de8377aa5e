"""Banks that are rules: their filters are computed when they meet a network, for its kernels and depth."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..bank import Bank
from ..errors import PlanError
from ..fit import fit_kernel
from ..host import on_host
from ..late import LateBank
from ..metadata import Kernel, Layer, Metadata, Source
from ..plan import Target, nearest_kernel
from ..rules import KernelRule
from ..whole import as_seed
from .gaussian import sample_measured, sample_smooth
from .scale_space import scale_space_filters

Filters = dict[str, Tensor]
Rule = Callable[[Sequence[Target], int, KernelRule], Filters]


class ComputedBank(LateBank):
    """A bank that is a rule.

    Args:
        metadata: name, licence and origin; without layers.
        rule: target layers, a seed and the plan's kernel rule -> named tensors (filters, 1, kh, kw).
    """

    def __init__(self, metadata: Metadata, rule: Rule) -> None:
        self._about = metadata
        self._rule = rule

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by name and rule."""
        return type(self), (self._about, self._rule)

    @on_host()
    def bind(self, targets: Sequence[Target], seed: int, rule: KernelRule = "crop") -> Bank:
        """Compute the filters for ``targets``, layers in forward order."""
        seed = as_seed(seed)
        layers = self._rule(targets, seed, rule)
        step = {"kernels": [list(kernel) for kernel in _kernels(targets)], "seed": seed}
        return Bank(layers, self._about.after("computed", _described(layers), **step))

    @property
    def name(self) -> str:
        """The bank's name."""
        return self._about.name

    @property
    def kind(self) -> str:
        """Computed filters are depthwise."""
        return self._about.kind


def computed_bank(name: str, base: Bank | None, *, licence: str | None) -> ComputedBank:
    """Return the built-in bank ``name``; ``base`` is the bank that a control or a fit is made of.

    Raises:
        KeyError: no rule of that name.
        PlanError: ``base`` is not depthwise.
    """
    if base is not None and base.kind != "depthwise":
        raise PlanError(f"{name} is made of a depthwise bank, and {base.name} is of kind {base.kind}")
    rules: dict[str, Callable[[], Rule]] = {
        "scale-space-8": lambda: _scale_space,
        "gaussian-covariance": lambda: _smooth if base is None else partial(_measured, base),
        "random": lambda: _random,
        "random-8": lambda: _random_8,
        "shuffled-pixels": lambda: partial(_shuffled_pixels, base or _default_base()),
        "random-local": lambda: partial(_random_local, base or _default_base()),
    }
    rule = rules[name]()
    origin = name if base is None else f"{name}:{base.name}"
    metadata = Metadata(
        name=origin,
        kind="depthwise",
        source=Source(kind="computed", id=origin),
        layers=(),
        order="forward",
        base_model=base.metadata.base_model if base else None,
        datasets=base.metadata.datasets if base else (),
        # a control or a fit made of a bank is a work derived from it
        licence=base.metadata.licence if base else licence,
    )
    return ComputedBank(metadata, rule)


def _default_base() -> Bank:
    from ..names import load_bank

    return load_bank("scale-space-8")


def _kernels(targets: Sequence[Target]) -> list[Kernel]:
    return sorted({target.kernel for target in targets})


def _described(layers: Filters) -> tuple[Layer, ...]:
    return tuple(
        Layer(name, (tensor.shape[2], tensor.shape[3]), len(tensor), groups=len(tensor))
        for name, tensor in layers.items()
    )


def _scale_space(targets: Sequence[Target], seed: int, rule: KernelRule) -> Filters:
    return {f"keys.{kh}x{kw}.weight": scale_space_filters((kh, kw)) for kh, kw in _kernels(targets)}


def _smooth(targets: Sequence[Target], seed: int, rule: KernelRule) -> Filters:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{target.name}.weight": sample_smooth(len(target.initial), target.kernel, target.depth, generator)
        for target in targets
    }


def _measured(base: Bank, targets: Sequence[Target], seed: int, rule: KernelRule) -> Filters:
    """Each target takes its covariance from the base layer at the same relative depth."""
    filters = list(base.effective().values())
    generator = torch.Generator().manual_seed(seed)
    last = len(filters) - 1
    return {
        f"{target.name}.weight": sample_measured(
            filters[round(target.depth * last)], len(target.initial), target.kernel, generator
        )
        for target in targets
    }


def _random(targets: Sequence[Target], seed: int, rule: KernelRule) -> Filters:
    """Deal a layer's initial weights out anew, over all its filters.

    Initialisers draw the weights of a layer independently of each other, so this is a fresh draw from the
    network's own initialiser, whichever it was, with exactly the same deviation. In a network with loaded
    weights it is those that are dealt out. Like every computed filter they are given as seen in the output.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for target in targets:
        weights = target.initial.detach().to("cpu", torch.float32).flatten()
        order = torch.randperm(weights.numel(), generator=generator)
        layers[f"{target.name}.weight"] = weights[order].view(target.initial.shape) * target.factor
    return layers


def _random_8(targets: Sequence[Target], seed: int, rule: KernelRule) -> Filters:
    """The first eight random filters of each kernel size, to be dealt out over and over.

    Eight keys differ from a bank not in their shapes alone but in being few, which needs a control of its own.
    """
    drawn = _random(targets, seed, rule).values()
    return {
        f"keys.{kh}x{kw}.weight": torch.cat([filters for filters in drawn if filters.shape[2:] == (kh, kw)])[:8]
        for kh, kw in _kernels(targets)
    }


def _shuffled_pixels(base: Bank, targets: Sequence[Target], seed: int, rule: KernelRule) -> Filters:
    """Shuffle the filters as they will go in.

    Fitting comes first: a crop keeps most of a filter, whose weight is in its middle, but little of a shuffled
    one, and a control must have the norms of what it controls.
    """
    return dict(_fitted(base, targets, seed, rule).pixel_shuffled(seed).layers)


def _random_local(base: Bank, targets: Sequence[Target], seed: int, rule: KernelRule) -> Filters:
    """Draw white noise under the window of the filters as they will go in.

    Shuffled pixels lose where a filter's weight lies along with its shape. Here each position has the bank's mean
    energy (its filters at unit norm, so that none counts for more) and nothing else of it: no neighbouring weights
    alike, no sign, no symmetry.
    """
    generator = torch.Generator().manual_seed(seed)
    fitted = _fitted(base, targets, seed, rule).normalized("unit").layers.values()
    windows = {
        kernel: torch.cat([layer for layer in fitted if layer.shape[2:] == kernel]).square().mean(0).sqrt()
        for kernel in {(int(layer.shape[2]), int(layer.shape[3])) for layer in fitted}
    }
    found = {
        f"{target.name}.weight": torch.randn(len(target.initial), 1, *target.kernel, generator=generator)
        * windows[target.kernel]
        for target in targets
        if target.kernel in windows
    }
    if not found:  # the rule fits none: say what it says of filters
        fit_kernel(torch.ones(1, 1, *next(iter(windows))), targets[0].kernel, rule)
    return found


def _fitted(base: Bank, targets: Sequence[Target], seed: int, rule: KernelRule) -> Bank:
    """Return a bank's filters as seen in the output, with those fitted to the targets' other kernels beside them."""
    bound = base.bind(targets, seed, rule)
    layers = bound.effective()
    own = list(bound.counts())
    for kernel in _kernels(targets):
        if kernel in own or rule == "exact":
            continue
        nearest = nearest_kernel(kernel, own)
        for layer in bound.metadata.layers:
            if layer.kernel == nearest:
                layers[f"{kernel[0]}x{kernel[1]}/{layer.name}"] = fit_kernel(layers[layer.name], kernel, rule)
    return Bank(layers, bound.metadata.after("fitted", _described(layers), how=rule))
