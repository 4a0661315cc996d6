"""A labelled volume in perspective, by casting rays: no display, no GPU.

Each pixel is the mean of SAMPLES x SAMPLES rays. A voxel has its class's colour, darkened by the side that is seen (`FACES`), in
corners and shadows (`light.py`), and along its edges. A grey car stands where the rig is, on a floor with lines every
10 metres; both are drawn, not predicted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..voxels.classes import EMPTY, IGNORE, colours
from ..voxels.occupancy import Occupancy
from ..voxels.raycast import Caster, Hits, camera_rays
from .light import Light
from .viewpoint import from_behind

SAMPLES = 2  # a side of a pixel
FACES = (0.88, 0.78, 0.90, 0.82, 0.55, 1.0)  # brightness of a side that is entered through -x, +x, -y, +y, -z, +z
PAPER = (255, 255, 255)
_FLOOR, _LINE, _LINE_EVERY, _LINE_WIDTH = (240.0, 242.0, 245.0), (214.0, 218.0, 224.0), 10.0, 0.12  # colours; metres
# The car that carries the rig: body and cabin. From x, y, z to x, y, z, metres, as a LiDAR on a car's roof sees it; then R, G, B.
EGO = (
    ((-0.95, -2.0, -1.8), (0.95, 2.4, -0.9), (52.0, 58.0, 66.0)),
    ((-0.8, -1.6, -0.9), (0.8, 1.1, -0.3), (92.0, 100.0, 110.0)),
)
_EDGE_WIDTH, _EDGE_STRENGTH = 0.07, 0.30  # of a voxel's edge; how much darker
_BAND = 1 << 19  # rays at a time, so that memory does not grow with the picture


def perspective(occupancy: Occupancy, height: int, width: int) -> NDArray[np.uint8]:
    """The volume from behind and above, looking forward.

    Args:
        occupancy: unknown voxels (255) count as empty.
        height, width: of the picture, pixels.
    Returns:
        (height, width, 3) uint8, R, G, B, on white paper.
    """
    solid = (occupancy.labels != EMPTY) & (occupancy.labels != IGNORE)
    caster, light = Caster(solid, occupancy.grid), Light(solid)
    fine_height, fine_width = height * SAMPLES, width * SAMPLES
    lidar2img = from_behind(occupancy.grid, fine_height, fine_width)
    picture = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND // (fine_width * SAMPLES))  # of the picture, in one band
    for begin in range(0, height, rows):
        count = min(rows, height - begin)
        band = lidar2img.copy()
        band[1] -= begin * SAMPLES * band[2]  # the band's first row becomes row 0
        origin, directions = camera_rays(band, count * SAMPLES, fine_width)
        seen = _Look(occupancy, light, origin, directions, lidar2img).colours(caster.cast(origin, directions))
        blocks = seen.reshape(count, SAMPLES, width, SAMPLES, 3)  # (rays, 3) → (row, sample, column, sample, channel)
        picture[begin : begin + count] = np.rint(blocks.mean(axis=(1, 3)))
    return picture


class _Look:
    """What a bundle of rays from one point sees.

    Args:
        origin (3,), directions (n, 3): metres; a direction's length is one metre of depth.
        lidar2img: (4, 4) of the camera, for the size of a sample.
    """

    def __init__(
        self, occupancy: Occupancy, light: Light, origin: NDArray[np.float64], directions: NDArray[np.float64],
        lidar2img: NDArray[np.float64],
    ) -> None:  # fmt: skip
        self._occupancy, self._light = occupancy, light
        self._origin, self._directions = origin, directions
        self._focal = float(np.linalg.norm(lidar2img[0, :3] - (lidar2img[0, :3] @ lidar2img[2, :3]) * lidar2img[2, :3]))  # pixels

    def colours(self, hits: Hits) -> NDArray[np.float32]:
        """(n, 3) float32, R, G, B from 0 to 255: the nearest of voxel, car, floor; else paper."""
        picture = np.full(self._directions.shape, PAPER, np.float32)
        self._draw_floor(picture)
        hit = np.flatnonzero(hits.voxel >= 0)
        picture[hit] = self._voxels(hit, hits)
        self._draw_ego(picture, hits.distance.astype(np.float64))
        return picture

    def _voxels(self, hit: NDArray[np.intp], hits: Hits) -> NDArray[np.float32]:
        """(m, 3) colours of the rays `hit` (m,), which meet a voxel."""
        grid = self._occupancy.grid
        depth, face = hits.distance[hit].astype(np.float64), hits.face[hit]
        axis = face // 2
        points = self._origin + depth[:, None] * self._directions[hit]
        place = (points - grid.low) / grid.voxel_size  # in voxels
        index = np.stack(np.unravel_index(hits.voxel[hit], grid.size), axis=1)
        outward = np.where(face % 2 == 1, 1.0, -1.0)
        light = np.array(FACES, np.float32)[face] * self._light.on_faces(place, axis, outward)
        light *= 1 - _EDGE_STRENGTH * self._edges(place - index, axis, depth)
        plain = colours(self._occupancy.class_names)[self._occupancy.labels.ravel()[hits.voxel[hit]]].astype(np.float32)
        shaded: NDArray[np.float32] = plain * light[:, None]
        return shaded

    def _edges(self, within: NDArray[np.float64], axis: NDArray[np.integer], depth: NDArray[np.float64]) -> NDArray[np.float64]:
        """(m,) 0 to 1: how much a sample lies on the rim of its face. Where voxels are smaller than a few samples the rim fades away."""
        rim = np.minimum(within, 1 - within)
        rim[np.arange(len(rim)), axis] = 1.0  # the side itself is no rim
        sample = depth / self._focal / float(self._occupancy.grid.voxel_size.min())  # a sample's width, in voxels
        width = np.maximum(_EDGE_WIDTH, sample)
        faded = np.minimum(1.0, _EDGE_WIDTH / sample)
        return np.where(rim.min(axis=1) < width, faded, 0.0)

    def _draw_floor(self, picture: NDArray[np.float32]) -> None:
        """The bottom of the grid, where a ray meets it from above."""
        x_low, y_low, floor, x_high, y_high, _ = self._occupancy.grid.pc_range
        down = self._directions[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (floor - self._origin[2]) / down
            x, y = (self._origin[i] + depth * self._directions[:, i] for i in (0, 1))
            meets = (depth > 0) & (x >= x_low) & (x <= x_high) & (y >= y_low) & (y <= y_high)
        picture[meets] = _FLOOR
        for place in (x[meets], y[meets]):
            width = np.maximum(_LINE_WIDTH, depth[meets] / self._focal)
            line = np.abs(place - np.rint(place / _LINE_EVERY) * _LINE_EVERY) < width
            picture[np.flatnonzero(meets)[line]] = _LINE

    def _draw_ego(self, picture: NDArray[np.float32], nearest: NDArray[np.float64]) -> None:
        """The car, where it is nearer than `nearest` (n,)."""
        low, high = np.min([box[0] for box in EGO], axis=0), np.max([box[1] for box in EGO], axis=0)
        near = _through(self._origin, self._directions, low, high)[0] < nearest
        rays, ways = np.flatnonzero(near), self._directions[near]
        for low, high, colour in EGO:
            depth, axis = _through(self._origin, ways, np.array(low), np.array(high))
            met = depth < nearest[rays]
            face = 2 * axis[met] + (ways[met, axis[met]] < 0)
            picture[rays[met]] = np.array(colour, np.float32) * np.array(FACES, np.float32)[face][:, None]
            nearest[rays[met]] = depth[met]


def _through(
    origin: NDArray[np.float64], ways: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Where rays enter a box in front of them, by the slab method: depth (n,), inf for a miss, and the axis (n,) of the side."""
    depth, leaves = np.full(len(ways), -np.inf), np.full(len(ways), np.inf)
    axis = np.zeros(len(ways), np.intp)
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(3):
            first, second = (low[i] - origin[i]) / ways[:, i], (high[i] - origin[i]) / ways[:, i]
            enters = np.minimum(first, second)
            axis[enters > depth] = i
            np.fmax(depth, enters, out=depth)
            np.fmin(leaves, np.maximum(first, second), out=leaves)
    return np.where((depth > 0) & (depth <= leaves), depth, np.inf), axis
