"""What filters respond with: moments and sparsity of each one's output, before norm and activation.

The seed (arXiv:2401.14469) expects responses of mean zero from derivatives. A filter's output is that of the filter
alone: of a dense layer one input channel's part, of a depthwise layer the channel.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NEAR_ZERO = 0.1  # of an output's root mean square


@dataclass(frozen=True)
class Activations:
    """Statistics over pictures and places of the outputs of n filters, (n,) float64 each.

    ``mean`` and ``deviation`` as they are; ``offset`` is |mean| / root mean square, from 0 (mean zero) to 1 (constant);
    ``skewness`` and ``kurtosis`` of the normal distribution are 0; ``sparsity`` is the share of outputs smaller than a
    tenth of the root mean square (normal: 0.08). What a constant output leaves undefined is NaN.
    """

    mean: Tensor
    deviation: Tensor
    offset: Tensor
    skewness: Tensor
    kurtosis: Tensor
    sparsity: Tensor

    def take(self, chosen: Tensor) -> dict[str, Tensor]:
        """The statistics of some filters, by name; ``chosen`` is a mask (n,) or indices."""
        return {name: value[chosen] for name, value in vars(self).items()}


def statistics(outputs: Tensor) -> Activations:
    """Measure outputs (B, n, h, w) of n filters."""
    flat = outputs.transpose(0, 1).flatten(1).double()
    mean = flat.mean(1)
    centred = flat - mean[:, None]
    deviation = centred.square().mean(1).sqrt()
    size = flat.square().mean(1).sqrt()
    standard = centred / torch.where(deviation > 0, deviation, torch.nan)[:, None]
    return Activations(
        mean=mean,
        deviation=deviation,
        offset=mean.abs() / torch.where(size > 0, size, torch.nan),
        skewness=standard.pow(3).mean(1),
        kurtosis=standard.pow(4).mean(1) - 3,
        sparsity=torch.where(size > 0, (flat.abs() < NEAR_ZERO * size[:, None]).double().mean(1), torch.nan),
    )


def slice_outputs(layer: nn.Conv2d, inputs: Tensor, filters: Tensor, chosen: Tensor) -> Tensor:
    """What some of a layer's filters give by themselves: (B, n, h, w), without bias.

    Args:
        layer: a convolution, depthwise or dense; stride, padding and dilation are its own.
        inputs: (B, channels, h, w).
        filters: (outputs times inputs per group, kh, kw), put in the place of the layer's own.
        chosen: (n,) indices of filters; number out * inputs_per_group + in.
    """
    per_group = layer.in_channels // layer.groups
    out, inside = chosen // per_group, chosen % per_group
    channel = out // (layer.out_channels // layer.groups) * per_group + inside
    alone = copy(layer)  # whose own forward pass knows how it pads
    alone.groups = len(chosen)
    # in a dictionary of its own, for a copy shares the layer's; without hooks, for one of them may be what asks
    alone._parameters = {"weight": nn.Parameter(filters[chosen].unsqueeze(1), requires_grad=False), "bias": None}
    return alone.forward(inputs[:, channel])


@torch.inference_mode()
def watch(
    model: nn.Module,
    pictures: Tensor,
    layers: Mapping[str, nn.Conv2d],
    look: Callable[[str, nn.Conv2d, Tensor], None],
) -> None:
    """Run pictures (B, 3, h, w) once and call ``look(name, layer, inputs)`` at each of some layers of the network.

    The network runs in evaluation mode and is left as it was.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        with _hooked(layers, look):
            model.eval()
            model(pictures)
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _hooked(layers: Mapping[str, nn.Conv2d], look: Callable[[str, nn.Conv2d, Tensor], None]) -> Iterator[None]:
    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: look(name, layers[name], inputs[0])

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
