"""One moment of a street as voxels: a class and a colour for each, in the LiDAR frame of the ego.

A voxel belongs to the last shape that its centre lies in. Where a shape is thinner than a voxel it is grown to one, and stands in the
middle of it, so that nothing vanishes between voxels. Voxels of more than a metre leave out details (wheels, windows, lamps, road
markings), which at that size would hide what they belong to. The ground is the one layer of voxels that holds its surface. Voxels in
which a camera stands are empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..voxels.classes import CLASS_NAMES, EMPTY
from ..voxels.grid import Grid
from .layout import CROSSING_HALF, EGO_X, FRAMES, LANE, PARKING, PAVEMENT, PLOT, ROAD, YARDS, Street, street
from .shapes import Shape

LIDAR_HEIGHT = 1.84  # metres above the road, as on nuScenes' cars
_FINE = 1.0  # metres: a grid of larger voxels shows no details, windows and road markings
_STEP = 1.0  # metres that the ego drives in a frame
_TEXTURE = 0.5  # metres: the grain of the paint
_ROUGH = 0.16  # how much brighter the brightest grain is than the darkest, relative
_STOREY = 2.2  # metres, so that two rows of windows find room below the upper end of the range, 4.84 m above the road
_GLASS, _WHITE = (70, 92, 116), (232, 232, 226)
_GROUND = {  # class → R, G, B
    "driveable_surface": (92, 94, 98),
    "other_flat": (128, 122, 116),
    "sidewalk": (172, 168, 160),
    "terrain": (124, 146, 84),
}
_KINDS = tuple(_GROUND)
_LABEL = {name: label for label, name in enumerate(CLASS_NAMES, 1)}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """labels (X, Y, Z) uint8, of `CLASS_NAMES`; colours (X, Y, Z, 3) uint8, R, G, B, black where empty."""

    grid: Grid
    labels: NDArray[np.uint8]
    colours: NDArray[np.uint8]


@dataclass(frozen=True)
class _Pose:
    """The LiDAR in the world: world = turn(yaw) @ lidar + place."""

    yaw: float  # radians, counter-clockwise
    place: tuple[float, float, float]

    def world(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = points.T
        turned: NDArray[np.float64] = np.stack([cosine * x - sine * y, sine * x + cosine * y, z], axis=1)
        turned += np.array(self.place)
        return turned

    def lidar(self, point: tuple[float, float, float]) -> NDArray[np.float64]:
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = np.array(point) - np.array(self.place)
        return np.array([cosine * x + sine * y, -sine * x + cosine * y, z])


def snapshot(seed: int, number: int, grid: Grid, cameras: NDArray[np.float64]) -> Snapshot:
    """Frame `number` of the city.

    Args:
        seed: of the city, at least 0.
        number: from 0; each `layout.FRAMES` frames the scene changes.
        cameras: (N, 3) where the cameras stand, LiDAR metres.
    """
    scene, frame = divmod(number, FRAMES)
    place = street(seed, scene)
    sway = 0.01 * ((frame * 7) % 11 - 5)  # a driver is no rail
    pose = _Pose(sway, (EGO_X, frame * _STEP, LIDAR_HEIGHT))
    owner = np.full(grid.size, -1, np.int32)  # 0 to 3: ground; from 4 on: shapes
    _lay_ground(owner, grid, place, pose)
    fine = is_fine(grid)
    for index, shape in enumerate(place.shapes):
        if fine or not shape.detail:
            _put(owner, grid, shape, frame, pose, index + len(_KINDS))
    stand = grid.index_of(cameras)
    owner[tuple(stand[grid.inside(stand)].T)] = -1
    labels_of = np.array([*(_LABEL[kind] for kind in _KINDS), *(_LABEL[shape.label] for shape in place.shapes), EMPTY], np.uint8)
    return Snapshot(grid, labels_of[owner], _painted(owner, grid, place, pose))


def is_fine(grid: Grid) -> bool:
    """Whether details are shown: on voxels of at most a metre."""
    return bool(grid.voxel_size.max() <= _FINE)


def _lay_ground(owner: NDArray[np.int32], grid: Grid, place: Street, pose: _Pose) -> None:
    layer = int(np.floor((-LIDAR_HEIGHT - grid.low[2]) / grid.voxel_size[2]))
    if not 0 <= layer < grid.size[2]:
        return
    columns = np.stack(np.meshgrid(np.arange(grid.size[0]), np.arange(grid.size[1]), indexing="ij"), axis=-1).reshape(-1, 2)
    index = np.concatenate([columns, np.full((len(columns), 1), layer)], axis=1)
    x, y, _ = pose.world(grid.centres(index)).T
    aside, crossing = np.abs(x), place.crossing(y)
    in_park = np.array([(-1 if low else 1, int(plot)) in place.parks for low, plot in zip(x < 0, y // PLOT, strict=True)])
    kinds = np.select(
        [
            (aside < ROAD) | (crossing < CROSSING_HALF), aside < PARKING, (aside < PAVEMENT) | (crossing < CROSSING_HALF + 3),
            in_park | (aside > YARDS),
        ],
        [0, 1, 2, 3], 2,
    )  # fmt: skip
    owner[:, :, layer] = kinds.reshape(grid.size[:2])


def _put(owner: NDArray[np.int32], grid: Grid, shape: Shape, frame: int, pose: _Pose, mark: int) -> None:
    least = grid.voxel_size / 2
    middle = pose.lidar(shape.at(frame))
    thin = np.array(shape.half) <= least
    middle = np.where(thin, grid.centres(grid.index_of(middle[None]))[0], middle)
    reach = shape.reach(float(max(least[:2])))
    extent = np.array([reach, reach, max(shape.half[2], float(least[2]))])
    first = np.maximum(grid.index_of((middle - extent)[None])[0], 0)
    last = np.minimum(grid.index_of((middle + extent)[None])[0] + 1, grid.size)
    if (first >= last).any():
        return
    block = tuple(slice(int(low), int(high)) for low, high in zip(first, last, strict=True))
    index = np.stack(np.meshgrid(*(np.arange(part.start, part.stop) for part in block), indexing="ij"), axis=-1)
    inside = shape.covers(pose.world(grid.centres(index.reshape(-1, 3))), pose.world(middle[None])[0], least)
    owner[block][inside.reshape(index.shape[:3])] = mark


def _painted(owner: NDArray[np.int32], grid: Grid, place: Street, pose: _Pose) -> NDArray[np.uint8]:
    """(X, Y, Z, 3) colours: the owner's, with windows, road markings, and a grain that stays where it is while the ego passes."""
    index = np.argwhere(owner >= 0)
    mine = owner[tuple(index.T)]
    points = pose.world(grid.centres(index))
    base = np.array([*_GROUND.values(), *(shape.colour for shape in place.shapes)], np.float64)[mine]
    windows = np.array([*(False for _ in _KINDS), *(shape.windows for shape in place.shapes)])[mine]
    if is_fine(grid):
        base[windows & _is_glass(points)] = _GLASS
        base[(mine == 0) & _is_marked(points, place)] = _WHITE
    base *= 1 + _ROUGH * (_grain(points) - 0.5)[:, None]
    colours = np.zeros((*grid.size, 3), np.uint8)
    colours[tuple(index.T)] = np.clip(np.rint(base), 0, 255)
    return colours


def _is_glass(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    height, along = points[:, 2] % _STOREY, (points[:, 0] + points[:, 1]) % 3.0
    return np.asarray((height > 0.8) & (height < 1.85) & (along < 1.6))


def _is_marked(points: NDArray[np.float64], place: Street) -> NDArray[np.bool_]:
    x, y, _ = points.T
    crossing = place.crossing(y)
    between = crossing > CROSSING_HALF + 3
    centre_line = between & (np.abs(x) < 0.26)
    dashes = between & (np.abs(np.abs(x) - LANE) < 0.26) & (y % 6 < 3)
    zebra = (crossing > CROSSING_HALF) & (crossing < CROSSING_HALF + 2.5) & (np.abs(x) < ROAD) & (x % 2 < 1)
    return np.asarray(centre_line | dashes | zebra)


def _grain(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) in [0, 1): a hash of the place in the world."""
    x, y, z = np.floor(points / _TEXTURE).astype(np.int64).astype(np.uint64).T
    mixed = x * np.uint64(0x9E3779B97F4A7C15) ^ y * np.uint64(0xC2B2AE3D27D4EB4F) ^ z * np.uint64(0x165667B19E3779F9)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    grain: NDArray[np.float64] = (mixed >> np.uint64(40)).astype(np.float64) / 2**24
    return grain
