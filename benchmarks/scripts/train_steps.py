"""Train a network with a frozen bank for a few steps on real pictures, and check that the filters stayed.

    python -m masterkey.benchmarks.scripts.train_steps ../shared/data/pets --model convnext_atto --bank scale-space-8

The data is whatever ``masterkey bench`` takes: a name that ``masterkey bench data`` lists, a folder of pictures, or a
repository on the Hub. Needs the extra: pip install 'masterkey[bench]'.
"""

import argparse
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import masterkey
from masterkey.errors import MasterkeyError

from ..config import DataConfig
from ..data import Part, load_data


def batches(train: Part, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches (batch, 3, pixels, pixels) in [-1, 1] with labels, without end."""
    generator = np.random.default_rng(seed)
    while True:
        rows = generator.choice(len(train.labels), min(batch, len(train.labels)), replace=False)
        pictures = torch.from_numpy(train.images[rows]).permute(0, 3, 1, 2)
        yield pictures.float() / 127.5 - 1, torch.from_numpy(train.labels[rows])


def main() -> None:
    """Train, printing the loss; exit with an error if a frozen filter moved, or on what cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a name, a folder of pictures, or org/name on the Hub")
    parser.add_argument("--model", default="convnext_atto")
    parser.add_argument("--bank", default="scale-space-8")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        _train(options)
    except MasterkeyError as error:
        print(f"masterkey: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def _train(options: argparse.Namespace) -> None:
    data = load_data(DataConfig(options.data, pixels=options.pixels))
    torch.manual_seed(options.seed)
    model = masterkey.create_model(options.model, options.bank, num_classes=len(data.classes)).train()
    source = batches(data.train, options.batch, options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    for step in range(1, options.steps + 1):
        pictures, labels = next(source)
        loss = F.cross_entropy(model(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step:4d}  loss {loss.item():.3f}", flush=True)
    moved = masterkey.verify(model)
    if moved:
        raise SystemExit(f"frozen filters moved in {', '.join(moved)}")
    print(f"{len(masterkey.depthwise_layers(model))} layers still hold {options.bank}, bit for bit")


if __name__ == "__main__":
    main()
