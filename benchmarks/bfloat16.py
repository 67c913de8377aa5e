"""bfloat16 on a CPU without instructions for it, where PyTorch's own products take ten times as long as float32's."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_ATEN = torch.ops.aten
# what autocast makes bfloat16 in a convolutional network, forward and backward
_PRODUCTS = (
    _ATEN.convolution.default,
    _ATEN.convolution_backward.default,
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.baddbmm.default,
)


def products(amp: bool, device: torch.device) -> AbstractContextManager[object]:
    """Return the context for a step, forward and backward, or for an evaluation with or without ``amp``.

    Where the CPU has no fast bfloat16, every product of bfloat16 tensors in it is computed in float32 and rounded to
    bfloat16 once: what an instruction for bfloat16 does, which sums in float32, too. Only the order of its sums is
    another, as it is from one CPU to the next. Elsewhere, and without ``amp``, the context does nothing.
    """
    if amp and are_products_wide(device):
        return _WideProducts()  # type: ignore[no-untyped-call]
    return nullcontext()


def are_products_wide(device: torch.device) -> bool:
    """Whether ``products`` computes in float32: on a CPU for which oneDNN has no kernels for bfloat16."""
    # the question that PyTorch itself asks before it leaves a product to oneDNN; without oneDNN there is no question
    return device.type == "cpu" and not (
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class _WideProducts(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _PRODUCTS:
            # under inference_mode a layer comes whole; it is made of products all the same
            with self:
                found = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if found is NotImplemented else found
        if args[0].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        wide_args, wide_kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
        return tree_map_only(Tensor, Tensor.bfloat16, func(*wide_args, **wide_kwargs))
