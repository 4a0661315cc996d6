"""Vehicles and people of the city, each built of a few shapes: the body first, then the details that only fine grids show.

All stand on the road; `x`, `y` are the middle, `heading` is 1 along the world's y and -1 against it, `speed` metres a frame along y.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .shapes import Shape

PAINTS = ((176, 30, 34), (238, 238, 236), (28, 30, 36), (52, 88, 150), (150, 154, 160), (200, 160, 40), (36, 96, 70))
CLOTHES = ((200, 60, 60), (60, 90, 170), (230, 200, 80), (80, 150, 90), (90, 70, 110))
_TYRE, _GLASS, _TROUSERS, _SKIN = (24, 24, 26), (48, 56, 66), (52, 56, 72), (224, 178, 144)
_HEADLIGHT, _TAIL_LIGHT = (250, 244, 214), (206, 24, 22)


def car(dice: np.random.Generator, x: float, y: float, heading: int, speed: float) -> Iterator[Shape]:
    """A body, windows all round, wheels and lights."""
    paint = _one_of(dice, PAINTS)
    yield Shape("box", "car", (x, y, 0.65), (0.95, 2.25, 0.6), paint, speed=speed)
    for colour, detail in ((paint, False), (_GLASS, True)):
        yield Shape("box", "car", (x, y - 0.3 * heading, 1.5), (0.85, 1.3, 0.25), colour, speed=speed, detail=detail)
    yield from _wheels("car", x, y, 0.75, (-1.4, 1.4), speed)
    yield from _lights("car", x, y, (0.7, 2.1), heading, speed)


def bus(x: float, y: float, heading: int, speed: float) -> Iterator[Shape]:
    """A yellow one."""
    yield Shape("box", "bus", (x, y, 1.7), (1.3, 5.6, 1.5), (230, 190, 40), windows=True, speed=speed)
    yield Shape("box", "bus", (x, y + 5.5 * heading, 2.1), (1.1, 0.25, 0.5), _GLASS, speed=speed, detail=True)
    yield from _wheels("bus", x, y, 1.1, (-3.6, 3.6), speed)
    yield from _lights("bus", x, y, (1.0, 5.45), heading, speed)


def truck(dice: np.random.Generator, x: float, y: float, heading: int, speed: float) -> Iterator[Shape]:
    """A cab and a box of one paint, with a gap above the chassis between them."""
    paint = _one_of(dice, PAINTS)
    yield Shape("box", "truck", (x, y - 0.9 * heading, 1.7), (1.25, 2.7, 1.5), paint, speed=speed)
    yield from _cab(x, y + 2.8 * heading, paint, heading, speed)
    yield from _wheels("truck", x, y, 1.05, (-2.4, 2.6), speed)
    yield from _lights("truck", x, y, (1.0, 3.5), heading, speed)


def lorry(dice: np.random.Generator, x: float, y: float, speed: float) -> Iterator[Shape]:
    """A truck's cab that pulls a trailer; along y."""
    paint = _one_of(dice, PAINTS)
    yield from _cab(x, y + 6.2, paint, 1, speed)
    yield Shape("box", "trailer", (x, y, 1.9), (1.3, 4.6, 1.5), (214, 214, 208), speed=speed)
    yield from _wheels("trailer", x, y, 1.1, (-3.4, -2.2), speed)
    yield from _wheels("truck", x, y, 1.05, (6.2,), speed)
    yield from _lights("trailer", x, y, (1.0, 4.45), 1, speed)


def rider(dice: np.random.Generator, label: str, x: float, y: float, speed: float) -> Iterator[Shape]:
    """Somebody on a bicycle or motorcycle, which both have the class `label`; along y."""
    yield Shape("box", label, (x, y, 0.5), (0.25, 0.9, 0.5), (50, 52, 58), speed=speed)
    yield Shape("box", label, (x, y, 1.35), (0.25, 0.3, 0.4), _one_of(dice, CLOTHES), speed=speed)
    yield Shape("box", label, (x, y, 1.6), (0.25, 0.25, 0.25), _SKIN, speed=speed, detail=True)


def person(dice: np.random.Generator, x: float, y: float, speed: float) -> Iterator[Shape]:
    """Somebody on foot: trousers, shirt and head."""
    yield Shape("cylinder", "pedestrian", (x, y, 0.9), (0.25, 0.25, 0.9), _one_of(dice, CLOTHES), speed=speed)
    yield Shape("cylinder", "pedestrian", (x, y, 0.4), (0.25, 0.25, 0.4), _TROUSERS, speed=speed, detail=True)
    yield Shape("cylinder", "pedestrian", (x, y, 1.6), (0.25, 0.25, 0.25), _SKIN, speed=speed, detail=True)


def _cab(x: float, y: float, paint: tuple[int, int, int], heading: int, speed: float) -> Iterator[Shape]:
    yield Shape("box", "truck", (x, y, 1.45), (1.25, 0.9, 1.35), paint, speed=speed)
    yield Shape("box", "truck", (x, y + 0.5 * heading, 2.0), (1.25, 0.5, 0.4), _GLASS, speed=speed, detail=True)


def _wheels(label: str, x: float, y: float, aside: float, along: Sequence[float], speed: float) -> Iterator[Shape]:
    """`aside` metres to both sides, at each of `along`."""
    for place in along:
        for side in (-aside, aside):
            yield Shape("box", label, (x + side, y + place, 0.5), (0.25, 0.35, 0.3), _TYRE, speed=speed, detail=True)


def _lights(label: str, x: float, y: float, place: tuple[float, float], heading: int, speed: float) -> Iterator[Shape]:
    """White in front, red behind, `place` (aside, along) from the middle."""
    aside, along = place
    for end, colour in ((heading, _HEADLIGHT), (-heading, _TAIL_LIGHT)):
        for side in (-aside, aside):
            yield Shape("box", label, (x + side, y + end * along, 1.05), (0.25, 0.2, 0.2), colour, speed=speed, detail=True)


def _one_of(dice: np.random.Generator, choice: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    return choice[int(dice.integers(len(choice)))]
