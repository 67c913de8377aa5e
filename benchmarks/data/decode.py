"""From encoded pictures to squares of one size."""

import io
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ..config import BenchmarkError
from .source import Pictures

_CHUNK = 256  # pictures in memory at once
_MOST_THREADS = 8
# Pillow names what it was given to read, which says nothing of the file
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")


def decode(data: bytes, size: int) -> np.ndarray:
    """Return the picture's centre square, resized to uint8 (size, size, 3).

    Turned upright by its EXIF orientation, RGB; bicubic, with antialiasing. Resizing the square alone is resizing the
    short side and cropping the centre, without ever holding the rest of a very long picture.

    Raises:
        ValueError: more than 16 bits a pixel and channel, for which there is no one way to 8.
        OSError: no picture, or one cut short.
    """
    with Image.open(io.BytesIO(data)) as opened:
        image = _in_eight_bits(opened)
        ImageOps.exif_transpose(image, in_place=True)
        width, height = image.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        square = image.convert("RGB").resize(
            (size, size), Image.Resampling.BICUBIC, (left, top, left + short, top + short)
        )
    return np.asarray(square)


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Return 16 bits a pixel as 8, from black to white; Pillow's own conversion would make nearly all of it white."""
    if image.mode.startswith("I;16"):
        about = image.getexif()  # its orientation, for who turns it upright
        eight = Image.fromarray((np.asarray(image).astype(np.uint16) // 257).astype(np.uint8))
        eight.getexif().update(about)
        return eight
    if image.mode in ("I", "F"):
        raise ValueError(f"it has 32 bits a pixel (mode {image.mode}), for which there is no one way to 8")
    return image


def decode_all(pictures: Pictures, size: int, title: str) -> Iterator[tuple[int, np.ndarray | str]]:
    """Yield the index and, in order, each picture as ``decode`` gives it, or the reason why it cannot be decoded.

    On threads: Pillow decodes and resizes without Python's lock, and a thread, unlike a process, cannot be left behind
    by a parent that was killed. A progress bar with the time left goes to a terminal's standard error.

    Raises:
        BenchmarkError: a picture cannot be read. That may pass, so it is no property of the picture to be remembered.
    """

    def attempt(data: bytes | Exception) -> np.ndarray | str:
        if isinstance(data, Exception):
            return _reason(data)
        try:
            return decode(data, size)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file makes Pillow's plugins raise nearly anything
            return _reason(error)

    def read(index: int) -> bytes | Exception:
        try:
            return pictures.read(index)
        except ValueError as error:
            return error
        except OSError as error:
            raise BenchmarkError(
                f"{pictures.name(index)} cannot be read ({error.strerror or error}); try again"
            ) from error

    total = len(pictures.labels)
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=total, desc=title, unit="picture", file=sys.stderr, disable=None) as bar,
    ):
        for start in range(0, total, _CHUNK):
            chunk = range(start, min(start + _CHUNK, total))
            yield from zip(chunk, pool.map(attempt, map(read, chunk)), strict=True)
            bar.update(len(chunk))


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    said = _ADDRESS.sub("", first)[:200].rstrip(".")
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return f"{said}; of a format that Pillow does not read, such as HEIC, make JPEG or PNG"
    return said
