"""Draws the pictures of docs/operators.md beside itself: `python docs/pictures/draw.py [FOLDER]`. Plain SVG, the same bytes every time.

The small map, its two samples and the moved taps are the page's worked examples.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from canvas import BLUE, DARK, GREEN, GREY, PALE, RED, WHITE, Canvas, Point

MAP = ((1, 2, 4), (8, 16, 32))
SAMPLES = ((0.375, 0.625), (0.9375, 0.125))  # (u, v)
CORNER_COLOURS = ("#2a7fb8", "#e08214", "#7b4ea3", "#2e9e5b")
GREEN_ZONE, AMBER_ZONE = "#dff1e4", "#fdeec9"


class View(NamedTuple):
    """From map pixels (0 is the first pixel's centre) to the canvas."""

    left: float
    top: float
    cell: float

    def at(self, x: float, y: float) -> Point:
        """Canvas position of (x, y) in pixels."""
        return self.left + x * self.cell, self.top + y * self.cell


def short(number: float) -> str:
    """A number as the page writes it."""
    return f"{number:g}".replace("-", "−")


def zone(canvas: Canvas, view: View, low: Point, high: Point, fill: str) -> None:
    """A rectangle between two positions of the map."""
    (left, top), (right, bottom) = view.at(*low), view.at(*high)
    canvas.rect(left, top, right - left, bottom - top, fill=fill)


def cells(canvas: Canvas, view: View, width: int, height: int) -> None:
    """The outlines of a map's pixels."""
    for row in range(height):
        for column in range(width):
            x, y = view.at(column - 0.5, row - 0.5)
            canvas.rect(x, y, view.cell, view.cell, line=DARK, stroke=1.2)


def ruler(
    canvas: Canvas, view: View, at: float, ticks: Iterable[tuple[float, str]], title: str, colour: str, *, down: bool = False
) -> None:
    """Labelled ticks below a map, or (`down`) on its left; `at` is the canvas position across."""
    marks = [(view.at(place, place)[down], label) for place, label in ticks]
    ends = min(mark for mark, _ in marks), max(mark for mark, _ in marks)
    if down:
        canvas.line((at, ends[0]), (at, ends[1]), colour)
        canvas.text(at - 6, ends[0] - 14, title, colour, bold=True)
    else:
        canvas.line((ends[0], at), (ends[1], at), colour)
        canvas.text(ends[0] - 14, at + 4, title, colour, anchor="end", bold=True)
    for mark, label in marks:
        canvas.line(*(((at - 4, mark), (at + 4, mark)) if down else ((mark, at - 4), (mark, at + 4))), colour)
        if down:
            canvas.text(at - 9, mark + 4, label, colour, anchor="end", size=12)
        else:
            canvas.text(mark, at + 18, label, colour, size=12)


def msda_grid() -> Canvas:
    """The sampling grid of the attention: cells, centres, both rulers, the three zones, the two samples."""
    canvas, view = Canvas(830, 545), View(275, 175, 104)
    canvas.text(20, 28, "A map of 2 x 3 pixels: x = u * W − 0.5, y = v * H − 0.5", DARK, anchor="start", bold=True, size=16)
    zone(canvas, view, (-1.3, -1.25), (3.3, 2.25), "#eeeeee")
    zone(canvas, view, (-1, -1), (3, 2), AMBER_ZONE)
    zone(canvas, view, (0, 0), (2, 1), GREEN_ZONE)
    for row in range(-1, 3):
        for column in range(-1, 4):
            inside = 0 <= row < 2 and 0 <= column < 3
            x, y = view.at(column, row)
            canvas.circle(x, y, 5, fill=DARK if inside else WHITE, line=DARK if inside else GREY)
            label = str(MAP[row][column]) if inside else "0"
            canvas.text(x - 10, y - 9, label, DARK if inside else GREY, anchor="end", bold=inside, size=15)
    cells(canvas, view, 3, 2)
    for number, (u, v) in enumerate(SAMPLES):
        x, y = u * 3 - 0.5, v * 2 - 0.5
        canvas.cross(view.at(x, y), RED)
        canvas.text(view.at(x, y)[0] + 12, view.at(x, y)[1] - 6, str(number), RED, anchor="start", bold=True)
        top = view.at(x, y)[1] + 4
        canvas.text(640, top - 17, f"point {number}", RED, anchor="start", bold=True)
        canvas.text(640, top, f"u, v = {short(u)}, {short(v)}", RED, anchor="start", size=12)
        canvas.text(640, top + 17, f"x, y = {short(x)}, {short(y)}", RED, anchor="start", size=12)
    ruler(canvas, view, 432, [(place / 2, short(place / 2)) for place in range(-2, 7)], "x", DARK)
    ruler(canvas, view, 472, [(-0.5, "0"), (0.25, "1/4"), (1, "1/2"), (1.75, "3/4"), (2.5, "1")], "u", BLUE)
    ruler(canvas, view, 108, [(place / 2, short(place / 2)) for place in range(-2, 5)], "y", DARK, down=True)
    ruler(canvas, view, 58, [(-0.5, "0"), (0.5, "1/2"), (1.5, "1")], "v", BLUE, down=True)
    for x, fill, label in (
        (20, GREEN_ZONE, "all four neighbours in the map"), (270, AMBER_ZONE, "some neighbours outside, each counts as 0"),
        (580, "#eeeeee", "all outside: the sample is 0"),
    ):  # fmt: skip
        canvas.rect(x, 513, 18, 18, fill=fill, line=GREY, stroke=0.8)
        canvas.text(x + 26, 527, label, DARK, anchor="start", size=12)
    return canvas


def bilinear() -> Canvas:
    """Bilinear weights of both samples as the areas opposite to the neighbours."""
    canvas = Canvas(830, 400)
    canvas.text(20, 28, "The weight of a neighbour is the area of the rectangle opposite to it", DARK, anchor="start", bold=True, size=16)
    for panel, (u, v) in enumerate(SAMPLES):
        x, y = u * 3 - 0.5, v * 2 - 0.5
        column, row = int(x // 1), int(y // 1)
        view, sums = View(105 + 410 * panel, 85, 215), []
        discs, fx, fy = [], x - column, y - row
        for corner, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            inside = 0 <= row + i < 2 and 0 <= column + j < 3
            weight, colour = (fy if i else 1 - fy) * (fx if j else 1 - fx), CORNER_COLOURS[corner]
            low = view.at(0 if j else fx, 0 if i else fy)
            high = view.at(fx if j else 1, fy if i else 1)
            canvas.rect(*low, high[0] - low[0], high[1] - low[1], fill=colour if inside else "#e4e4e4", opacity=0.35 if inside else 1)
            canvas.text((low[0] + high[0]) / 2, (low[1] + high[1]) / 2 + 4, short(weight), DARK if inside else GREY, size=12)
            discs.append((view.at(j, i), colour if inside else WHITE, colour if inside else GREY))
            value = MAP[row + i][column + j] if inside else 0
            label = f"row {short(row + i)}, col {short(column + j)}: {value}"
            canvas.text(view.at(j, i)[0], view.at(j, i)[1] + (30 if i else -18), label, colour if inside else GREY, size=13, bold=inside)
            if inside:
                sums.append((weight, value))
        for place, fill, line in discs:
            canvas.circle(*place, 8, fill=fill, line=line)
        canvas.cross(view.at(fx, fy), RED)
        total = sum(weight * value for weight, value in sums)
        canvas.text(view.at(0.5, 0)[0], 358, f"point {panel}: {' + '.join(f'{short(w)}*{value}' for w, value in sums)}", DARK, size=12)
        canvas.text(view.at(0.5, 0)[0], 380, f"= {total!r}", RED, bold=True)
    return canvas


CONVENTIONS: tuple[tuple[str, str, str, Callable[[float], float]], ...] = (
    ("x = u * W − 0.5", "right: u = 0 and u = 1 are the outer edges of the map", GREEN, lambda u: u * 4 - 0.5),
    ("x = u * (W − 1)", "wrong, align_corners: u = 0 and u = 1 are the centres of the outer pixels", RED, lambda u: u * 3),
    ("x = u * W", "wrong, the half pixel is missing: everything comes from half a pixel further right", RED, lambda u: u * 4),
)


def align_corners() -> Canvas:
    """Where the same five locations fall in a row of four pixels, under three conventions."""
    canvas = Canvas(830, 480)
    canvas.text(20, 28, "The same locations u = 0, 1/4, 1/2, 3/4, 1 in a row of W = 4 pixels", DARK, anchor="start", bold=True, size=16)
    for number, (formula, what, colour, pixel) in enumerate(CONVENTIONS):
        view = View(260, 120 + 145 * number, 120)
        canvas.text(20, view.top - 46, formula, colour, anchor="start", bold=True)
        canvas.text(190, view.top - 46, what, DARK, anchor="start")
        for column in range(4):
            x, y = view.at(column, 0)
            canvas.rect(x - 60, y - 24, 120, 48, fill=PALE, line=DARK, stroke=1.2)
            canvas.circle(x, y, 4, fill=DARK)
            canvas.text(x, y - 10, str(column), DARK, size=12)
        for u, label in ((0, "0"), (0.25, "1/4"), (0.5, "1/2"), (0.75, "3/4"), (1, "1")):
            x = view.at(pixel(u), 0)[0]
            canvas.arrow((x, view.top + 50), (x, view.top + 7), colour)
            canvas.text(x, view.top + 65, f"u = {label}", colour, size=12, bold=True)
    return canvas


REGULAR = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))
OFFSETS = (  # (dy, dx) of each tap
    (-0.75, -0.5), (-0.25, 0.25), (-1.5, 0.75), (0.25, -0.75), (0, 0), (0.5, 0.75), (1, -0.25), (0.75, 0.5), (0.25, 1.25),
)  # fmt: skip


def dcn_taps() -> Canvas:
    """A 3x3 kernel's regular and moved taps; beside it the same numbers, read in the wrong order."""
    canvas = Canvas(830, 500)
    panels = (("offset pairs are (dy, dx): right", GREEN, False), ("the same numbers read as (dx, dy): wrong", RED, True))
    for panel, (title, colour, swapped) in enumerate(panels):
        view = View(95 + 415 * panel, 150, 60)
        canvas.text(20 + 415 * panel, 32, title, colour, anchor="start", bold=True, size=16)
        zone(canvas, view, (-1, -1), (5, 5), AMBER_ZONE)
        zone(canvas, view, (-0.5, -0.5), (4.5, 4.5), WHITE)
        cells(canvas, view, 5, 5)
        for tap, (i, j) in enumerate(REGULAR):
            dy, dx = OFFSETS[tap][::-1] if swapped else OFFSETS[tap]
            start, end = view.at(2 + j, 1 + i), view.at(2 + j + dx, 1 + i + dy)
            canvas.rect(start[0] - 6, start[1] - 6, 12, 12, fill=WHITE, line=GREY, stroke=1.4)
            if (dy, dx) != (0, 0):
                canvas.arrow(start, end, colour, short_by=9)
            outside = not (-1 < 1 + i + dy < 5 and -1 < 2 + j + dx < 5)
            canvas.circle(*end, 9, fill=WHITE if outside else colour, line=colour)
            canvas.text(end[0], end[1] + 4, str(tap), colour if outside else WHITE, size=11, bold=True)
    canvas.rect(20, 464, 12, 12, fill=WHITE, line=GREY, stroke=1.4)
    canvas.text(40, 475, "where tap k = 3i + j looks without offset: (ho*s − p + i*d, wo*s − p + j*d)", DARK, anchor="start", size=12)
    canvas.circle(26, 487, 8, fill=GREEN)
    canvas.text(40, 491, "where it reads; hollow: y <= −1 or x <= −1 or y >= H or x >= W, counts as 0", DARK, anchor="start", size=12)
    return canvas


def memory() -> Canvas:
    """The order of numbers in memory: value, and the channels of offset in three layouts."""
    canvas = Canvas(830, 445)
    canvas.text(20, 28, "value (A, S, M, D), one image: S = h0*w0 + h1*w1, here M = 2, D = 3", DARK, anchor="start", bold=True, size=15)
    left = 20.0
    for label, width, fill in (("level 0: h0*w0 rows of S", 500, GREEN_ZONE), ("level 1: h1*w1 rows of S", 290, AMBER_ZONE)):
        canvas.rect(left, 45, width, 34, fill=fill, line=DARK, stroke=1.2)
        canvas.text(left + width / 2, 67, label, DARK)
        left += width
    canvas.arrow((20, 100), (20, 81), BLUE)
    canvas.text(30, 102, "level_start_index[0] = 0", BLUE, anchor="start", size=12)
    canvas.arrow((520, 100), (520, 81), BLUE)
    canvas.text(530, 102, "level_start_index[1] = h0*w0", BLUE, anchor="start", size=12)
    for pixel, name in enumerate(("row 0, col 0", "row 0, col 1")):
        for head in range(2):
            strip(canvas, 20 + 240 * pixel + 120 * head, 125, [f"d{d}" for d in range(3)], 40, CORNER_COLOURS[head])
            canvas.text(80 + 240 * pixel + 120 * head, 176, f"{name}, head {head}", DARK, size=11)
    canvas.text(510, 146, "… column by column, then row by row", GREY, anchor="start", size=12)
    title = "channels of offset at one output position, deform_groups G = 2, T = 4 taps"
    canvas.text(20, 222, title, DARK, anchor="start", bold=True, size=15)
    pairs = [f"d{axis}{tap}" for tap in range(4) for axis in "yx"]
    layouts: tuple[tuple[str, list[tuple[list[str], str]]], ...] = (
        ("offset: (dy, dx) of each tap, group after group", [(pairs, CORNER_COLOURS[0]), (pairs, CORNER_COLOURS[1])]),
        ("offset_y, then offset_x: two ports", [(pairs[::2] * 2, CORNER_COLOURS[2]), (pairs[1::2] * 2, CORNER_COLOURS[3])]),
        (
            "offset_all: all dx, all dy, then the mask: one port",
            [(pairs[1::2] * 2, CORNER_COLOURS[3]), (pairs[::2] * 2, CORNER_COLOURS[2]), ([f"m{tap}" for tap in range(4)] * 2, GREY)],
        ),
    )
    for number, (title, groups) in enumerate(layouts):
        top = 262 + 66 * number
        canvas.text(20, top - 8, title, DARK, anchor="start", size=12)
        for group, (labels, colour) in enumerate(groups):
            strip(canvas, 20 + 262 * group, top, labels, 32.5, colour)
    return canvas


def strip(canvas: Canvas, left: float, top: float, labels: list[str], width: float, colour: str) -> None:
    """Numbers next to each other in memory."""
    for place, label in enumerate(labels):
        canvas.rect(left + place * width, top, width, 32, fill=colour, line=WHITE, stroke=1.5)
        canvas.text(left + (place + 0.5) * width, top + 21, label, WHITE, size=13, bold=True)


def pictures() -> dict[str, str]:
    """File name → SVG."""
    made = {"msda-grid": msda_grid, "bilinear": bilinear, "align-corners": align_corners, "dcn-taps": dcn_taps, "memory": memory}
    return {f"{name}.svg": draw().svg() for name, draw in made.items()}


def main() -> None:
    """Writes the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in pictures().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
