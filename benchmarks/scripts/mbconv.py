"""The three real ImageNet networks at hand, built from nothing but their state dicts, and pictures to judge them on.

Widths, expansions and kernels are read off the weights' shapes. What a state dict does not say is stated here: where
the stages begin, the batch norms' epsilon, and that pictures are scaled to [-1, 1] (as in mit-han-lab/mcunet's
``eval_torch.py``). That all of it is right shows in two ways: the networks classify, and what arrives at each batch
norm has the mean that its running statistics expect (both in
``python -m masterkey.benchmarks.scripts.family_ablation``).
"""

import copy
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..config import BenchmarkError, DataConfig
from ..data import load_data

_EPSILON = 1e-3
_BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class Published:
    """A published checkpoint: its file's name without suffix, and the first block of each of its seven stages.

    ``pixels`` is the side that Tiny-ImageNet's 64 pixels are enlarged to. It is smaller than the side that the network
    was trained at, because what is enlarged 2.75 times is blurred more than any picture that it has seen.
    """

    name: str
    stages: tuple[int, ...]
    pixels: int


# ProxylessNAS numbers four blocks a stage, of which the search has left some out; MCUNet numbers those that are there
MCUNET = Published("mcunet-320kb-1mb_imagenet", (0, 1, 5, 8, 11, 14, 17), 128)
PUBLISHED = (
    MCUNET,
    Published("proxyless-w0.25-r112_imagenet", (0, 1, 5, 9, 13, 17, 21), 96),
    Published("proxyless-w0.3-r176_imagenet", (0, 1, 5, 9, 13, 17, 21), 128),
)
_HALVED = (1, 2, 3, 5)  # the stages whose first block has stride 2, as in MobileNetV2


@dataclass(frozen=True)
class Pictures:
    """``images`` uint8 (n, s, s, 3); ``labels`` (n,) among ImageNet's 1,000; ``among`` (200,) the classes there are."""

    images: Tensor
    labels: Tensor
    among: Tensor


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise, 1x1 to fewer, each with a batch norm; ReLU6 after the first two.

    ``residual``: added to its input. Without ``hidden`` the first step is left out.
    """

    def __init__(self, inputs: int, hidden: int | None, outputs: int, kernel: int, stride: int, residual: bool) -> None:
        super().__init__()
        wide = hidden or inputs
        steps: OrderedDict[str, nn.Module] = OrderedDict()
        if hidden:
            steps["inverted_bottleneck"] = _conv(inputs, hidden, 1)
        steps["depth_conv"] = _conv(wide, wide, kernel, stride, groups=wide)
        steps["point_linear"] = _conv(wide, outputs, 1, act=False)
        self.mobile_inverted_conv = nn.Sequential(steps)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, s, s) to (B, outputs, s / stride, s / stride)."""
        y: Tensor = self.mobile_inverted_conv(x)
        return x + y if self.residual else y


class MBConvNet(nn.Module):
    """A network of ``InvertedResidual`` blocks with the names of MCUNet's and ProxylessNAS's checkpoints.

    Every block but the first of a stage is added to its input. Takes pictures (B, 3, s, s) in [-1, 1], gives logits
    (B, classes).
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], stages: tuple[int, ...]) -> None:
        super().__init__()
        width = shapes["first_conv.conv.weight"][0]
        self.first_conv = _conv(3, width, 3, 2)
        strided = [stages[stage] for stage in _HALVED]
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for number in sorted({int(found[1]) for name in shapes if (found := _BLOCK.match(name))}):
            inside = f"blocks.{number}.mobile_inverted_conv"
            first = shapes.get(f"{inside}.inverted_bottleneck.conv.weight")
            kernel = shapes[f"{inside}.depth_conv.conv.weight"][2]
            outputs = shapes[f"{inside}.point_linear.conv.weight"][0]
            stride = 2 if number in strided else 1
            hidden = first[0] if first else None
            blocks[str(number)] = InvertedResidual(width, hidden, outputs, kernel, stride, number not in stages)
            width = outputs
        self.blocks = nn.Sequential(blocks)
        mixed = shapes.get("feature_mix_layer.conv.weight")
        self.feature_mix_layer = _conv(width, mixed[0], 1) if mixed else nn.Identity()
        classes, features = shapes["classifier.linear.weight"]
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(features, classes)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits."""
        x = self.feature_mix_layer(self.blocks(self.first_conv(pictures)))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def build_mbconv(state: Mapping[str, Tensor], stages: tuple[int, ...]) -> MBConvNet:
    """Build the network that a state dict is of, with its weights, in evaluation mode; every name must match.

    Raises:
        BenchmarkError: the state dict is of another kind of network.
    """
    try:
        model = MBConvNet({name: tuple(value.shape) for name, value in state.items()}, stages)
        model.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise BenchmarkError(f"not the state dict of an MBConv network as MCUNet's: {error!s:.300}") from error
    return model.eval()


def load_published(published: Published, folder: Path) -> MBConvNet:
    """Build a published network from its file in ``folder``."""
    path = folder / f"{published.name}.pth"
    return build_mbconv(torch.load(path, map_location="cpu", weights_only=True)["state_dict"], published.stages)


def fused(model: MBConvNet) -> MBConvNet:
    """A copy with every batch norm multiplied into its convolution, channels last: the same function, faster."""
    copied = copy.deepcopy(model)
    for step in copied.modules():
        if isinstance(step, nn.Sequential) and hasattr(step, "bn"):
            convolution, norm = step.conv, step.bn
            assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            step.conv, step.bn = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return copied.to(memory_format=torch.channels_last)


def validation_pictures(per_class: int | None = None) -> Pictures:
    """Tiny-ImageNet's validation pictures, 64x64, at most ``per_class`` of each of its 200 classes.

    Raises:
        BenchmarkError: the set is not there, or a class of it is none of ImageNet's.
    """
    data = load_data(DataConfig("tiny_imagenet", pixels=64, evaluate="test", per_class=per_class))
    numbers = {name: number for number, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    unknown = [name for name in data.classes if name.split()[0] not in numbers]
    if unknown:
        raise BenchmarkError(f"classes that are none of ImageNet's 1,000: {', '.join(unknown[:5])}")
    among = torch.tensor([numbers[name.split()[0]] for name in data.classes])
    labels = among[torch.from_numpy(np.array(data.evaluate.labels))]
    return Pictures(torch.from_numpy(np.array(data.evaluate.images)), labels, among)


def enlarged(images: Tensor, pixels: int) -> Tensor:
    """uint8 (B, s, s, 3) to float32 (B, 3, pixels, pixels) in [-1, 1], bicubic, channels last."""
    floats = images.permute(0, 3, 1, 2).float()
    larger = F.interpolate(floats, (pixels, pixels), mode="bicubic", align_corners=False).clamp_(0, 255)
    return (larger / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    steps: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        bn=nn.BatchNorm2d(outputs, eps=_EPSILON),
    )
    if act:
        steps["act"] = nn.ReLU6(inplace=True)
    return nn.Sequential(steps)
