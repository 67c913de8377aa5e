"""How sharp the crops that are learnt from are, against the pictures that are judged on and against timm's crops.

    python -m masterkey.benchmarks.scripts.sharpness pets flowers17

Of each set's first training pictures: the root mean square of the differences between neighbouring pixels, divided by
that of the same pictures as they are judged on. Crops are of 35 to 100 % of a picture's area, as in training.
"""

import io
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from ..augment import augment, center_crop
from ..config import INTERPOLATIONS, TrainConfig
from ..data.decode import decode
from ..data.hub import find_source
from .record import arguments, record


def gradient(images: Tensor) -> float:
    """Return the root mean square of the differences between neighbours in (B, 3, h, w)."""
    across, down = images.diff(dim=-1).square().mean(), images.diff(dim=-2).square().mean()
    return float((across + down).sqrt())


def first_pictures(name: str, count: int) -> list[bytes]:
    """Return encoded pictures of a set's part ``train``, spread evenly over it."""
    source = find_source(name)
    with tempfile.TemporaryDirectory() as scratch, source.open(Path(scratch)) as opened:
        pictures = opened.splits["train"]
        rows = np.linspace(0, len(pictures.labels) - 1, min(count, len(pictures.labels))).astype(int)
        return [pictures.read(int(row)) for row in np.unique(rows)]


def timm_crops(encoded: list[bytes], pixels: int, recipe: TrainConfig, interpolation: str) -> Tensor:
    """Return timm's own training crops (B, 3, pixels, pixels) of whole photographs."""
    transform = create_transform(
        pixels,
        is_training=True,
        scale=recipe.scale,
        ratio=recipe.ratio,
        color_jitter=None,
        auto_augment=None,
        interpolation=interpolation,
    )
    torch.manual_seed(0)
    return torch.stack([transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded])


def sharpness(encoded: list[bytes], pixels: int, sizes: list[int]) -> dict[str, Any]:
    """Return the sharpness of crops by interpolation: of pictures stored at each size, and of timm's."""
    judged = gradient(center_crop(_stored(encoded, pixels), pixels))
    found: dict[str, Any] = {}
    for interpolation in INTERPOLATIONS:
        recipe = TrainConfig(train_interpolation=interpolation)
        crops = {str(size): _crops(_stored(encoded, size), recipe, pixels) for size in sizes}
        crops["timm"] = timm_crops(encoded, pixels, recipe, interpolation)
        found[interpolation] = {name: round(gradient(images) / judged, 3) for name, images in crops.items()}
    return found


def _stored(encoded: list[bytes], size: int) -> Tensor:
    return torch.from_numpy(np.stack([decode(data, size) for data in encoded]))


def _crops(stored: Tensor, recipe: TrainConfig, pixels: int) -> Tensor:
    return augment(stored, torch.arange(len(stored)), recipe, pixels, seed=0, epoch=0)


def main() -> None:
    """Measure, print and record."""
    parser = arguments(__doc__, "sharpness.json")
    parser.add_argument("data", nargs="+", help="names that masterkey bench data lists, or folders")
    parser.add_argument("--pixels", type=int, default=128, help="side of the pictures that are judged on")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 144, 160, 192], help="sides of stored pictures")
    parser.add_argument("--pictures", type=int, default=400, help="of each set")
    options = parser.parse_args()
    sets = {}
    for name in options.data:
        sets[name] = sharpness(first_pictures(name, options.pictures), options.pixels, options.sizes)
        for interpolation, figures in sets[name].items():
            print(f"{name}, {interpolation}:", ", ".join(f"{size} {value}" for size, value in figures.items()))
    command = f"python -m masterkey.benchmarks.scripts.sharpness {shlex.join(sys.argv[1:])}"
    record(options.output, {"command": command, "pixels": options.pixels, "pictures": options.pictures, "sets": sets})


if __name__ == "__main__":
    main()
