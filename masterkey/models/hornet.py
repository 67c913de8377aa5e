"""HorNet (Rao et al., 2207.14284) in timm's registry; importing this module puts it there.

Four sizes, each with 7x7 depthwise convolutions throughout (``hornet_tiny_7x7``) or with global-local filters
in the last two stages (``hornet_tiny_gf``). Written from the paper in timm's conventions. timm holds no weights
for it, and none are linked here.

Key map: parameters have the names of the authors' released checkpoints, one to one, so those load as they are,
by ``load_state_dict``, by timm's ``checkpoint_path=`` or by ``pretrained_cfg_overlay={"file": …}``::

    downsample_layers.0.{0,1}      stem: 4x4 convolution, norm
    downsample_layers.i.{0,1}      between stages i-1 and i: norm, 2x2 convolution
    stages.i.j.norm1, .gamma1      block j of stage i, first half: norm, layer scale, and
    stages.i.j.gnconv              proj_in, dwconv, pws.k, proj_out; in global-local filters
    stages.i.j.gnconv.dwconv       dw, complex_weight, pre_norm, post_norm
    stages.i.j.norm2, .gamma2      second half: norm, layer scale, and pwconv1, pwconv2
    norm, head                     after the pooling: norm, classifier

The released files wrap them in ``{"model": …}``, which ``checkpoint_filter_fn`` and timm's file reader unwrap. Global
filters of another picture size load by ``pretrained_cfg_overlay`` alone, since ``checkpoint_filter_fn`` resamples them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import LayerNorm2d, SelectAdaptivePool2d
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from .global_filter import Size, resize_filter
from .gnconv import Block, RecursiveGatedConv

__all__ = ["HorNet"]  # register_model adds the entry points


class HorNet(nn.Module):
    """HorNet, a pyramid of four stages (2207.14284, section 3, on model architectures).

    Args:
        in_chans: channels of a picture.
        num_classes: classes; 0 leaves the classifier out.
        global_pool: timm's name of the pooling, or "" for none; the norm comes after it.
        img_size: side or (height, width) of the pictures that global filters are built for; other sizes work,
            too. Without global filters it means nothing.
        depths: blocks in each stage.
        dims: channels of each stage, each a multiple of 2^(order - 1), and of 2^order with a global filter.
        orders: the order of gnConv in each stage.
        global_filters: which stages have global-local filters.
        scale: what the depthwise output is multiplied by, the paper's 1 / alpha.
        ls_init_value: initial layer scale; None for none.
        drop_rate: dropout before the classifier.
        drop_path_rate: drop probability of the last block; it grows linearly from 0 in the first.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Size = 224,
        depths: Sequence[int] = (2, 3, 18, 2),
        dims: Sequence[int] = (64, 128, 256, 512),
        orders: Sequence[int] = (2, 3, 4, 5),
        global_filters: Sequence[bool] = (False, False, False, False),
        scale: float = 1 / 3,
        ls_init_value: float | None = 1e-6,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = dims[-1]
        self.grad_checkpointing = False
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, dim in enumerate(dims)
        ]

        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        block, last_block = 0, max(sum(depths) - 1, 1)
        for i, (depth, dim, order, is_global) in enumerate(zip(depths, dims, orders, global_filters, strict=True)):
            if i == 0:
                downsample = [nn.Conv2d(in_chans, dim, 4, stride=4), LayerNorm2d(dim, eps=1e-6)]
            else:
                downsample = [LayerNorm2d(dims[i - 1], eps=1e-6), nn.Conv2d(dims[i - 1], dim, 2, stride=2)]
            self.downsample_layers.append(nn.Sequential(*downsample))
            reduction = 4 * 2**i
            filter_size = (height // reduction, width // reduction) if is_global else None
            blocks = []
            for _ in range(depth):
                gnconv = RecursiveGatedConv(dim, order, scale, filter_size)
                blocks.append(Block(dim, gnconv, ls_init_value, drop_path_rate * block / last_block))
                block += 1
            self.stages.append(nn.Sequential(*blocks))

        self._set_pool(global_pool)
        self.norm = LayerNorm2d(self.num_features, eps=1e-6)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self._new_head()
        self.apply(_init_weights)

    def _set_pool(self, global_pool: str) -> None:
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        if self.global_pool.feat_mult() != 1:
            raise ValueError(f"global_pool={global_pool!r} doubles the channels, and the norm after it keeps them")
        self.flatten = nn.Flatten(1) if global_pool else nn.Identity()

    def _new_head(self) -> nn.Module:
        if self.num_classes <= 0:
            return nn.Identity()
        stem = self.downsample_layers[0][0].weight  # type: ignore[index]
        about = {"device": stem.device, "dtype": stem.dtype}
        if self.global_pool.is_identity():
            return nn.Conv2d(self.num_features, self.num_classes, 1, **about)
        return nn.Linear(self.num_features, self.num_classes, **about)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of timm's layer groups: the stem, then stages (``coarse``) or blocks; norm and head are last.

        The downsampling before a stage belongs to it, or to its first block.
        """
        return {
            "stem": r"^downsample_layers\.0",
            "blocks": r"^(?:downsample_layers|stages)\.(\d+)"
            if coarse
            else [(r"^downsample_layers\.(\d+)", (0,)), (r"^stages\.(\d+)\.(\d+)", None)],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """Return the classifier; ``nn.Identity`` where there is none."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in, and another pooling if given."""
        self.num_classes = num_classes
        if global_pool is not None:
            self._set_pool(global_pool)
        self.head = self._new_head()
        _init_weights(self.head)
        self.train(self.training)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps of the stages asked for.

        Args:
            x: (n, in_chans, h, w).
            indices: the last n stages if a number, all if None, else these.
            norm: without effect, as in timm's ConvNeXt: the only norm of whole maps comes after the pooling.
            stop_early: leave the stages after the last one asked for out.
            output_fmt: "NCHW", the only one.
            intermediates_only: leave the final map out of what is returned.

        Returns:
            (n, dims[i], h / 2^(i + 2), w / 2^(i + 2)) for each stage i; before it the last map.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', not {output_fmt!r}")
        wanted, last = feature_take_indices(len(self.stages), indices)
        intermediates = []
        for i in range(last + 1 if stop_early else len(self.stages)):
            x = self.downsample_layers[i](x)
            x = checkpoint_seq(self.stages[i], x) if self.grad_checkpointing else self.stages[i](x)
            if i in wanted:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what ``forward_intermediates(indices=…)`` does not need, and return the stages as indices."""
        wanted, last = feature_take_indices(len(self.stages), indices)
        is_cut = last < len(self.stages) - 1
        self.downsample_layers = self.downsample_layers[: last + 1]
        self.stages = self.stages[: last + 1]
        self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_norm or is_cut:
            self.norm = nn.Identity()  # it has the size of the last stage
        if prune_head or is_cut:
            self.reset_classifier(0, "")
        return list(wanted)

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, in_chans, h, w) -> (n, num_features, h / 32, w / 32)."""
        # TorchScript, which timm's networks know, compiles neither zip's strict nor checkpoints
        for downsample, stage in zip(self.downsample_layers, self.stages):  # noqa: B905
            x = downsample(x)
            if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
                x = checkpoint_seq(stage, x)
            else:
                x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(n, num_features, h, w) -> (n, num_classes), or (n, num_features) with ``pre_logits``.

        Without pooling h and w stay.
        """
        x = self.head_drop(self.flatten(self.norm(self.global_pool(x))))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_chans, h, w) -> (n, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Turn an authors' checkpoint into a state dict of ``model``; the names are the same already.

    ``{"model": …}`` is unwrapped, and global filters made for another picture size are resampled.
    """
    state_dict = state_dict.get("model", state_dict)
    own = model.state_dict()
    return {
        name: resize_filter(weight, tuple(own[name].shape[1:3]))
        if name.endswith(".complex_weight") and name in own
        else weight
        for name, weight in state_dict.items()
    }


def _create(variant: str, dim: int, pretrained: bool, **kwargs: Any) -> HorNet:
    is_global = variant.endswith("_gf")
    defaults = {"dims": (dim, 2 * dim, 4 * dim, 8 * dim), "global_filters": (False, False, is_global, is_global)}
    model: HorNet = build_model_with_cfg(
        HorNet,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        # two lists side by side are no sequence that timm could cut, so the network hands its maps out itself
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **(defaults | kwargs),
    )
    return model


_CFG = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "first_conv": "downsample_layers.0.0",
    "classifier": "head",
    "paper_ids": "arXiv:2207.14284",
    "paper_name": "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions",
    "origin_url": "https://github.com/raoyongming/HorNet",
}

default_cfgs = generate_default_cfgs(
    {f"hornet_{size}_{kind}.untrained": _CFG for size in ("tiny", "small", "base", "large") for kind in ("7x7", "gf")}
)


@register_model
def hornet_tiny_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T, 7x7 depthwise convolutions: 22.4 M weights."""
    return _create("hornet_tiny_7x7", 64, pretrained, **kwargs)


@register_model
def hornet_tiny_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T, global-local filters in the last two stages: 23.0 M weights."""
    return _create("hornet_tiny_gf", 64, pretrained, **kwargs)


@register_model
def hornet_small_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-S, 7x7 depthwise convolutions: 49.5 M weights."""
    return _create("hornet_small_7x7", 96, pretrained, **kwargs)


@register_model
def hornet_small_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-S, global-local filters in the last two stages."""
    return _create("hornet_small_gf", 96, pretrained, **kwargs)


@register_model
def hornet_base_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-B, 7x7 depthwise convolutions: 87.3 M weights."""
    return _create("hornet_base_7x7", 128, pretrained, **kwargs)


@register_model
def hornet_base_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-B, global-local filters in the last two stages."""
    return _create("hornet_base_gf", 128, pretrained, **kwargs)


@register_model
def hornet_large_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-L, 7x7 depthwise convolutions: 194.5 M weights."""
    return _create("hornet_large_7x7", 192, pretrained, **kwargs)


@register_model
def hornet_large_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-L, global-local filters in the last two stages."""
    return _create("hornet_large_gf", 192, pretrained, **kwargs)
