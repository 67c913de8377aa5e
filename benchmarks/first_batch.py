"""A batch such as a run would learn from, of the first pictures, without the network and decoding no whole data set."""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .augment import augment, draw_mixing
from .config import DataConfig, RunConfig
from .data.catalogue import HubSet, resolve
from .data.decode import decode_all
from .data.hub import find_source
from .data.source import Pictures, check_taught, roles
from .data.splits import limit
from .data.views import classes_in_view, view_list
from .errors import BenchmarkError

_Value = TypeVar("_Value")
_UNKNOWN_CLASSES = 10  # of a repository that the catalogue does not describe


@dataclass(frozen=True)
class Batch:
    """A batch as the network sees it (B, 3, pixels, pixels); ``note`` says what stands in for its pictures."""

    images: Tensor
    classes: int
    note: str | None


def first_batch(config: RunConfig, *, skip_corrupt: bool = False) -> Batch:
    """Make a batch of the first pictures in the order of their files; of a data set on the Hub, of random ones.

    With ``skip_corrupt`` pictures of it that cannot be decoded are left out, and it is that much shorter.

    Raises:
        BenchmarkError: an unknown data set, a folder that cannot be read as one, a class without a picture to learn
            from, or a picture that cannot be decoded.
    """
    data, recipe = config.data, config.train
    images, classes, note = _pictures(data, recipe.batch_size, skip_corrupt)
    numbers = torch.arange(len(images))
    batch = augment(torch.from_numpy(images), numbers, recipe, data.pixels, seed=config.seed, epoch=0)
    mixing = draw_mixing(recipe, data.pixels, seed=config.seed, epoch=0, batch=0)
    return Batch(batch if mixing is None else mixing.images(batch), classes, note)


def _pictures(config: DataConfig, batch_size: int, skip_corrupt: bool) -> tuple[np.ndarray, int, str | None]:
    """Return uint8 (B, s, s, 3), the number of classes, and what stands in."""
    size = config.learnt_size
    where = resolve(config.name)
    if not isinstance(where, HubSet):
        with _first(config, batch_size) as (first, classes):
            return _decoded(config.name, first, size, skip_corrupt), classes, None
    classes, pictures = (where.size[0], where.size[1]) if where.size else (_UNKNOWN_CLASSES, batch_size)
    if config.view and classes == len(view_list()):
        classes = sum(view == config.view for view, _, _ in view_list().values())
    count = _batch_length(min(pictures, classes * (config.per_class or pictures)), batch_size)
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return images, classes, f"random pictures: {where.repo} is on the Hub, not here"


def _decoded(name: str, pictures: Pictures, size: int, skip_corrupt: bool) -> np.ndarray:
    decoded = list(decode_all(pictures, size, f"decoding the first of {name}"))
    damaged = [f"{pictures.name(index)}: {reason}" for index, reason in decoded if isinstance(reason, str)]
    whole = [picture for _, picture in decoded if not isinstance(picture, str)]
    if damaged and not (skip_corrupt and whole):
        raise BenchmarkError(
            f"{len(damaged):,} of the first pictures of {name} cannot be decoded, such as {damaged[0]}"
        )
    return np.stack(whole)


@contextmanager
def _first(config: DataConfig, batch_size: int) -> Iterator[tuple[Pictures, int]]:
    """Give the first pictures that would be learnt from, still encoded, and the number of classes."""
    source = find_source(config.name, config.columns)
    with tempfile.TemporaryDirectory() as scratch, source.open(Path(scratch)) as opened:
        part_of = roles(source, opened.splits)
        pictures = opened.splits[part_of.train]
        kept = classes_in_view(opened.classes, config.view) if config.view else list(range(len(opened.classes)))
        learnt_from = [pictures, *([opened.splits[part_of.validation]] if part_of.validation else [])]
        labels = np.concatenate([part.labels for part in learnt_from])
        check_taught(source.place, {number: opened.classes[number] for number in kept}, labels)
        rows = np.flatnonzero(np.isin(pictures.labels, kept))
        if config.per_class:
            rows = rows[limit(pictures.labels[rows], config.per_class, config.split_seed)]
        first = rows[: _batch_length(len(rows), batch_size)]
        yield Pictures(pictures.labels[first], _at(pictures.read, first), _at(pictures.name, first)), len(kept)


def _at(of: Callable[[int], _Value], rows: np.ndarray) -> Callable[[int], _Value]:
    return lambda index: of(int(rows[index]))


def _batch_length(pictures: int, batch_size: int) -> int:
    """Return how long the first of an epoch's batches is: they are of like size, and none is larger."""
    return math.ceil(pictures / math.ceil(pictures / batch_size))
