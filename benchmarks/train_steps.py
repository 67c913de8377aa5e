"""Train a network with a frozen bank for a few steps on real pictures, and check that the filters stayed.

    python -m masterkey.benchmarks.train_steps ../shared/data/pets --model convnext_atto --bank scale-space-8

The data is anything that ``datasets.load_dataset`` reads: a Hub name or a local folder of the same layout, with
the columns ``image`` and ``label``. Needs the extra: pip install 'masterkey[bench]'.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import masterkey


def batches(data: str, pixels: int, batch: int, seed: int) -> tuple[int, Iterator[tuple[Tensor, Tensor]]]:
    """Return the number of classes, and endless batches (batch, 3, pixels, pixels) in [-1, 1] with labels."""
    from datasets import load_dataset

    train = load_dataset(data, split="train")

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        generator = np.random.default_rng(seed)
        while True:
            rows = train[generator.choice(len(train), batch, replace=False)]
            pictures = [
                image.convert("RGB").resize((pixels, pixels), Image.Resampling.BICUBIC) for image in rows["image"]
            ]
            stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
            yield stacked.permute(0, 3, 1, 2).float() / 127.5 - 1, torch.tensor(rows["label"])

    return train.features["label"].num_classes, endless()


def main() -> None:
    """Train, printing the loss; exit with an error if a frozen filter moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a Hub name or a folder of the same layout")
    parser.add_argument("--model", default="convnext_atto")
    parser.add_argument("--bank", default="scale-space-8")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    classes, source = batches(options.data, options.pixels, options.batch, options.seed)
    model = masterkey.create_model(options.model, options.bank, num_classes=classes).train()
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
