"""The classes of SurroundOcc and the colours in which upstream draws them: one table.

Class 0 is empty space. Without semantics a voxel is empty (0) or occupied (1). Label 255 means: nobody knows, do not count it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EMPTY = 0
IGNORE = 255
# name → R, G, B; the order is that of the labels, from 1 on
SURROUNDOCC: dict[str, tuple[int, int, int]] = {
    "barrier": (255, 120, 50),
    "bicycle": (255, 192, 203),
    "bus": (255, 255, 0),
    "car": (0, 150, 245),
    "construction_vehicle": (0, 255, 255),
    "motorcycle": (200, 180, 0),
    "pedestrian": (255, 0, 0),
    "traffic_cone": (255, 240, 150),
    "trailer": (135, 60, 0),
    "truck": (160, 32, 240),
    "driveable_surface": (255, 0, 255),
    "other_flat": (139, 137, 137),
    "sidewalk": (75, 0, 75),
    "terrain": (150, 240, 80),
    "manmade": (213, 213, 213),
    "vegetation": (0, 175, 0),
}
CLASS_NAMES = tuple(SURROUNDOCC)
OCCUPIED = ("occupied",)  # the class names of a network without semantics
_OTHER = (90, 130, 200)  # any class of another name


def colours(class_names: Sequence[str]) -> NDArray[np.uint8]:
    """Colour of every label.

    Args:
        class_names: of labels 1, 2, …, without "empty".
    Returns:
        (256, 3) uint8, R, G, B; row 0 (empty) black, row 255 (ignored) and unused rows grey. A name that is not SurroundOcc's gets
        a colour of its own, the same in every run.
    """
    table = np.full((256, 3), 128, np.uint8)
    table[EMPTY] = 0
    for label, name in enumerate(class_names, 1):
        table[label] = SURROUNDOCC.get(name) or (_OTHER if len(class_names) == 1 else _made_up(label))
    return table


def _made_up(label: int) -> tuple[int, int, int]:
    """Well spread colours: the golden angle around a circle of hues."""
    hue = label * 0.618034 % 1.0
    red, green, blue = (0.35 + 0.6 * max(0.0, min(1.0, abs((hue * 6 - shift) % 6 - 3) - 1)) for shift in (0.0, 2.0, 4.0))
    return round(red * 255), round(green * 255), round(blue * 255)
