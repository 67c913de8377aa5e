"""How many test pictures of the data sets at hand are near copies of a picture that is learnt from.

    python -m masterkey.benchmarks.near_copies flowers17 pets

A near copy correlates with it above 0.98, both reduced to 32 x 32 pixels and each colour to mean 0. Such pictures can
be got right by memory, in any arm; ``without_copies`` tells what they do to differences.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from masterkey.atomic import write_atomically

from .config import DataConfig
from .data import Data, load_data
from .data.rows import PictureArray

PIXELS, ABOVE = 32, 0.98
_TOGETHER = 512  # pictures held as floats, or compared, at once


def thumbnails(images: PictureArray) -> Tensor:
    """Return pictures (n, s, s, 3) as rows (n, 3072) of norm 1, every colour of mean 0.

    Of one colour throughout they are all one row, which is orthogonal to every other.
    """
    rows = []
    for first in range(0, len(images), _TOGETHER):
        part = torch.from_numpy(np.array(images[first : first + _TOGETHER])).permute(0, 3, 1, 2).float()
        small = F.interpolate(part, PIXELS, mode="area")
        centred = (small - small.mean((2, 3), keepdim=True)).flatten(1)
        is_plain = (part.amax((2, 3)) == part.amin((2, 3))).all(1, keepdim=True)
        rows.append(F.normalize(torch.where(is_plain, 1.0, centred), dim=1))
    return torch.cat(rows)


def near_copies(data: Data) -> list[tuple[int, int, float]]:
    """Return (test picture, the most alike one in train, correlation) of every test picture with a near copy there."""
    learnt, judged = thumbnails(data.train.images), thumbnails(data.evaluate.images)
    found = []
    for first in range(0, len(judged), _TOGETHER):
        best = (judged[first : first + _TOGETHER] @ learnt.T).max(1)
        for row in (best.values > ABOVE).nonzero().flatten().tolist():
            found.append((first + row, int(best.indices[row]), float(best.values[row])))
    return found


def count(name: str) -> dict[str, Any]:
    """Count the near copies of a data set, by its name or folder."""
    data = load_data(DataConfig(name, pixels=64))
    found = near_copies(data)
    same = sum(data.evaluate.labels[test] == data.train.labels[train] for test, train, _ in found)
    return {"test_pictures": len(data.evaluate.labels), "near_copies": len(found), "of_the_same_class": int(same)}


def main() -> None:
    """Count, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/near_copies.json"))
    options = parser.parse_args()
    sets = {name: count(name) for name in options.data}
    for name, figures in sets.items():
        print(f"{name}: {figures['near_copies']} of {figures['test_pictures']} test pictures have a near copy in train")
    result = {"command": f"python -m masterkey.benchmarks.near_copies {' '.join(options.data)}", "sets": sets}
    write_atomically(options.output, json.dumps(result, indent=2).encode() + b"\n")


if __name__ == "__main__":
    main()
