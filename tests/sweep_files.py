"""A sweep in miniature: a few pictures, a network of a few thousand parameters, runs of a fraction of a second."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from masterkey.benchmarks import experiment
from masterkey.benchmarks.experiment import Experiment
from masterkey.benchmarks.store import ResultStore
from masterkey.cli.main import run
from masterkey.metadata import canonical_json

CLASSES = ("dark", "light", "mixed")


def make_pictures(folder: Path, per_class: int = 6) -> Path:
    """Write an image folder: train and test, three classes, 32x32."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for number, name in enumerate(CLASSES):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(per_class):
                pixels = rng.integers(0, 256, (32, 32, 3)) // 2 + 60 * number
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{i}.png")
    return folder


def tiny_experiment(pictures: Path | str, **over: Any) -> Experiment:
    """A source and arms that take from it, tuned over two learning rates, two seeds; ``over`` replaces parts."""
    raw = {
        "targets": ["tiny"],
        "models": ["small"],
        "networks": {"small": {"name": "convnext_atto", "kwargs": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}}},
        "seeds": [0, 1],
        "lrs": [1e-3, 4e-3],
        "data": {"tiny": {"name": str(pictures), "pixels": 32}},
        "train": {"epochs": 2, "batch_size": 8, "warmup_epochs": 0},
        "arms": [
            {"name": "selffer", "bank": "selffer"},
            {"name": "scratch"},
            {
                "name": "random",
                "vary": {"steps": [[["select", {"layers": 1}]], [["select", {"layers": 2}]]]},
                "bank": "random",
            },
        ],
        **over,
    }
    return Experiment("tiny", "smoke", "A sweep in miniature", "that it sweeps", "arms", raw)


def metrics(store: ResultStore) -> dict[str, str]:
    """The canonical ``metrics`` of every finished run."""
    return {
        run_id: canonical_json(json.loads(store.run_path(run_id).read_bytes())["metrics"]) for run_id in store.run_ids()
    }


def main(pictures: str, *arguments: str) -> int:
    """Run the command line with the miniature in the place of every experiment: for tests that need a process.

    ``run_one`` in the place of ``bench`` is the module of that name.
    """
    experiment.load_experiment = lambda name, size: tiny_experiment(pictures)
    if arguments[0] == "run_one":
        from masterkey.benchmarks.run_one import main as run_one

        return run_one(arguments[1:])
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
