"""A little SVG: scales, axes, marks. Colours come from the page's style sheet, so a figure follows light and dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from .table import MINUS, Figure, Value

Point = tuple[float, float]
Row = Mapping[str, Value]


@dataclass(frozen=True)
class Scale:
    """A linear map from values (``low`` to ``high``) to pixels (``start`` to ``end``)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        """Return round values within the scale, ``about`` so many."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


def span(values: Sequence[float], *, pad: float = 0.06, least: float = 1.0) -> tuple[float, float]:
    """Return a range around ``values`` with some air, at least ``least`` wide."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    air = max((high - low) * pad, (least - (high - low)) / 2)
    return low - air, high + air


def number(row: Row, name: str) -> float | None:
    """Return a number of a row, None if it is missing."""
    value = row[name]
    return None if value is None else float(value)


def must(row: Row, name: str) -> float:
    """Return a number that a row is known to have."""
    value = row[name]
    assert value is not None
    return float(value)


@dataclass
class Canvas:
    """A picture under construction; ``label`` is what a screen reader says, nothing of one that is only a sign."""

    width: float
    height: float
    label: str
    parts: list[str] = field(default_factory=list)

    def line(self, start: Point, end: Point, style: str) -> None:
        """Draw a straight line."""
        (x1, y1), (x2, y2) = start, end
        self.parts.append(f'<line class="{style}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>')

    def path(self, points: Sequence[Point], style: str, *, closed: bool = False) -> None:
        """Draw a line through points, or fill the area inside."""
        steps = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self.parts.append(f'<path class="{style}" d="M{steps}{"Z" if closed else ""}"/>')

    def box(self, corner: Point, width: float, height: float, style: str) -> None:
        """Draw a rectangle from its upper left corner."""
        x, y = corner
        size = f'width="{_n(width)}" height="{_n(height)}"'
        self.parts.append(f'<rect class="{style}" x="{_n(x)}" y="{_n(y)}" {size}/>')

    def mark(self, at: Point, shape: int, style: str, size: float = 4.5) -> None:
        """Draw one of six shapes, so that series differ in more than colour."""
        x, y = at
        if shape % 6 == 0:
            self.parts.append(f'<circle class="{style}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(size)}"/>')
            return
        corners, turn = ((4, 45), (3, -90), (4, 0), (3, 90), (6, 0))[shape % 6 - 1]
        angles = [math.radians(turn + 360 * i / corners) for i in range(corners)]
        reach = size * 1.25
        self.path([(x + reach * math.cos(a), y + reach * math.sin(a)) for a in angles], style, closed=True)

    def lines(self, at: Point, text: str, style: str, anchor: str, limit: int) -> None:
        """Write a name around a height: in two lines if it is longer than ``limit``, broken where it can be."""
        x, y = at
        if len(text) <= limit:
            self.text((x, y + 4), text, style, anchor)
            return
        cut = next((place for mark in "@/ _-" if (place := text.rfind(mark, 1, limit + 1)) > 0), limit)
        self.text((x, y - 2), text[:cut], f"{style} tight", anchor)
        self.text((x, y + 9), text[cut:], f"{style} tight", anchor, limit)

    def text(self, at: Point, text: str | Figure, style: str = "", anchor: str = "start", limit: int = 99) -> None:
        """Write text; a figure carries its full value as in the tables, a text over ``limit`` is cut and kept aside."""
        x, y = at
        value = (
            f' data-value="{escape(str(text.value))}"' if isinstance(text, Figure) and text.value is not None else ""
        )
        whole = str(text)
        shown = escape(whole if len(whole) <= limit else f"{whole[: limit - 1]}…")
        aside = "" if len(whole) <= limit else f"<title>{escape(whole)}</title>"
        place = f'x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="{style}" {place}{value}>{shown}{aside}</text>')

    def axis_x(self, scale: Scale, top: float, bottom: float, ticks: Sequence[float], title: str = "") -> None:
        """Draw vertical grid lines, their values below, and a title under these."""
        for tick in ticks:
            self.line((scale(tick), top), (scale(tick), bottom), "grid")
            self.text((scale(tick), bottom + 15), _tick(tick), "tick", "middle")
        self.text(((scale.start + scale.end) / 2, bottom + 31), title, "tick", "middle")

    def axis_y(self, scale: Scale, left: float, right: float, ticks: Sequence[float]) -> None:
        """Draw horizontal grid lines and their values at the left."""
        for tick in ticks:
            self.line((left, scale(tick)), (right, scale(tick)), "grid")
            self.text((left - 6, scale(tick) + 4), _tick(tick), "tick", "end")

    def render(self) -> str:
        """Return the SVG element."""
        box = f"0 0 {_n(self.width)} {_n(self.height)}"
        said = f'role="img" aria-label="{escape(self.label)}"' if self.label else 'aria-hidden="true"'
        return f'<svg viewBox="{box}" {said}>{"".join(self.parts)}</svg>'

    def render_file(self, style: str) -> bytes:
        """Return an SVG file of its own, with its style sheet inside."""
        size = f'xmlns="http://www.w3.org/2000/svg" width="{_n(self.width)}" height="{_n(self.height)}"'
        head, rest = self.render().split(">", 1)
        return f"{head} {size}><style>\n{style}</style>{rest}\n".encode()


def _n(value: float) -> str:
    """Round to a tenth of a pixel, so that the last bit of a computation cannot change the bytes."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", MINUS)
