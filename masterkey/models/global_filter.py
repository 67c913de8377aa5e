"""The global-local filter of HorNet's ``_gf`` models: half the channels 3x3, half a product in Fourier space."""

import torch
from timm.layers import LayerNorm2d
from timm.models import register_notrace_module
from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int]


def spectrum_size(size: Size) -> Size:
    """(h, w) -> the size of its real 2-D Fourier transform; 14x14 gives 14x8."""
    return size[0], size[1] // 2 + 1


def resize_filter(weight: Tensor, size: Size) -> Tensor:
    """Bilinear resampling of a filter's real and imaginary parts, corners aligned, as the authors do it.

    Args:
        weight: (channels, h, w, 2); the last axis holds real and imaginary part.
        size: new (h, w) of the spectrum.

    Returns:
        (channels, *size, 2); ``weight`` itself where it has that size.
    """
    if weight.shape[1:3] == size:
        return weight
    return F.interpolate(weight.permute(3, 0, 1, 2), size, mode="bilinear", align_corners=True).permute(1, 2, 3, 0)


@register_notrace_module  # whether its weight is resampled is a matter of the map's size
class GlobalLocalFilter(nn.Module):
    """The stand-in for gnConv's 7x7 depthwise convolution (2207.14284, section 3, on large kernels).

    A layer norm; a 3x3 depthwise convolution of the first half of the channels and a global filter, which
    multiplies the 2-D spectrum by a learnt complex weight, of the second; then both halves interleaved, channel
    by channel, and another layer norm.

    Args:
        dim: channels; an even number.
        size: height and width of the maps that the global filter is built for. Maps of another size are
            filtered too: the complex weight is then resampled in every forward pass.
    """

    def __init__(self, dim: int, size: Size) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"a global-local filter halves its channels, and {dim} is odd")
        if min(size) < 1:
            raise ValueError(f"maps of {size[0]}x{size[1]} leave a global filter nothing; img_size is too small")
        half = dim // 2
        self.dw = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        # two real numbers rather than a complex one: optimizers, EMA and casts to fewer bits know no other
        self.complex_weight = nn.Parameter(torch.empty(half, *spectrum_size(size), 2))
        self.pre_norm = LayerNorm2d(dim, eps=1e-6)
        self.post_norm = LayerNorm2d(dim, eps=1e-6)
        nn.init.trunc_normal_(self.complex_weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(n, dim, h, w) -> (n, dim, h, w)."""
        local, spread = self.pre_norm(x).chunk(2, dim=1)
        local = self.dw(local)
        # in float32 whatever the network's dtype: there are no complex numbers of 16 bits to speak of
        spectrum = torch.fft.rfft2(spread.float(), norm="ortho")
        weight = resize_filter(self.complex_weight.float(), (spectrum.shape[2], spectrum.shape[3]))
        spectrum = spectrum * torch.view_as_complex(weight.contiguous())
        spread = torch.fft.irfft2(spectrum, s=(x.shape[2], x.shape[3]), norm="ortho").to(local.dtype)
        x = self.post_norm(torch.stack((local, spread), dim=2).flatten(1, 2))
        return x
