"""What a data set's name means: a folder here, or a repository on the Hub."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from masterkey.names import expanded

from ..config import BenchmarkError
from ..data_name import plain

DATA_VARIABLE = "MASTERKEY_DATA"

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class HubSet:
    """A data set on the Hugging Face Hub.

    ``train`` names the splits that are learnt from, in order; the second of two is the official validation part.
    ``only`` keeps the rows whose column has that value; ``subset`` is one of the repository's configurations. ``size``
    is (classes, pictures to learn from, pictures to test on), checked once the set is loaded. None stands for "as
    found", in a repository nobody described here.
    """

    repo: str
    image: str | None = None
    label: str | None = None
    train: tuple[str, ...] | None = None
    test: str | None = None
    only: tuple[str, str] | None = None
    subset: str | None = None
    size: tuple[int, int, int] | None = None


# The sets of seed 000's Table 2, and Tiny-ImageNet, in their official splits. The Hub was not reachable where this was
# written: ids, splits and columns are as the repositories' pages name them, and not one was ever loaded from there.
# The sizes are those of the sets' own publications, so a repository that holds something else is refused.
CATALOGUE = {
    "cifar10": HubSet("uoft-cs/cifar10", "img", "label", ("train",), "test", size=(10, 50_000, 10_000)),
    "domainnet-sketch": HubSet(
        "wltjr1007/DomainNet", "image", "label", ("train",), "test", ("domain", "sketch"), size=(345, 48_212, 20_916)
    ),
    "flowers102": HubSet(
        "dpdl-benchmark/oxford_flowers102", "image", "label", ("train", "validation"), "test", size=(102, 2_040, 6_149)
    ),
    "food101": HubSet("ethz/food101", "image", "label", ("train",), "validation", size=(101, 75_750, 25_250)),
    "imagenet": HubSet(
        "ILSVRC/imagenet-1k", "image", "label", ("train",), "validation", size=(1_000, 1_281_167, 50_000)
    ),
    "pets": HubSet("timm/oxford-iiit-pet", "image", "label", ("train",), "test", size=(37, 3_680, 3_669)),
    "stl10": HubSet("tanganke/stl10", "image", "label", ("train",), "test", size=(10, 5_000, 8_000)),
    "tiny-imagenet": HubSet(
        "zh-plus/tiny-imagenet", "image", "label", ("train",), "valid", size=(200, 100_000, 10_000)
    ),
}


def resolve(name: str) -> Path | HubSet:
    """Say where the pictures of data set ``name`` are.

    In this order: a folder, if the name begins with ``.``, ``/`` or ``~`` or is an existing folder; a folder of that
    name (``-`` and ``_`` are one) under ``$MASTERKEY_DATA``, by default ``../shared/data``; a name of ``CATALOGUE``,
    on the Hub; ``org/name``, any repository on the Hub.

    Raises:
        BenchmarkError: no such folder or name; near names are given.
        UnknownNameError: a path with a NUL, or of a user who does not exist.
    """
    if not name:
        raise BenchmarkError(f"an empty name of a data set; known are {', '.join(CATALOGUE)}")
    path = expanded(name)
    if _is_folder(path):
        return path.absolute()
    if name.startswith((".", "/", "~")):
        raise BenchmarkError(f"{name!r:.200} is no data folder: it is a file, or does not exist")
    here = _folders_here()
    for folder in here:
        if plain(folder.name) == plain(name):
            return folder
    for known, hub_set in CATALOGUE.items():
        if plain(known) == plain(name):
            return hub_set
    if _REPO.fullmatch(name):
        return HubSet(name)
    names = sorted({*CATALOGUE, *(folder.name for folder in here)})
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(near)}" if near else f"known are {', '.join(names)}"
    raise BenchmarkError(
        f"no data set named {name!r:.100}; {hint}. A folder or a Hub repository (org/name) will do too"
    )


def data_folder() -> Path:
    """Return the folder of data sets and checkpoints at hand, ``$MASTERKEY_DATA`` or ``../shared/data``, absolute."""
    return Path(os.environ.get(DATA_VARIABLE) or "../shared/data").expanduser().absolute()


def _folders_here() -> list[Path]:
    """Return the folders of data sets at hand; none where there is no such place."""
    root = data_folder()
    return sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long for a path: then it is none
        return False
