"""The atlas: one picture that shows every filter of a bank, layer by layer.

**Colour.** Weights run from blue (negative) over white (zero) to red (positive). Each filter is divided by
its own largest absolute weight, so that all share the scale from -1 to +1: in real ImageNet banks the
strength of layers differs thirtyfold within one network, and under a common limit one saturates while the
next is blank. Colour shows shape; strength is in the range that each heading gives. A filter whose largest
weight is at most 1 % of its layer's largest is *near dead*: it is divided by that 1 % instead, so that noise
is not blown up to look like a filter, and the heading counts such filters.
"""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .atomic import write_atomically
from .errors import MasterkeyError

if TYPE_CHECKING:
    from torch import Tensor

CONTENT = 1161  # pixels: holds 8, 16, 32 or 40 tiles of 140, 70, 35 or 28; channel counts are multiples of 8
MARGIN, TOP, HEADING, PANEL_GAP = 48, 172, 28, 30
MAX_HEIGHT = 20_000  # image viewers and browsers begin to refuse or to blur above
# Pixels of a square tile, and the page height up to which it is taken: a handful of filters is drawn large.
TILES = ((140, 900), (70, 900), (35, MAX_HEIGHT), (28, MAX_HEIGHT), (21, MAX_HEIGHT), (14, MAX_HEIGHT))
FEWEST = 64  # tiles of a layer: about one row of the smallest, so that showing fewer would save no height
NEAR_DEAD = 0.01
SHAPE = "Each filter is divided by its largest |weight|: colour shows shape, headings the weights' range."
PALE = "Near-dead filters (largest |weight| at most 1 % of their layer's) are divided by that 1 %, so pale."

PAPER, INK, FAINT, GRID = (255, 255, 255), (32, 36, 42), (104, 110, 118), (150, 155, 162)
# ColorBrewer's RdBu (safe for colour-blind readers), reversed, with pure white in the middle and without its
# nearly black ends: the strongest weight of every filter lies there, and its sign must show.
STOPS = ("2166ac", "4393c3", "92c5de", "d1e5f0", "ffffff", "fddbc7", "f4a582", "d6604d", "b2182b")
HALF = 127  # colour levels on each side of zero
_at = np.linspace(0, len(STOPS) - 1, 2 * HALF + 1)
_channels = zip(*(bytes.fromhex(stop) for stop in STOPS), strict=True)
COLOURS = np.stack([np.interp(_at, range(len(STOPS)), c).round() for c in _channels], 1).astype(np.uint8)


class _Layout(NamedTuple):
    """How many tiles a layer shows, in what grid; pixels of a weight, and of a tile with one grid line."""

    shown: int
    rows: int
    columns: int
    block: int
    tile_height: int
    tile_width: int

    @property
    def height(self) -> int:
        return HEADING + self.rows * self.tile_height + 1 + PANEL_GAP


def _layout(shape: tuple[int, ...], tile: int, most: int) -> _Layout:
    n, c, kh, kw = shape
    block = max(1, int(tile / max(2.0, math.sqrt(kh * kw))))  # the same area for 1x11 as for a square
    columns = max(1, (CONTENT - 1) // (kw * block + 1))
    if columns > 8:
        columns -= columns % 8
    shown = min(n * c, most)
    return _Layout(shown, -(-shown // columns), columns, block, kh * block + 1, kw * block + 1)


def _page_height(layouts: list[_Layout]) -> int:
    return TOP + sum(layout.height for layout in layouts) - PANEL_GAP + MARGIN


def _layouts(shapes: list[tuple[int, ...]], max_filters: int | None) -> list[_Layout]:
    """The largest tiles that fit the page; failing that evenly fewer of them, failing that fewer layers."""
    high = max_filters or max(n * c for n, c, _, _ in shapes)
    for tile, limit in TILES:
        layouts = [_layout(shape, tile, high) for shape in shapes]
        if _page_height(layouts) <= limit:
            return layouts
    low = min(high, FEWEST)
    while low < high:
        middle = (low + high + 1) // 2
        fits = _page_height([_layout(shape, tile, middle) for shape in shapes]) <= MAX_HEIGHT
        low, high = (middle, high) if fits else (low, middle - 1)
    layouts = [_layout(shape, tile, low) for shape in shapes]
    while len(layouts) > 1 and _page_height(layouts) > MAX_HEIGHT:
        layouts.pop()
    return layouts


def _relative(weights: NDArray[np.float32], shown: int) -> tuple[NDArray[np.float64], int]:
    """The first ``shown`` slices in units of their filters' limits, and how many filters are near dead."""
    _, c, kh, kw = weights.shape
    largest = np.abs(weights).max(axis=(1, 2, 3)).astype(np.float64)
    floor = NEAR_DEAD * largest.max()
    limits = np.maximum(largest, floor or 1.0).repeat(c)[:shown, None, None]
    return weights.reshape(-1, kh, kw)[:shown] / limits, int((largest <= floor).sum())


def _panel(filters: NDArray[np.float64], layout: _Layout) -> Image.Image:
    """Filters of shape (shown, kh, kw) within [-1, 1], row by row on a grid of 1-pixel lines."""
    colours = COLOURS[np.rint(filters * HALF).astype(np.intp) + HALF]
    height, width = layout.tile_height, layout.tile_width
    size = (layout.rows * height + 1, min(layout.shown, layout.columns) * width + 1, 3)
    panel = np.full(size, PAPER, dtype=np.uint8)
    for index, tile in enumerate(colours.repeat(layout.block, axis=1).repeat(layout.block, axis=2)):
        y, x = index // layout.columns * height, index % layout.columns * width
        panel[y : y + height + 1, x : x + width + 1] = GRID
        panel[y + 1 : y + height, x + 1 : x + width] = tile
    return Image.fromarray(panel)


def _fitted(text: str, size: int, width: float) -> str:
    """One printable line of at most ``width`` pixels; what is too much goes from the middle."""
    font = ImageFont.load_default(size)
    line = "".join(letter if letter.isprintable() else "?" for letter in text)
    shorter, kept = line, min(len(line), 500)  # no page is 500 letters wide, and measuring takes time
    while kept and (len(shorter) > 500 or font.getlength(shorter) > width):
        kept -= 1
        shorter = f"{line[: kept - kept // 2]}…{line[len(line) - kept // 2 :]}"
    return shorter


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)


def _facts(weights: NDArray[np.float32], shown: int, dead: int) -> str:
    n, c, kh, kw = weights.shape
    slices = f", {c:,} slices each" if c > 1 else ""
    cut = f", first {shown:,} of {n * c:,} shown" if shown < n * c else ""
    parts = [f"{_count(n, 'filter')} {kh}x{kw}{slices}{cut}", f"{weights.min():.3g} to {weights.max():.3g}"]
    return "   |   ".join(parts + [f"{dead:,} near dead"] * (dead > 0))


def _colour_bar(page: Image.Image, draw: ImageDraw.ImageDraw, right: int, top: int) -> None:
    left, bottom, font = right - len(COLOURS), top + 17, ImageFont.load_default(13)
    page.paste(Image.fromarray(COLOURS[None].repeat(17, axis=0)), (left, top))
    draw.rectangle((left - 1, top - 1, right, bottom), outline=GRID)
    for at, label, anchor in ((left, "-1", "la"), (left + HALF, "0", "ma"), (right, "+1", "ra")):
        draw.text((at, bottom + 6), label, INK, font, anchor)
    draw.text((right, bottom + 24), "weight / largest |weight| of its filter", FAINT, font, "ra")


def draw_atlas(layers: Mapping[str, "Tensor"], title: str, *, max_filters: int | None = None) -> Image.Image:
    """Draw every filter of a bank, one panel a layer, in the mapping's order.

    ``layers`` maps names to tensors of shape (n, c, kh, kw), finite and none of them empty. Every (out, in)
    slice is a tile, row by row; the number left of a row is the index of its first tile. Red is positive,
    blue negative, white zero, in units of the largest absolute weight of the tile's filter (all c slices of
    one output), or of 1 % of the layer's largest where that is more, so that near-dead filters stay pale.
    ``max_filters`` limits the tiles of each layer. A bank too large for a page of 20,000 pixels gets smaller
    tiles, then fewer of them in each layer, then fewer layers; headings and caption say what is left out.

    Raises:
        MasterkeyError: there is no layer, or ``max_filters`` is below 1.
    """
    if not layers or (max_filters is not None and max_filters < 1):
        found = f"{_count(len(layers), 'layer')} and max_filters={max_filters}"
        raise MasterkeyError(f"an atlas needs at least one layer and one filter of each, found {found}")
    layouts = _layouts([tuple(layer.shape) for layer in layers.values()], max_filters)
    width = max(1000, *(layout.columns * layout.tile_width + 1 for layout in layouts))
    page = Image.new("RGB", (width + 2 * MARGIN, _page_height(layouts)), PAPER)
    draw, right, y, any_dead = ImageDraw.Draw(page), MARGIN + width, TOP, False
    fonts = {size: ImageFont.load_default(size) for size in (10, 13, 16, 28)}
    for (name, layer), layout in zip(layers.items(), layouts, strict=False):
        weights = layer.detach().cpu().float().numpy()
        relative, dead = _relative(weights, layout.shown)
        facts, any_dead = _facts(weights, layout.shown, dead), any_dead or dead > 0
        fitted = _fitted(name, 16, width - fonts[13].getlength(facts) - 30)
        draw.text((MARGIN, y + 16), fitted, INK, fonts[16], "ls")
        draw.text((right, y + 16), facts, FAINT, fonts[13], "rs")
        page.paste(_panel(relative, layout), (MARGIN, y + HEADING))
        for row in range(0, layout.rows, -(-12 // layout.tile_height)):  # labels must not touch
            at = y + HEADING + row * layout.tile_height + min(layout.tile_height, 14) / 2
            draw.text((MARGIN - 7, at), str(row * layout.columns), FAINT, fonts[10], "rm")
        y += layout.height

    counts = _count(sum(layer.shape[0] for layer in layers.values()), "filter")
    cut = f", first {_count(len(layouts), 'layer')} shown" if len(layouts) < len(layers) else ""
    draw.text((MARGIN, 44), _fitted(title, 28, width - 2 * HALF - 60), INK, fonts[28])
    draw.text((MARGIN, 86), f"{counts} in {_count(len(layers), 'layer')}{cut}", INK, fonts[13])
    draw.multiline_text((MARGIN, 110), f"{SHAPE}\n{PALE}" if any_dead else SHAPE, FAINT, fonts[13])
    _colour_bar(page, draw, right, 52)
    return page


def save_atlas(image: Image.Image, path: Path) -> None:
    """Write ``image`` to ``path`` as PNG, whole or not at all; the same picture gives the same bytes.

    Raises:
        SaveError: the folder or file cannot be written; what stood there before is intact.
    """
    write_atomically(path, encode_png(image))


def encode_png(image: Image.Image) -> bytes:
    """Return ``image`` as PNG; the same picture gives the same bytes."""
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()
