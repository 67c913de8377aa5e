"""Small HorNets, and the names and shapes of the authors' checkpoints."""

from collections.abc import Sequence
from itertools import pairwise

import timm
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F

from masterkey.models.hornet import HorNet

DEPTHS, DIMS = (1, 1, 2, 1), (8, 16, 32, 64)
VARIANTS = ("hornet_tiny_7x7", "hornet_tiny_gf")


def narrow(name: str = "hornet_tiny_7x7", seed: int = 0, **kwargs: object) -> HorNet:
    torch.manual_seed(seed)
    kwargs = {"depths": DEPTHS, "dims": DIMS, "num_classes": 5, **kwargs}
    if name.endswith("_gf"):
        kwargs.setdefault("img_size", 64)
    return timm.create_model(name, **kwargs)


def narrow_convnext(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("convnext_atto", depths=DEPTHS, dims=DIMS, num_classes=5)


def pictures(n: int = 2, side: int = 64, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def train_steps(model: nn.Module, steps: int = 3) -> None:
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.5)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(pictures(4)), torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()


def authors_shapes(depths: Sequence[int], dims: Sequence[int], classes: int, side: int | None) -> dict[str, list[int]]:
    """Name -> shape in the authors' checkpoints; ``side`` of the pictures for a ``_gf`` model."""
    shapes: dict[str, list[int]] = {}

    def layer(name: str, out: int, *rest: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [out, *rest], [out]

    layer("downsample_layers.0.0", dims[0], 3, 4, 4)
    layer("downsample_layers.0.1", dims[0])
    for i, (before, dim) in enumerate(pairwise(dims), start=1):
        layer(f"downsample_layers.{i}.0", before)
        layer(f"downsample_layers.{i}.1", dim, before, 2, 2)
    for i, j in ((i, j) for i, depth in enumerate(depths) for j in range(depth)):
        block, dim = f"stages.{i}.{j}", dims[i]
        gnconv = f"{block}.gnconv"
        widths = [dim // 2**k for k in reversed(range(i + 2))]
        total = sum(widths)
        shapes[f"{block}.gamma1"] = shapes[f"{block}.gamma2"] = [dim]
        layer(f"{block}.norm1", dim)
        layer(f"{block}.norm2", dim)
        layer(f"{block}.pwconv1", 4 * dim, dim)
        layer(f"{block}.pwconv2", dim, 4 * dim)
        layer(f"{gnconv}.proj_in", 2 * dim, dim, 1, 1)
        layer(f"{gnconv}.proj_out", dim, dim, 1, 1)
        for k, (narrower, wider) in enumerate(pairwise(widths)):
            layer(f"{gnconv}.pws.{k}", wider, narrower, 1, 1)
        if side is None or i < 2:
            layer(f"{gnconv}.dwconv", total, 1, 7, 7)
        else:
            height = side // (4 * 2**i)
            shapes[f"{gnconv}.dwconv.dw.weight"] = [total // 2, 1, 3, 3]
            shapes[f"{gnconv}.dwconv.complex_weight"] = [total // 2, height, height // 2 + 1, 2]
            layer(f"{gnconv}.dwconv.pre_norm", total)
            layer(f"{gnconv}.dwconv.post_norm", total)
    layer("norm", dims[-1])
    layer("head", classes, dims[-1])
    return shapes


def authors_checkpoint(classes: int = 5, side: int | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = authors_shapes(DEPTHS, DIMS, classes, side)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
