"""Augmentation of whole batches on the device they live on: from stored pictures to what a network takes.

One ``grid_sample`` does crop, resize and flip of a whole batch. On one CPU core at 64 pixels and batch 64 that takes
3 ms; two batched matrix products, which could average over pixels where a crop is larger than the output, take 14 ms,
and a loop of crops 11 ms. Crops are at most ``learnt_size / pixels`` times the output: as long as that is near 1, there
is next to nothing to average.

Every random number of a picture is a hash of seed, epoch and picture (``draws``). Options have timm's names and
meanings, but

- crops are of the stored picture, whose side is ``train_size`` or, where none is said, ``pixels / crop_pct`` (rounded,
  where timm floors), and not of the photograph: with the latter they are enlarged, and so smoother than what is judged
  on (``python -m masterkey.benchmarks.scripts.sharpness`` tells how much);
- crops, erased boxes and those of cutmix are not rounded to whole, or even, pixels;
- colours change in the order brightness, contrast, saturation, where torchvision draws the order too;
- boxes are erased before pictures are mixed, as timm does without its prefetching loader.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from .config import INTERPOLATIONS, TrainConfig
from .draws import Purpose, normal, uniform

_ATTEMPTS = 10
_BOX_DRAWS = 2 * _ATTEMPTS + 2
# of torchvision's and PIL's conversion to grey
_LUMA = (0.299, 0.587, 0.114)
# timm's RandomErasing
_ERASED_AREA, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)


def augment(images: Tensor, pictures: Tensor, config: TrainConfig, pixels: int, *, seed: int, epoch: int) -> Tensor:
    """Return a batch as the network sees it in training; mixing comes after, by :func:`draw_mixing`.

    Args:
        images: uint8 (B, s, s, 3), on the device to work on.
        pictures: int64 (B,) on the CPU, the index of each picture in its data set.
        config: ``scale``, ``ratio``, ``train_interpolation``, ``hflip``, ``color_jitter`` and ``reprob``.
        pixels: side of the result.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        float32 (B, 3, pixels, pixels), normalised by ImageNet's mean and deviation.
    """
    boxes = draw_crops(pictures, config, seed=seed, epoch=epoch)
    flipped = uniform(seed, epoch, pictures, Purpose.FLIP)[:, 0] < config.hflip
    floats = resample(images.permute(0, 3, 1, 2).float(), boxes, flipped, pixels, config.train_interpolation)
    if config.color_jitter > 0:
        strength = config.color_jitter
        draws = uniform(seed, epoch, pictures, Purpose.BRIGHTNESS, 3)
        floats = jitter_colors(floats, max(0.0, 1 - strength) * (1 - draws) + (1 + strength) * draws)
    floats = _normalize(floats)
    if config.reprob > 0:
        floats = _erase(floats, pictures, config.reprob, seed, epoch)
    return floats


def center_crop(images: Tensor, pixels: int) -> Tensor:
    """Return a batch for evaluation: uint8 (B, s, s, 3) becomes normalised float32 (B, 3, pixels, pixels)."""
    start = round((images.shape[1] - pixels) / 2)
    cropped = images[:, start : start + pixels, start : start + pixels]
    return _normalize(cropped.permute(0, 3, 1, 2).float().contiguous())


def draw_crops(pictures: Tensor, config: TrainConfig, *, seed: int, epoch: int) -> Tensor:
    """Return float64 (B, 4): top, left, height and width of each picture's crop, as shares of its side.

    As in torchvision's ``RandomResizedCrop``: area uniform within ``scale``, logarithm of width by height uniform
    within ``ratio``, up to ten attempts until the box fits, else the whole picture.
    """
    draws = uniform(seed, epoch, pictures, Purpose.CROP, _BOX_DRAWS)
    boxes, fits = _boxes(draws, config.scale, config.ratio)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    return torch.where(fits[:, None], boxes, whole)


def resample(
    images: Tensor, boxes: Tensor, flipped: Tensor, pixels: int, interpolation: str = INTERPOLATIONS[0]
) -> Tensor:
    """Cut boxes out of float (B, C, s, s) in [0, 255], flip some, and bring all to (B, C, pixels, pixels).

    ``interpolation`` is ``bilinear`` or ``bicubic``; what the latter makes of an edge is kept within [0, 255].
    """
    centers = (torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels
    top, left, height, width = (column[:, None] for column in boxes.unbind(1))
    x = left + torch.where(flipped[:, None], 1 - centers, centers) * width
    y = top + centers * height
    lines = torch.stack((x, y)).mul(2).sub(1).to(device=images.device, dtype=torch.float32, non_blocking=True)
    shape = (len(images), pixels, pixels)
    grid = torch.stack((lines[0][:, None, :].expand(shape), lines[1][:, :, None].expand(shape)), -1)
    sampled = F.grid_sample(images, grid, mode=interpolation, padding_mode="border", align_corners=False)
    return sampled.clamp(0, 255) if interpolation == "bicubic" else sampled


def jitter_colors(images: Tensor, factors: Tensor) -> Tensor:
    """Scale brightness, contrast and saturation of (B, 3, h, w) in [0, 255] by the columns of factors (B, 3).

    As torchvision's ``adjust_*``: a mixture with black, with the picture's mean grey, with its grey version.
    """
    factors = factors.to(device=images.device, dtype=images.dtype, non_blocking=True)
    brightness, contrast, saturation = (column[:, None, None, None] for column in factors.unbind(1))
    images = (images * brightness).clamp(0, 255)
    mean = _grey(images).mean((2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 255)
    grey = _grey(images)
    return (grey + (images - grey) * saturation).clamp(0, 255)


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return float32 (B, classes): rows sum to 1, ``smoothing`` of it spread evenly over all classes."""
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + off)


@dataclass(frozen=True)
class Mixing:
    """How a batch is mixed with itself in reverse: ``kept`` is the share of a picture's own label that stays.

    ``box`` is (top, bottom, left, right) in pixels of what the other picture covers (cutmix), or None (mixup).
    """

    kept: float
    box: tuple[int, int, int, int] | None

    def images(self, images: Tensor) -> Tensor:
        """Mix (B, 3, h, w); picture i with picture B - 1 - i."""
        other = images.flip(0)
        if self.box is None:
            return images * self.kept + other * (1 - self.kept)
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        return mixed

    def targets(self, targets: Tensor) -> Tensor:
        """Mix (B, classes) likewise."""
        return targets * self.kept + targets.flip(0) * (1 - self.kept)


def draw_mixing(config: TrainConfig, pixels: int, *, seed: int, epoch: int, batch: int) -> Mixing | None:
    """Draw how one batch is mixed, as timm's ``Mixup`` in its mode "batch"; None where mixup and cutmix are off.

    With both on, each batch takes one of them at even odds. The share comes from Beta(alpha, alpha); a cutmix box that
    is clipped at the border has its share corrected.
    """
    if config.mixup <= 0 and config.cutmix <= 0:
        return None
    generator = np.random.default_rng((seed, epoch, batch))
    cuts = config.cutmix > 0 and (config.mixup <= 0 or generator.random() < 0.5)
    alpha = config.cutmix if cuts else config.mixup
    kept = float(generator.beta(alpha, alpha))
    if not cuts:
        return Mixing(kept, None)
    side = int(pixels * (1 - kept) ** 0.5)
    row, column = (int(center) for center in generator.integers(pixels, size=2))
    top, left = max(row - side // 2, 0), max(column - side // 2, 0)
    bottom, right = min(row + (side + 1) // 2, pixels), min(column + (side + 1) // 2, pixels)
    return Mixing(1 - (bottom - top) * (right - left) / pixels**2, (top, bottom, left, right))


def _boxes(draws: Tensor, area: tuple[float, float], ratio: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return boxes (B, 4) as in :func:`draw_crops` from draws (B, 22), and whether any attempt fitted, (B,)."""
    areas = area[0] + (area[1] - area[0]) * draws[:, :_ATTEMPTS]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = torch.exp(low + (high - low) * draws[:, _ATTEMPTS : 2 * _ATTEMPTS])
    heights, widths = torch.sqrt(areas / ratios), torch.sqrt(areas * ratios)
    fits = (heights <= 1) & (widths <= 1)
    first = fits.int().argmax(1, keepdim=True)  # the first of equals
    sizes = torch.cat((heights.gather(1, first), widths.gather(1, first)), 1)
    return torch.cat((draws[:, -2:] * (1 - sizes), sizes), 1), fits.any(1)


def _erase(images: Tensor, pictures: Tensor, probability: float, seed: int, epoch: int) -> Tensor:
    """Put noise into a box of some pictures, as timm's ``RandomErasing`` in its mode "pixel"."""
    boxes, fits = _boxes(uniform(seed, epoch, pictures, Purpose.ERASED_BOX, _BOX_DRAWS), _ERASED_AREA, _ERASED_RATIO)
    erased = ((uniform(seed, epoch, pictures, Purpose.ERASE)[:, 0] < probability) & fits).nonzero()[:, 0]
    noise = normal(seed, epoch, pictures[erased].to(images.device), Purpose.NOISE, images[0].numel())
    centers = (torch.arange(images.shape[-1], dtype=torch.float64) + 0.5) / images.shape[-1]
    top, left, height, width = (column[:, None] for column in boxes[erased].unbind(1))
    rows = (centers >= top) & (centers < top + height)
    columns = (centers >= left) & (centers < left + width)
    inside = (rows[:, None, :, None] & columns[:, None, None, :]).to(images.device)
    erased = erased.to(images.device)
    before = images[erased]
    return images.index_copy(0, erased, torch.where(inside, noise.to(images.dtype).view_as(before), before))


def _normalize(images: Tensor) -> Tensor:
    mean = torch.tensor(IMAGENET_DEFAULT_MEAN).to(images.device, non_blocking=True)[:, None, None]
    std = torch.tensor(IMAGENET_DEFAULT_STD).to(images.device, non_blocking=True)[:, None, None]
    return (images - 255 * mean) / (255 * std)


def _grey(images: Tensor) -> Tensor:
    return sum(weight * images[:, i : i + 1] for i, weight in enumerate(_LUMA))  # type: ignore[return-value]
