"""The frozen depthwise convolution, and the switch of a layer between trainable and frozen.

Frozen means that the weight is a buffer: no optimizer, weight decay, ``requires_grad_(True)`` or ``train()``
reaches it, while its name, the state-dict keys and every ``isinstance`` check stay what they were.

It also saves two costs that PyTorch pays even for a weight without gradient: autograd keeps the input, though
only a weight gradient would read it, and on the CPU the gradient of the bias comes out of the computation of
the weight's, which takes longer than all the rest of a 7x7 depthwise layer.
"""

from typing import Any, ClassVar, SupportsIndex, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.parametrize import is_parametrized

from .errors import PlanError

__all__ = ["Frozen", "freeze_module", "frozen_conv2d", "held_weight", "is_frozen", "require_freezable", "thaw_module"]


def frozen_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """``F.conv2d`` that keeps no input for the backward pass, and whose gradient is a convolution again.

    This holds for stride 1, at most ``dilation * (kernel - 1)`` zeros per side and a weight that requires no
    gradient; there it is exact. Everything else is plain ``F.conv2d``.

    Args:
        input: (batch, groups * n, height, width) in any memory format. The output takes it over, and the
            gradient that of the output's gradient.
        weight: (groups * m, n, kernel height, kernel width).
        bias: (groups * m,) or None; it may require a gradient.
        stride: pair of step widths.
        padding: pair of zeros per side, ``"same"`` or ``"valid"``.
        dilation: pair of distances between the taps of a filter.
        groups: number of groups; for a depthwise convolution the number of input channels.

    Returns:
        (batch, groups * m, height', width'): what ``F.conv2d`` returns, under autocast too.
    """
    if (
        torch.is_grad_enabled()
        and not _learns(weight)
        and input.dim() == 4
        and all(step == 1 for step in stride)
        # TorchScript can trace a Python function but not save it
        and torch._C._get_tracing_state() is None
        # torch.compile traces no transform of torch.func through one: vmap over grad, jvp
        and not (torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None)
    ):
        zeros = _zeros_per_side(padding, _reach(weight, dilation))
        if zeros is not None:
            convolution = _TraceableFrozenConv2d if torch.compiler.is_compiling() else _FrozenConv2d
            output: Tensor = convolution.apply(input, weight, bias, groups, *zeros, *dilation)
            return output
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _learns(weight: Tensor) -> bool:
    """Whether a gradient by a weight is asked for; one that vmap has batched does not say so itself."""
    functorch = torch._C._functorch
    if not torch.compiler.is_compiling():
        while not weight.requires_grad and functorch.is_functorch_wrapped_tensor(weight):
            weight = functorch.get_unwrapped(weight)
    return weight.requires_grad


class _TraceableFrozenConv2d(torch.autograd.Function):
    """Convolution with stride 1. Its gradient is one too, so it can be differentiated to any order.

    Not so under ``torch.compile(backend="eager")``, where torch 2.14 gives the first gradient of any function like this
    no history: a gradient penalty there misses what goes through it, without an error.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        groups: int,
        *padding_and_dilation: int,
    ) -> Tensor:
        # plain numbers, two and two: functorch cannot batch a forward derivative of a function that takes tuples
        return F.conv2d(input, weight, bias, 1, padding_and_dilation[:2], padding_and_dilation[2:], groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, weight, _, ctx.groups, *numbers = inputs
        ctx.padding, ctx.dilation = tuple(numbers[:2]), tuple(numbers[2:])
        ctx.shape = output.shape
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)
        ctx.set_materialize_grads(False)  # so that a tangent of zeros can be told from none

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        grad_input = grad_bias = None
        if grad is None:  # nothing depends on the output
            return (None,) * 8
        # Under autocast the output, and so its gradient, is narrower than weight, input and bias. The weight
        # follows it; what is returned here autograd itself casts to the types of input and bias.
        if ctx.needs_input_grad[0]:
            mirrored = _mirror(weight.to(grad.dtype), ctx.groups)
            padding = tuple(r - z for r, z in zip(_reach(weight, ctx.dilation), ctx.padding, strict=True))
            grad_input = frozen_conv2d(grad, mirrored, None, (1, 1), padding, ctx.dilation, ctx.groups)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_input, None, grad_bias, None, None, None, None, None


class _FrozenConv2d(_TraceableFrozenConv2d):
    """The same with a forward derivative, as outside torch.compile, which traces no function that has one."""

    @staticmethod
    def jvp(ctx: Any, input: Tensor | None, weight: Tensor | None, bias: Tensor | None, *_: None) -> Tensor:
        if weight is not None:
            raise NotImplementedError(
                "a frozen filter has no tangent: thaw the network to differentiate by its filters"
            )
        if input is None:
            assert bias is not None
            return bias.reshape(1, -1, 1, 1).expand(ctx.shape)
        (frozen,) = ctx.saved_tensors
        return F.conv2d(input, frozen, bias, 1, ctx.padding, ctx.dilation, ctx.groups)


def _mirror(weight: Tensor, groups: int) -> Tensor:
    """Filters of the adjoint convolution: (groups * m, n, kh, kw) becomes (groups * n, m, kh, kw).

    Every filter turns by 180 degrees, and within a group input and output channels change places: a depthwise
    layer with m filters per channel becomes one that sums m channels. Mirroring twice changes nothing.
    """
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1).flip(-2, -1)


def _reach(weight: Tensor, dilation: tuple[int, ...]) -> tuple[int, ...]:
    """How many rows and columns a filter extends beyond its first one."""
    return tuple(d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True))


def _zeros_per_side(padding: str | tuple[int, ...], reach: tuple[int, ...]) -> tuple[int, ...] | None:
    """Rows and columns of zeros put on either side; None if the sides differ or go beyond the filter's reach."""
    if padding == "same":
        return None if any(r % 2 for r in reach) else tuple(r // 2 for r in reach)
    zeros = (0, 0) if isinstance(padding, str) else padding
    return zeros if all(z <= r for z, r in zip(zeros, reach, strict=True)) else None


class Frozen(nn.Module):
    """What :func:`freeze_module` mixes into the class of a layer."""

    weight: Tensor
    plain_class: ClassVar[type[Any]]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if not is_frozen(self):  # a new Parameter was assigned, or the weight parametrized
            return super()._save_to_state_dict(destination, prefix, keep_vars)
        # Buffers come after parameters, but the weight keeps its old place: timm's ModelEmaV2 and V3 pair the
        # entries of two models by position.
        key = f"{prefix}weight"
        destination[key] = self.weight
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # timm's ModelEma, V2 and V3 average in place what state_dict() returns, and even an average of equals can
        # be off by rounding. With keep_vars the caller asks for the buffer itself: the ONNX exporter built on
        # TorchScript recognises weights by identity and would take a copy for an anonymous constant.
        if not keep_vars:
            destination[key] = destination[key].clone()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        # then the entry itself would become the weight: a tensor that may learn, or that another network trains
        is_assigned = local_metadata.get("assign_to_params_buffers", False)
        entry = state_dict.get(f"{prefix}weight")
        if is_frozen(self) and is_assigned and isinstance(entry, Tensor):
            state_dict[f"{prefix}weight"] = entry.detach().clone()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # pickle finds classes by name, but this one was made at run time
        state = self.__getstate__()  # type: ignore[no-untyped-call]
        return _new_frozen, (self.plain_class,), state


class _FrozenConvolution(Frozen, nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # FX traces into a class of somebody's own with a stand-in for the input, which cannot be asked anything
        if isinstance(input, Proxy) or self.groups != self.in_channels or self.padding_mode != "zeros":
            output: Tensor = super()._conv_forward(input, weight, bias)
            return output
        # mixed precision of FSDP2 casts parameters, and a frozen filter is none; without a bias a narrower input tells
        narrower = input.is_floating_point() and input.dtype.itemsize < weight.dtype.itemsize
        if input.dtype != weight.dtype and (narrower if bias is None else bias.dtype == input.dtype):
            weight = weight.to(input.dtype)
        return frozen_conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


_frozen_classes: dict[type[nn.Module], type[Frozen]] = {}


def _frozen_class(plain: type[nn.Module]) -> type[Frozen]:
    """The class ``Frozen<Name>`` of layers of class ``plain``, always the same one."""
    made = _frozen_classes.get(plain)
    if made is None:
        # a subclass that computes its convolution in its own way goes on doing so
        own_way = getattr(plain, "_conv_forward", None) is not nn.Conv2d._conv_forward
        bases = (Frozen if own_way else _FrozenConvolution, plain)
        # the module's name, too: FX takes a class of torch.nn for one operation and does not trace into it
        namespace = {"__module__": plain.__module__, "plain_class": plain}
        try:
            made = type(f"Frozen{plain.__name__}", bases, namespace)
        except Exception as error:  # it is final, or its subclasses have to say something of their own
            raise PlanError(f"a {plain.__name__} cannot be frozen: its class allows no subclass ({error})") from error
    return _frozen_classes.setdefault(plain, made)  # another thread may have been first


def _new_frozen(plain: type[nn.Module]) -> nn.Module:
    """An empty layer of class ``Frozen<Name>``, for pickle and deepcopy to fill."""
    cls = _frozen_class(plain)
    return cls.__new__(cls)


def held_weight(module: nn.Module) -> Tensor | None:
    """The weight that a layer holds itself; None where it is computed from other tensors."""
    # not module.weight: to read a parametrized weight can change the network (spectral norm iterates)
    return module._parameters.get("weight", module._buffers.get("weight"))


def _weight_of(module: nn.Module) -> Tensor:
    """The weight that a layer holds itself."""
    name = type(module).__name__
    if not isinstance(module, nn.Conv2d | nn.Linear):
        raise PlanError(f"only Conv2d and Linear layers can be frozen or thawed, not a {name}")
    weight = held_weight(module)
    if weight is None:
        raise PlanError(
            f"the weight of this {name} is computed from other tensors (weight norm, pruning or another "
            "parametrization) and cannot be frozen or thawed; remove the parametrization first"
        )
    return weight


def is_frozen(module: nn.Module) -> TypeGuard[Frozen]:
    """Whether :func:`freeze_module` has frozen this layer and its weight is still a buffer."""
    return isinstance(module, Frozen) and "weight" in module._buffers


def require_freezable(module: nn.Module) -> None:
    """See that :func:`freeze_module` will take a layer, before any other is changed.

    Raises:
        PlanError: it will not.
    """
    _weight_of(module)
    if isinstance(module, Frozen):
        return
    plain = type(module)
    if is_parametrized(module):  # its class was made for it alone, and is gone once the parametrization is
        raise PlanError(
            f"the bias of a {plain.__name__} is parametrized; remove the parametrization before it is frozen"
        )
    frozen = _frozen_class(plain)
    try:
        module.__class__ = frozen
    except Exception as error:
        raise PlanError(f"a {plain.__name__} cannot be frozen: its class cannot be changed ({error})") from error
    module.__class__ = plain


def freeze_module(module: nn.Module) -> None:
    """Freeze the weight of one layer, in place; a frozen layer stays as it is.

    The weight becomes a persistent buffer of the same name and the class ``Frozen<Name>``, a subclass of what
    it was. The bias stays trainable. A depthwise convolution then runs through :func:`frozen_conv2d`,
    unless its class has a forward of its own, like timm's ``Conv2dSame``.

    Args:
        module: an ``nn.Conv2d`` with a weight of (out, in / groups, kernel height, kernel width), or an
            ``nn.Linear`` with one of (out, in); subclasses of either, too.

    Raises:
        PlanError: the module is of another kind, its weight is parametrized, weight-normed or pruned, its bias
            parametrized, or its class allows no subclass.
    """
    weight = _weight_of(module)
    if is_frozen(module):
        return
    require_freezable(module)
    cls = type(module) if isinstance(module, Frozen) else _frozen_class(type(module))
    del module.weight
    # a copy: an optimizer made earlier still holds the parameter and may write to its memory
    # under inference_mode the copy would be a tensor that no later training may save for its backward pass
    with torch.inference_mode(False):
        copied = weight.detach().clone()
    module.register_buffer("weight", copied)
    module.__class__ = cls


def thaw_module(module: nn.Module) -> None:
    """Undo :func:`freeze_module`, in place; a layer that is not frozen stays as it is.

    The weight becomes a parameter that requires a gradient. An optimizer made earlier does not know it.

    Args:
        module: an ``nn.Conv2d`` or ``nn.Linear``, as in :func:`freeze_module`.

    Raises:
        PlanError: as in :func:`freeze_module`.
    """
    weight = _weight_of(module)
    if is_frozen(module):
        del module.weight
        # first among the parameters, as it was: the state of an optimizer is saved in their order
        others = dict(module._parameters)
        module._parameters.clear()
        module.register_parameter("weight", nn.Parameter(weight))
        module._parameters.update(others)
    if isinstance(module, Frozen) and type(module) is _frozen_class(module.plain_class):
        module.__class__ = module.plain_class  # also where a Parameter was assigned since
