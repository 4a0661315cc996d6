"""Where everything stands on a picture's page: boxes in pixels from the top left corner of a slide, 16 : 9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..frames.frame import NUSCENES_CAMERAS

WIDTH, HEIGHT = 2400, 1350
HEADING = 40  # above each volume's views
AXIS_LEFT, AXIS_BELOW = 70, 56  # what a map's numbers and words take
_GAP = 10  # between camera images
# nuScenes' cameras as they sit around the car, seen from above; no image is mirrored.
_AROUND = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))


class Box(NamedTuple):
    """A rectangle on the page, pixels."""

    left: int
    top: int
    width: int
    height: int


class Views(NamedTuple):
    """Where the two views of one volume stand."""

    perspective: Box
    above: Box


class Layout(NamedTuple):
    """The page."""

    title: Box
    cameras: Box
    legend: Box
    volumes: tuple[Views, ...]


ONE = Layout(  # cameras over the perspective on the left; map and legend on the right
    title=Box(40, 22, 2320, 92),
    cameras=Box(40, 130, 1540, 580),
    legend=Box(1620, 930, 740, 380),
    volumes=(Views(Box(40, 770, 1540, 540), Box(1690, 170, 670, 670)),),
)
TWO = Layout(  # cameras and legend on the left; then a column for each volume
    title=Box(40, 22, 2320, 92),
    cameras=Box(40, 130, 960, 362),
    legend=Box(40, 530, 960, 780),
    volumes=tuple(Views(Box(left, 170, 645, 470), Box(left + AXIS_LEFT, 680, 575, 575)) for left in (1040, 1715)),
)


def camera_boxes(names: Sequence[str], area: Box, height: int, width: int) -> list[Box]:
    """A box for each camera image, in the order of `names`, all of one size and of the images' proportions.

    nuScenes' six cameras stand in their places around the car; others in rows, in their own order, as large as they can be.

    Args:
        names: of the cameras, at least one.
        area: what they may take; they stand at its top, in the middle.
        height, width: of an image, pixels.
    """
    if set(names) == set(NUSCENES_CAMERAS) and len(names) == len(NUSCENES_CAMERAS):
        flat = [name for row in _AROUND for name in row]
        places, columns = [flat.index(name) for name in names], len(_AROUND[0])
    else:
        places = list(range(len(names)))
        columns = max(range(1, len(names) + 1), key=lambda count: _image_size(len(names), count, area, height, width))
    box_width, box_height = _image_size(len(names), columns, area, height, width)
    taken = columns * (box_width + _GAP) - _GAP
    left = area.left + (area.width - taken) // 2
    return [
        Box(left + place % columns * (box_width + _GAP), area.top + place // columns * (box_height + _GAP), box_width, box_height)
        for place in places
    ]


def _image_size(count: int, columns: int, area: Box, height: int, width: int) -> tuple[int, int]:
    """Width and height of each of `count` images in so many columns, at least a pixel."""
    rows = -(-count // columns)
    room_width = (area.width - (columns - 1) * _GAP) / columns
    room_height = (area.height - (rows - 1) * _GAP) / rows
    scale = min(room_width / width, room_height / height)
    return max(1, int(width * scale)), max(1, int(height * scale))
