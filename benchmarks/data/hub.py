"""Data sets that the ``datasets`` package reads: repositories on the Hub, and folders laid out like one."""

import errno
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config import BenchmarkError
from .catalogue import DATA_VARIABLE, HubSet, resolve
from .image_folder import find_image_folder
from .source import LAYOUTS, Opened, Pictures, Source, misspelt_parts, stat_fingerprint, visible_files, what_is_in

_DATA_SUFFIXES = {".arrow", ".csv", ".gz", ".json", ".jsonl", ".parquet", ".tar", ".zip"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def find_source(name: str, columns: Mapping[str, str] | None = None) -> Source:
    """Find the data set ``name``, without reading its pictures.

    Args:
        name: see ``resolve``.
        columns: ``image``, ``label`` and ``subset`` where they are not the plain ones (``DataConfig.columns``).

    Raises:
        BenchmarkError: an unknown name, a folder of the wrong layout (what was found is said), or a repository that
            cannot be reached.
    """
    where, columns = resolve(name), columns or {}
    if isinstance(where, HubSet):
        # with other labels or rows the sizes published are not to be expected
        size = None if columns else where.size
        return _find_repository(name, replace(where, size=size, **columns))  # type: ignore[arg-type]
    pictures = find_image_folder(where)
    if pictures is None:
        return _find_hub_folder(where, columns)
    if columns:
        raise BenchmarkError(f"{where} is a folder of pictures, which has no {' or '.join(columns)} to choose")
    return pictures


def _find_hub_folder(folder: Path, columns: Mapping[str, str]) -> Source:
    files = list(visible_files(folder))
    if not any(path.suffix in _DATA_SUFFIXES for path in files):
        raise BenchmarkError(f"{folder} holds {what_is_in(folder)}; {LAYOUTS}{misspelt_parts(folder)}")
    wanted = HubSet(str(folder), **columns)  # type: ignore[arg-type]
    fingerprint = stat_fingerprint(folder, files)
    if columns:
        fingerprint = hashlib.sha256(f"{sorted(columns.items())}\0{fingerprint}".encode()).hexdigest()

    def load(scratch: Path) -> Any:
        # the copy that ``datasets`` makes is only needed while pictures are decoded; kept in its own cache, it would
        # also outlive a change of the folder that leaves the files' times as they are
        return _datasets().load_dataset(str(folder), wanted.subset, cache_dir=str(scratch))

    return Source(folder.name, str(folder), fingerprint, wanted, _opener(load, str(folder), wanted))


def _find_repository(name: str, wanted: HubSet) -> Source:
    place = f"{wanted.repo} on the Hub"
    try:
        builder = _datasets().load_dataset_builder(wanted.repo, wanted.subset)
    except BenchmarkError:
        raise
    except Exception as error:  # whatever the network, the Hub or ``datasets`` come up with
        raise BenchmarkError(
            f"{place} cannot be loaded: {_first_line(error)}; where {name} is at hand, name its folder, or put it "
            f"under ${DATA_VARIABLE}"
        ) from error
    revision = hashlib.sha256(f"{wanted}\0{builder.hash}".encode()).hexdigest()

    def load(_scratch: Path) -> Any:
        builder.download_and_prepare()
        return builder.as_dataset()

    return Source(name, place, revision, wanted, _opener(load, place, wanted))


def _opener(load: Callable[[Path], Any], place: str, wanted: HubSet) -> Callable[[Path], Any]:
    @contextmanager
    def opened(scratch: Path) -> Iterator[Opened]:
        try:
            with _quiet():
                loaded = load(scratch)
        except BenchmarkError:
            raise
        except Exception as error:
            if full := _disk_full(error):
                raise full from error
            raise BenchmarkError(f"{place} cannot be read as a data set: {_first_line(error)}; {LAYOUTS}") from error
        yield _read(dict(loaded), place, wanted)

    return opened


def _read(loaded: dict[str, Any], place: str, wanted: HubSet) -> Opened:
    datasets = _datasets()
    features = next(iter(loaded.values())).features
    image = wanted.image or _only(features, datasets.Image)
    label = wanted.label or ("label" if "label" in features else _only(features, datasets.ClassLabel))
    is_label = isinstance(features.get(label), (datasets.Value, datasets.ClassLabel))
    if image is None or not is_label or not isinstance(features.get(image), datasets.Image):
        found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        expected = f"{wanted.image or 'one of images'} and {label or 'label'}"
        raise BenchmarkError(
            f"{place} has the columns {found}; expected {expected}; image and label in [data.KEY] name others"
        )
    if wanted.only:
        loaded = {split: _rows_with(rows, *wanted.only) for split, rows in loaded.items()}
    raw = {split: rows.select_columns([label])[:][label] for split, rows in loaded.items()}
    if isinstance(features[label], datasets.ClassLabel):
        classes = list(features[label].names)
        number = {value: value for value in range(len(classes))}
    else:  # names, or numbers without names
        # no number is not equal to itself: that is how missing ones are kept
        values = sorted({value for column in raw.values() for value in column if value is not None and value == value})
        classes, number = [str(value) for value in values], {value: index for index, value in enumerate(values)}
    splits = {}
    for split, rows in loaded.items():
        encoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        labels = np.array([number.get(value, -1) for value in raw[split]], dtype=np.int64)
        splits[split] = Pictures(labels, partial(_bytes, encoded, image), partial(_name, split, wanted))
    return Opened(tuple(classes), splits)


def _name(split: str, wanted: HubSet, index: int) -> str:
    among = f", of those whose {wanted.only[0]} is {wanted.only[1]}" if wanted.only else ""
    return f"row {index} of {split} (from 0{among})"


def _bytes(rows: Any, column: str, index: int) -> bytes:
    picture = rows[index][column]
    if not picture or not (picture["bytes"] or picture["path"]):
        raise ValueError("there is no picture")
    return bytes(picture["bytes"]) if picture["bytes"] else Path(picture["path"]).read_bytes()


def _rows_with(rows: Any, column: str, wanted: str) -> Any:
    if column not in rows.features:
        raise BenchmarkError(f"no column {column} to take {wanted} from; there are {', '.join(rows.features)}")
    names = getattr(rows.features[column], "names", None)
    values = rows.select_columns([column])[:][column]
    return rows.select([i for i, value in enumerate(values) if (names[value] if names else value) == wanted])


def _only(features: Any, kind: type[Any]) -> str | None:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    return found[0] if len(found) == 1 else None


def _disk_full(error: BaseException) -> OSError | None:
    """Return the full disk behind an error that ``datasets`` wrapped, if that is what it was."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return OSError(seen.errno, seen.strerror or "the disk is full")
        seen = seen.__cause__ or seen.__context__
    return None


def _first_line(error: BaseException) -> str:
    cause = error
    while cause.__cause__ is not None:  # ``datasets`` says "an error occurred" and wraps the one that tells
        cause = cause.__cause__
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    if lines[0].startswith("Config name is missing"):  # the second line says which there are
        return f"{' '.join(lines[:2])[:300]}; name it as subset in [data.KEY]"
    return lines[0][:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars of ``datasets`` off a standard error that nobody watches."""
    datasets = _datasets()
    silence = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if silence:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            datasets.enable_progress_bars()


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise BenchmarkError("data sets are read with the extra bench: pip install 'masterkey[bench]'") from error
    return datasets
