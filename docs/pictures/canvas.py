"""A small SVG canvas: shapes and text on white, in the order in which they are drawn, and the colours of all pictures."""

from __future__ import annotations

import math
from html import escape

Point = tuple[float, float]
WHITE, DARK, GREY, PALE = "#ffffff", "#22272e", "#8a929a", "#f4f6f8"
GREEN, RED, BLUE = "#1f8a4c", "#c8322b", "#1f6fb2"
_FONT = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"


def _n(number: float) -> str:
    """Two digits behind the point: enough to see, and without the last bits in which platforms differ."""
    return f"{round(number, 2) + 0.0:g}"


class Canvas:
    """A picture of `width` x `height`; (0, 0) is its upper left corner, and all sizes are in pixels of the picture."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._shapes: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "none",
        line: str = "none",
        stroke: float = 1.2,
        opacity: float = 1,
    ) -> None:
        """A rectangle by its upper left corner."""
        outline = "" if line == "none" else f' stroke="{line}" stroke-width="{_n(stroke)}"'
        seen = "" if opacity == 1 else f' fill-opacity="{_n(opacity)}"'
        self._shapes.append(f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" fill="{fill}"{seen}{outline}/>')

    def circle(self, x: float, y: float, radius: float, *, fill: str, line: str = "none") -> None:
        """A disc by its centre."""
        self._shapes.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{fill}" stroke="{line}" stroke-width="1.8"/>')

    def line(self, start: Point, end: Point, colour: str, width: float = 1.5) -> None:
        """A straight line."""
        ends = f'x1="{_n(start[0])}" y1="{_n(start[1])}" x2="{_n(end[0])}" y2="{_n(end[1])}"'
        self._shapes.append(f'<line {ends} stroke="{colour}" stroke-width="{_n(width)}"/>')

    def arrow(self, start: Point, end: Point, colour: str, short_by: float = 0) -> None:
        """A line with a head at its end, which stops `short_by` before it."""
        length = math.dist(start, end)
        along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
        tip = (end[0] - along[0] * short_by, end[1] - along[1] * short_by)
        neck = (tip[0] - along[0] * 8, tip[1] - along[1] * 8)
        sides = [(neck[0] - along[1] * side, neck[1] + along[0] * side) for side in (-4, 4)]
        self.line(start, neck, colour, 1.8)
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in (tip, *sides))
        self._shapes.append(f'<polygon points="{points}" fill="{colour}"/>')

    def cross(self, at: Point, colour: str, size: float = 7) -> None:
        """A diagonal cross, white around it."""
        for stroke, drawn in ((6.0, WHITE), (3.0, colour)):
            for side in (-1, 1):
                self.line((at[0] - size, at[1] - side * size), (at[0] + size, at[1] + side * size), drawn, stroke)

    def text(self, x: float, y: float, text: str, colour: str, *, anchor: str = "middle", size: float = 13, bold: bool = False) -> None:
        """One line of text; y is its baseline, anchor "start", "middle" or "end"."""
        weight = ' font-weight="bold"' if bold else ""
        place = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}"'
        self._shapes.append(f'<text {place} fill="{colour}"{weight}>{escape(text)}</text>')

    def svg(self) -> str:
        """The picture as a file's text."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}">'
        return "\n".join([head, f'<rect width="{self.width}" height="{self.height}" fill="{WHITE}"/>', *self._shapes, "</svg>", ""])
