"""Which layers of a network are depthwise convolutions, and in which order a forward pass calls them."""

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from threading import get_ident
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from .errors import NoTargetLayersError, PlanError
from .frozen import held_weight
from .host import on_host
from .mask import stage_of
from .metadata import KINDS, Kernel, Layer
from .wrapped import unwrapped

_log = logging.getLogger(__name__)

_STATE = ("_parameters", "_buffers", "_modules")  # where a module keeps what is its own
# They change no shape, but on the meta device they are the larger part of a forward pass.
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
_OTHER_SIDES = (32, 64, 96, 128)  # of networks for small pictures, which seldom state theirs


@dataclass(frozen=True)
class FoundLayer:
    """A layer of the kind asked for: its module's name in the network, and the module."""

    name: str
    module: nn.Module

    @property
    def weight(self) -> Tensor:
        """The weight as a bank holds it: (out, in/groups, kh, kw); a Linear layer's gets two sides of 1."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight if weight.ndim == 4 else weight[:, :, None, None]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the weight as a bank holds it, without reading one that is computed, which may change the network."""
        held, module = held_weight(self.module), self.module
        if held is not None:
            out, channels, *kernel = held.shape
        elif isinstance(module, nn.Conv2d):
            out, channels, kernel = module.out_channels, module.in_channels // module.groups, list(module.kernel_size)
        else:
            assert isinstance(module, nn.Linear)
            out, channels, kernel = module.out_features, module.in_features, []
        height, width = kernel or (1, 1)
        return out, channels, height, width

    @property
    def kernel(self) -> Kernel:
        """(kh, kw)."""
        return self.shape[2:]

    @property
    def stride(self) -> Kernel:
        """(sh, sw); 1 for a Linear layer."""
        stride = getattr(self.module, "stride", (1, 1))
        return stride[0], stride[1]

    @property
    def groups(self) -> int:
        """The convolution's groups; 1 for a Linear layer."""
        return int(getattr(self.module, "groups", 1))

    @property
    def factor(self) -> float:
        """What the network multiplies the layer's output by: ``output_factor`` of the module, where it has one."""
        return float(getattr(self.module, "output_factor", 1.0))

    @property
    def stage(self) -> int | None:
        """The stage that the name states."""
        return stage_of(self.name)

    def described(self) -> Layer:
        """What a bank with this layer's filters says of it, under the parameter's name."""
        count, _, *kernel = self.shape
        return Layer(
            f"{self.name}.weight", (kernel[0], kernel[1]), count, self.groups, self.stride, self.stage, self.factor
        )


@dataclass(frozen=True)
class Found:
    """All layers of a kind, and how their order was found: ``forward`` or ``registration``."""

    layers: tuple[FoundLayer, ...]
    order: str


def is_depthwise(module: nn.Module) -> bool:
    """Spatial depthwise: one group per input channel, more than one channel, a kernel larger than 1x1."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and _spatial(module)


def depthwise_layers(model: nn.Module) -> Mapping[str, nn.Conv2d]:
    """Return the spatial depthwise convolutions of ``model``, module name -> module, in forward order.

    Strides, dilation, channel multipliers, even and 1xk kernels and subclasses (``Conv2dSame``) are included;
    a 1x1 convolution with groups = channels has no spatial filter and is not.

    Raises:
        PlanError: ``model`` is no network.
    """
    layers = find_layers(model, "depthwise").layers
    return {layer.name: layer.module for layer in layers if isinstance(layer.module, nn.Conv2d)}


@on_host()
def find_layers(model: nn.Module, kind: str = "depthwise") -> Found:
    """Find the layers of a kind, in the order of their first call in a forward pass on the meta device.

    Kinds: ``depthwise``; ``dense`` (spatial, groups = 1); ``pointwise`` (1x1 convolutions with groups = 1, and
    Linear layers that see a (n, h, w, c) map, as ConvNeXt writes its 1x1 convolutions); ``all`` (every
    convolution, and those Linear layers). Layers that the pass leaves out come last. Where it calls none, or fails
    on the meta device before all were called, the order is that of registration, and where it fails no Linear layer
    counts. A module used under two names counts once.

    Raises:
        NoTargetLayersError: ``kind`` is none of these.
        PlanError: ``model`` is no network.
    """
    require_network(model)
    if kind not in KINDS:
        raise NoTargetLayersError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    names = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    conv_found = any(_is_kind(module, kind, on_map=False) for module in names.values())
    if not conv_found and kind in ("depthwise", "dense"):
        return Found((), "registration")
    possible = {name for name, module in names.items() if _is_kind(module, kind, on_map=True)}
    calls = _trace_calls(model, possible)
    order = sorted(names, key=lambda name: calls.position.get(name, len(names)))  # stable: the uncalled last
    layers = tuple(FoundLayer(name, names[name]) for name in order if _is_kind(names[name], kind, name in calls.on_map))
    followed = calls.complete and any(layer.name in calls.position for layer in layers)
    return Found(layers, "forward" if followed else "registration")


def require_layers(model: nn.Module, kind: str = "depthwise") -> Found:
    """As ``find_layers``, but a network without such layers is an error.

    Raises:
        NoTargetLayersError: says what the network has instead.
        PlanError: ``model`` is no network.
    """
    found = find_layers(model, kind)
    if not found.layers:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        spatial = sum(_spatial(module) for module in convolutions)
        grouped = sum(module.groups > 1 for module in convolutions)
        raise NoTargetLayersError(
            f"{type(model).__name__} has no {'spatial depthwise' if kind == 'depthwise' else kind} convolution: "
            f"of its {len(convolutions)} 2-D convolutions {spatial} are spatial and {grouped} grouped"
        )
    return found


def require_network(model: Any) -> None:
    """Raise PlanError for what is no network, a name of one among it."""
    if not isinstance(model, nn.Module):
        raise PlanError(
            f"a network is a torch.nn.Module, not {model!r:.80}; masterkey.create_model builds one by its name"
        )


def _spatial(module: nn.Conv2d) -> bool:
    return max(module.kernel_size) > 1


def _is_kind(module: nn.Module, kind: str, on_map: bool) -> bool:
    if isinstance(module, nn.Linear):
        return kind in ("pointwise", "all") and on_map
    assert isinstance(module, nn.Conv2d)
    if kind == "depthwise":
        return is_depthwise(module)
    if kind == "all":
        return True
    return module.groups == 1 and _spatial(module) == (kind == "dense")


@dataclass
class _Calls:
    position: dict[str, int]
    on_map: set[str]
    complete: bool = False


def _trace_calls(model: nn.Module, possible: Set[str]) -> _Calls:
    """Run a weightless copy of the network on the meta device and note who is called first, and on what.

    It is complete once it has run through, or has called all that is ``possible`` before it failed.
    """
    others = any(each.is_floating_point() and each.dtype != torch.float32 for each in model.parameters())
    # one type for all first; but a forward pass may itself cast to the type that the network has
    for dtype in (torch.float32, None) if others else (None,):
        calls = _calls_of_copy(model, possible, dtype)
        if calls.complete:
            break
    return calls


def _calls_of_copy(model: nn.Module, possible: Set[str], dtype: torch.dtype | None) -> _Calls:
    """Trace a copy whose floats are all of one type; with None they keep theirs, and the picture has the first's."""
    model, prefix = unwrapped(model)  # a DataParallel on a GPU runs no picture that is not there
    calls = _Calls({}, set())
    floats = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    picture_dtype = dtype or next(floats, torch.float32)
    try:
        shadow = _meta_copy(model, dtype).eval()
    except Exception as error:
        _log.warning("%s cannot be copied, so its layers are taken as registered: %s", type(model).__name__, error)
        return calls
    for name, module in shadow.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(_note(calls, prefix + name))
        elif isinstance(module, _NORMS):
            vars(module)["forward"] = _unchanged
    guard = _left_alone if _functions(model) & _functions(shadow) else nullcontext
    for shape in _input_shapes(model):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), guard(model):
                shadow(torch.empty(shape, device="meta", dtype=picture_dtype))
        except Exception as error:
            # any network may fail in its own way without data, or have a head for one size of pictures only
            _log.debug("no forward pass of %s on the meta device: %s", type(model).__name__, error)
            calls.complete = calls.position.keys() >= possible
        else:
            calls.complete = True
        if calls.complete:
            break
        calls.position.clear()
        calls.on_map.clear()
    return calls


def _functions(model: nn.Module) -> set[int]:
    """The functions that modules hold, by identity; a copy holds the same ones, and they may hold the network."""
    held = [{key: value for key, value in vars(module).items() if key not in _STATE} for module in model.modules()]
    return {id(leaf) for leaf in tree_leaves(held) if isinstance(leaf, FunctionType)}


def _left_alone(model: nn.Module) -> RemovableHandle:
    """Refuse, until closed, calls of the network's own layers, which would change its state and be noted nowhere."""
    own = {id(module) for module in model.modules() if module._parameters or module._buffers}
    thread = get_ident()  # another one may be at work with the network

    def refuse(module: nn.Module, args: tuple[object, ...]) -> None:
        if id(module) in own and get_ident() == thread:
            raise RuntimeError(f"the copy calls a {type(module).__name__} of the network itself")

    return register_module_forward_pre_hook(refuse)


def _unchanged(input: Tensor, *rest: object) -> Tensor:
    return input


def _note(calls: _Calls, name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
    def hook(module: nn.Module, args: tuple[object, ...]) -> None:
        calls.position.setdefault(name, len(calls.position))
        if isinstance(module, nn.Linear) and args and isinstance(args[0], Tensor) and args[0].ndim == 4:
            calls.on_map.add(name)

    return hook


def _meta_copy(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Copy a network without its numbers: deepcopy finds every tensor already copied, to the meta device.

    All floats become ``dtype``, so that a network with some layers in bfloat16 takes one kind of picture. Hooks stay
    behind: they are the caller's, and must not see a pass of the copy. So do functions in the place of methods
    (``model.forward = torch.no_grad()(model.forward)``): deepcopy takes functions as they are, and what they call is
    the network. What cannot be copied (a lock in a logger that a module holds) is the network's own.
    """

    def copied(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="meta", dtype=dtype if tensor.is_floating_point() else None)

    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(copied(parameter), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = copied(buffer)
    # what a forward pass has left on a module (an activation, say) would keep it from being copied
    for module in model.modules():
        kept = {key: value for key, value in vars(module).items() if key not in _STATE}
        for tensor in tree_leaves(kept):
            if isinstance(tensor, Tensor):
                memo.setdefault(id(tensor), copied(tensor.detach()))
        for key, value in kept.items():
            if "_hooks" in key and isinstance(value, OrderedDict):
                memo[id(value)] = OrderedDict()
    for module in model.modules():
        for value in vars(module).values():
            if not isinstance(value, nn.Module | Mapping | Sequence | Set | Tensor):
                _copy_if_possible(value, memo)
    functions = _functions(model)  # not those that a compiled block makes anew when it is copied
    shadow = copy.deepcopy(model, memo)
    for module in shadow.modules():
        for name, value in list(vars(module).items()):
            if id(value) in functions and hasattr(type(module), name):
                del vars(module)[name]
    return shadow


def _copy_if_possible(value: object, memo: dict[int, object]) -> None:
    known = len(memo)
    try:
        copy.deepcopy(value, memo)
    except Exception:
        for key in list(memo)[known:]:  # what it had begun, the network itself perhaps, which the value refers to
            del memo[key]
        memo[id(value)] = value


def _input_shapes(model: nn.Module) -> list[tuple[int, ...]]:
    """The shapes of one picture that the network may take, the likeliest first.

    The sides are those that the network was built for, if it says so, else those that timm's configuration
    states, else 224, and then those of small pictures; the channels those of the first convolution (``in_chans`` is
    stated nowhere), or the configuration's, which come first where that convolution is grouped.
    """
    stated_by_timm = getattr(model, "pretrained_cfg", None)
    config = stated_by_timm if isinstance(stated_by_timm, Mapping) else {}
    channels, *stated = config.get("input_size") or (3, 224, 224)
    built_for = (_sides(getattr(module, "img_size", None)) for module in model.modules())
    height, width = next((sides for sides in built_for if sides), stated)
    stem = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    seen = channels if stem is None else stem.in_channels
    # a depthwise convolution is seldom what sees the picture, and a dense one not always: CSATv2 transforms it before
    likeliest = (seen, channels) if stem is None or stem.groups == 1 else (channels, seen)
    sizes = dict.fromkeys([(height, width), *((side, side) for side in _OTHER_SIDES)])
    return [(1, count, *size) for size in sizes for count in dict.fromkeys(likeliest)]


def _sides(size: object) -> Kernel | None:
    """(height, width) out of what networks call ``img_size``, None if it is something else."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return size[0], size[1]
    return None
