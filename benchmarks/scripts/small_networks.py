"""Networks for pictures of 32 pixels, whose filters are watched while they form: ResNet-9 and MobileNetV2."""

from collections import OrderedDict

import timm
import torch
from torch import Tensor, nn

from ..config import BenchmarkError

NETWORKS = ("resnet9", "mobilenetv2")
# which filters of each network are looked at, as kinds of a bank
KINDS = {"resnet9": "dense", "mobilenetv2": "depthwise"}


class ResNet9(nn.Module):
    """Eight dense 3x3 convolutions and a linear layer, two residual blocks (after DAWNBench's network for CIFAR-10).

    Each convolution is followed by a batch norm and a ReLU. ``width`` is the first layer's output channels; the others
    have 2, 4 and 8 times as many. Takes (B, 3, s, s), s at least 8, and gives (B, classes).
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        w1, w2, w4, w8 = width, 2 * width, 4 * width, 8 * width
        self.stem = _conv(3, w1)
        self.layer1 = nn.Sequential(_conv(w1, w2), nn.MaxPool2d(2))
        self.block1 = nn.Sequential(_conv(w2, w2), _conv(w2, w2))
        self.layer2 = nn.Sequential(_conv(w2, w4), nn.MaxPool2d(2))
        self.layer3 = nn.Sequential(_conv(w4, w8), nn.MaxPool2d(2))
        self.block2 = nn.Sequential(_conv(w8, w8), _conv(w8, w8))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(w8, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits."""
        x = self.layer1(self.stem(pictures))
        x = x + self.block1(x)
        x = self.layer3(self.layer2(x))
        x = x + self.block2(x)
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def build_small(name: str, classes: int, seed: int) -> nn.Module:
    """Build a network of ``NETWORKS`` with weights drawn from a seed.

    ``mobilenetv2`` is timm's ``mobilenetv2_050`` whose stem has stride 1, so that 32 pixels leave 2x2 at the end.

    Raises:
        BenchmarkError: no such network.
    """
    if name not in NETWORKS:
        raise BenchmarkError(f"no small network {name!r:.60}; there are {', '.join(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "resnet9":
            return ResNet9(classes)
        model: nn.Module = timm.create_model("mobilenetv2_050", num_classes=classes)
        stem = model.conv_stem
        assert isinstance(stem, nn.Conv2d)
        stem.stride = (1, 1)
        return model


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")  # as timm's ResNets
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(outputs), act=nn.ReLU(inplace=True)))
