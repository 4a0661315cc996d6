"""A street and everything on it, made up from a seed. World metres: the road runs along y, its middle at x = 0, its surface at z = 0.

    |x| <  7    road, two lanes to each side of the middle; a crossing street every 60 m
    |x| <  9.5  parking and islands (other_flat)
    |x| < 13    pavement
    beyond      plots of 20 m: buildings with a yard behind them from 28 m on, or parks with trees
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .shapes import Shape
from .vehicles import bus, car, lorry, person, rider, truck

FRAMES = 20  # of a scene; the next one has another street
LANE, ROAD, PARKING, PAVEMENT, YARDS = 3.5, 7.0, 9.5, 13.0, 28.0
CROSSING_EVERY, CROSSING_HALF = 60.0, 5.0
EGO_X = 1.75  # the ego drives in the middle of the inner right lane
PLOT = 20.0
_FROM, _TO = -100.0, 140.0  # where the street is furnished
_WALLS = ((178, 96, 78), (205, 186, 150), (150, 140, 132), (196, 160, 120), (120, 128, 140), (222, 214, 200))
_GREENS = ((58, 112, 44), (76, 132, 50), (46, 98, 52), (98, 140, 60))


@dataclass(frozen=True)
class Street:
    """One scene. `first_crossing` is the y of a crossing street; `parks` are plots without buildings, by (side, number)."""

    first_crossing: float
    parks: frozenset[tuple[int, int]]
    shapes: tuple[Shape, ...]  # what comes later wins where two meet

    def crossing(self, y: np.ndarray) -> np.ndarray:
        """Distance along y to the middle of the nearest crossing street, metres; any shape."""
        offset = (y - self.first_crossing + CROSSING_EVERY / 2) % CROSSING_EVERY - CROSSING_EVERY / 2
        return np.asarray(np.abs(offset))


def street(seed: int, scene: int) -> Street:
    """The street of a scene: the same seed and scene give the same street on every machine."""
    dice = np.random.default_rng([seed, scene])
    first = float(dice.integers(18, 32))
    plots = range(int(_FROM // PLOT), int(_TO // PLOT))
    parks = frozenset((side, plot) for side in (-1, 1) for plot in plots if dice.integers(4) == 0)
    empty = Street(first, parks, ())
    shapes = [*_plots(dice, empty), *_furniture(dice, empty), *_works(dice, empty), *_traffic(dice, empty), *_people(dice, empty)]
    return Street(first, parks, tuple(shapes))


def _plots(dice: np.random.Generator, place: Street) -> Iterator[Shape]:
    """Buildings, or the trees and hedges of a park."""
    for plot in range(int(_FROM // PLOT), int(_TO // PLOT)):
        middle = (plot + 0.5) * PLOT
        for side in (-1, 1):
            if place.crossing(np.array(middle)) < CROSSING_HALF + PLOT / 2 + 2:
                continue
            if (side, plot) in place.parks:
                for _ in range(6):
                    x, y = side * dice.uniform(PAVEMENT + 2, PAVEMENT + 16), middle + dice.uniform(-8, 8)
                    yield from _tree(dice, x, y)
                green = _GREENS[dice.integers(len(_GREENS))]
                yield Shape("box", "vegetation", (side * (PAVEMENT + 0.6), middle, 0.6), (0.5, PLOT / 2 - 2, 0.6), green)
                continue
            height, depth = float(dice.integers(3, 9)) * 1.5 + 1.0, float(dice.integers(6, 11))
            wall = _WALLS[dice.integers(len(_WALLS))]
            x, along = side * (PAVEMENT + 0.4 + depth), PLOT / 2 - float(dice.integers(1, 4))
            yield Shape("box", "manmade", (x, middle, height / 2), (depth, along, height / 2), wall, windows=True)


def _tree(dice: np.random.Generator, x: float, y: float) -> Iterator[Shape]:
    tall, wide = dice.uniform(2.4, 3.6), dice.uniform(1.4, 2.4)
    yield Shape("cylinder", "vegetation", (x, y, tall / 2), (0.25, 0.25, tall / 2), (96, 70, 48))
    yield Shape("ellipsoid", "vegetation", (x, y, tall + wide * 0.7), (wide, wide, wide), _GREENS[dice.integers(len(_GREENS))])


def _furniture(dice: np.random.Generator, place: Street) -> Iterator[Shape]:
    """Street trees and lamps along the kerb."""
    for number, y in enumerate(np.arange(_FROM, _TO, 9.0)):
        for side in (-1, 1):
            if place.crossing(np.array(y)) < CROSSING_HALF + 3:
                continue
            if number % 2:
                yield from _tree(dice, side * (PARKING + 1.0), float(y) + dice.uniform(-1, 1))
            else:
                yield Shape("cylinder", "manmade", (side * (PARKING + 0.5), float(y), 2.8), (0.15, 0.15, 2.8), (70, 74, 80), detail=True)


def _works(dice: np.random.Generator, place: Street) -> Iterator[Shape]:
    """Road works in the outer right lane: cones in front, barriers beside, a digger inside."""
    begin = place.first_crossing + CROSSING_HALF + 8 + float(dice.integers(0, 4))
    lane = LANE * 1.5 + 0.3
    for number in range(4):
        yield Shape("cylinder", "traffic_cone", (LANE + 0.5 + number * 0.7, begin - 4 + number, 0.4), (0.2, 0.2, 0.4), (240, 110, 30))
    for number in range(5):
        paint = (225, 70, 50) if number % 2 else (240, 236, 228)
        yield Shape("box", "barrier", (LANE + 0.6, begin + 2.2 * number, 0.5), (0.15, 0.9, 0.5), paint)
    yellow = (236, 178, 20)
    yield Shape("box", "construction_vehicle", (lane, begin + 5, 1.1), (1.1, 1.9, 1.1), yellow)
    yield Shape("box", "construction_vehicle", (lane, begin + 5.6, 2.6), (0.8, 0.8, 0.5), (60, 62, 66))
    yield Shape("box", "construction_vehicle", (lane, begin + 8.4, 1.8), (0.3, 1.8, 0.4), yellow, yaw=20.0)


def _traffic(dice: np.random.Generator, place: Street) -> Iterator[Shape]:
    """Parked and driving vehicles. Nothing comes nearer than 2.5 m to the ego, which drives one metre a frame along x = EGO_X."""
    for side in (-1, 1):
        y = _FROM + float(dice.integers(0, 5))
        while y < _TO:
            if place.crossing(np.array(y)) > CROSSING_HALF + 4 and dice.integers(10) < 6:
                yield from car(dice, side * (ROAD + 1.2), y, side, 0.0)
            y += 6.0
    gap = float(dice.integers(11, 15))
    yield from car(dice, EGO_X, gap, 1, 1.0)
    yield from car(dice, EGO_X, -gap, 1, 1.0)
    yield from lorry(dice, EGO_X, gap + 14, 1.0)
    opposite = -LANE / 2 - 0.4
    yield from car(dice, opposite, float(dice.integers(8, 14)), -1, -1.0)
    yield from car(dice, opposite, float(dice.integers(34, 42)), -1, -1.0)
    yield from car(dice, opposite, -float(dice.integers(14, 22)), -1, -1.0)
    lane = LANE * 1.5
    yield from bus(-lane, float(dice.integers(16, 26)), -1, -0.5)
    yield from truck(dice, -lane, float(dice.integers(-32, -26)), -1, -0.5)
    yield from rider(dice, "bicycle", lane + 0.6, float(dice.integers(4, 8)), 0.6)
    yield from rider(dice, "motorcycle", lane, -float(dice.integers(6, 10)), 1.0)


def _people(dice: np.random.Generator, place: Street) -> Iterator[Shape]:
    """On the pavements, and on the far side of the crossing."""
    for _ in range(22):
        side = -1 if dice.integers(2) else 1
        x, y = side * dice.uniform(PARKING + 1.6, PAVEMENT - 0.6), dice.uniform(-45, 65)
        if place.crossing(np.array(y)) > CROSSING_HALF:
            yield from person(dice, x, y, float(dice.integers(-2, 3)) * 0.1)
    for _ in range(3):
        yield from person(dice, -dice.uniform(3.8, 6.5), place.first_crossing - CROSSING_HALF - dice.uniform(1, 3), 0.0)
