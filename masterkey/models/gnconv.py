"""Recursive gated convolution, gnConv, and HorNet's block around it (2207.14284, section 3)."""

import torch
from timm.layers import DropPath, LayerNorm, LayerNorm2d
from torch import Tensor, nn

from .global_filter import GlobalLocalFilter, Size


class RecursiveGatedConv(nn.Module):
    """gnConv: spatial interactions of order n, each a gate on the last (2207.14284, section 3, on gnConv).

    One projection gives p_0 and q_0 … q_(n-1); one depthwise convolution filters all q together; then
    p_(k+1) = g_k(p_k) * f(q_k) / 3, where g_0 is the identity and the other g_k are 1x1 convolutions that double
    the channels, from dim / 2^(n-1) to dim.

    Args:
        dim: channels, a multiple of 2^(order - 1).
        order: n.
        scale: what f's output is multiplied by, the paper's 1 / alpha.
        filter_size: height and width of the maps a global-local filter is built for; None for 7x7 convolution.
    """

    def __init__(self, dim: int, order: int, scale: float, filter_size: Size | None) -> None:
        super().__init__()
        if order < 1 or dim % 2 ** (order - 1):
            raise ValueError(f"gnConv of order {order} halves its channels {order - 1} times; {dim} do not allow it")
        self.scale = scale
        self.widths = [dim // 2 ** (order - 1 - k) for k in range(order)]
        total = sum(self.widths)
        self.proj_in = nn.Conv2d(dim, self.widths[0] + total, 1)  # 2 * dim, whatever the order
        dwconv: nn.Module
        if filter_size is None:
            dwconv = nn.Conv2d(total, total, 7, padding=3, groups=total)
            # read by masterkey.depthwise: what is seen of these filters is a third of them. A global-local filter
            # has a norm between its convolution and the scale, so there no constant factor is seen.
            dwconv.output_factor = scale  # type: ignore[assignment]
        else:
            dwconv = GlobalLocalFilter(total, filter_size)
        self.dwconv = dwconv
        self.proj_out = nn.Conv2d(dim, dim, 1)
        self.pws = nn.ModuleList(nn.Conv2d(width, 2 * width, 1) for width in self.widths[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(n, dim, h, w) -> (n, dim, h, w)."""
        x, filtered = self.proj_in(x).split([self.widths[0], sum(self.widths)], dim=1)
        gates = (self.dwconv(filtered) * self.scale).split(self.widths, dim=1)
        x = x * gates[0]
        for i, pointwise in enumerate(self.pws, 1):  # FX and TorchScript trace no unpacking of what split returns
            x = pointwise(x) * gates[i]
        x = self.proj_out(x)
        return x


class Block(nn.Module):
    """HorNet's block (2207.14284, section 3, on model architectures): gnConv where transformers attend, then an MLP.

    Args:
        dim: channels.
        gnconv: the block's gnConv.
        ls_init_value: initial layer scale; None for none.
        drop_path: probability of dropping either half.
    """

    def __init__(self, dim: int, gnconv: RecursiveGatedConv, ls_init_value: float | None, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(dim, eps=1e-6)
        self.gnconv = gnconv
        self.norm2 = LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma1 = None if ls_init_value is None else nn.Parameter(torch.full((dim,), ls_init_value))
        self.gamma2 = None if ls_init_value is None else nn.Parameter(torch.full((dim,), ls_init_value))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, dim, h, w) -> (n, dim, h, w)."""
        mixed = self.gnconv(self.norm1(x))
        if self.gamma1 is not None:
            mixed = mixed * self.gamma1.view(-1, 1, 1)
        x = x + self.drop_path(mixed)
        mixed = self.pwconv2(self.act(self.pwconv1(self.norm2(x.permute(0, 2, 3, 1)))))
        if self.gamma2 is not None:
            mixed = mixed * self.gamma2
        x = x + self.drop_path(mixed.permute(0, 3, 1, 2))
        return x
