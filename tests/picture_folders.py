"""Small data sets on disk, in both layouts."""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masterkey.benchmarks.config import DataConfig
from masterkey.benchmarks.data import load_data

datasets = pytest.importorskip("datasets")

# split -> class -> pictures
Counts = dict[str, dict[str, int]]
SIMPLE: Counts = {"train": {"ant": 6, "bee": 5}, "test": {"ant": 2, "bee": 3}}


@lru_cache
def picture(seed: int, width: int = 20, height: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def image_folder(root: Path, counts: Counts = SIMPLE, distinct: int = 10**6, **size: int) -> Path:
    seed = 0
    for split, classes in counts.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                (root / split / name / f"{index:04}.png").write_bytes(picture(seed % distinct, **size))
                seed += 1
    return root


def hub_folder(root: Path, splits: dict[str, list[int]], *, names: list[str] | None, image: str = "image", **columns):
    """A data set as it lies on the Hub; every label gets a picture of its own."""
    (root / "data").mkdir(parents=True)
    seed = 0
    for split, labels in splits.items():
        encoded = [picture(seed + i) for i in range(len(labels))]
        pictures = [data and {"bytes": data, "path": None} for data in encoded]
        seed += len(labels)
        features = {image: datasets.Image(), "label": datasets.ClassLabel(names=names) if names else None}
        features = {name: feature or datasets.Value("int64") for name, feature in features.items()}
        rows = {image: pictures, "label": labels}
        for name, values in columns.items():
            rows[name], features[name] = values[split], datasets.Value("string")
        made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        made.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    return root


def load(folder: Path, cache: Path, **options):
    skip = options.pop("skip_corrupt", False)
    return load_data(DataConfig(str(folder), **{"pixels": 8, **options}), cache, skip_corrupt=skip)


def leftovers(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if ".partial" in path.name]
