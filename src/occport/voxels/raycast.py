"""Rays through a grid of voxels: which solid voxel each meets first, through which face, and how far away. Exact, vectorised over rays.

A ray goes from plane to plane of the grid, as in the traversal of Amanatides and Woo (1987), but across a whole block of voxels at once
where they are known to be empty (`skipping.py`). Where a ray leaves a block, and through which plane, is computed by the same slab
arithmetic as for a single voxel, in float64; so the result is the same. A ray through an edge passes a voxel beside the edge first: it
never slips between two solid voxels that share one.

Rays are sorted by octant, and each octant's axes are turned so that its rays run towards larger numbers along all three.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from .grid import Grid
from .skipping import HEIGHT, blocks

MISS = -1
# how bright a face is, entered through -x, +x, -y, +y, -z, +z: a soft light from above, so that edges show
FACE_LIGHT = (0.80, 0.80, 0.90, 0.90, 0.55, 1.00)
_CHUNK = 1 << 14  # rays at a time: their state stays in the cache


class Hits(NamedTuple):
    """What n rays met.

    Fields:
        voxel: (n,) int64, flat index in C order of (X, Y, Z), or -1 for a miss.
        face: (n,) int8, 0..5: entered through the side towards -x, +x, -y, +y, -z, +z; of a ray that starts inside a solid voxel the
            side through which its direction's largest component, counted in voxels, would have come in. -1 for a miss.
        distance: (n,) float32, in units of the direction's length; 0 for a start inside, inf for a miss.
    """

    voxel: NDArray[np.int64]
    face: NDArray[np.int8]
    distance: NDArray[np.float32]


class Caster:
    """A grid that rays can be sent through.

    Args:
        solid: (X, Y, Z) bool.
        grid: where its voxels are.
    Errors: FrameError where `solid` has another shape than the grid.
    """

    def __init__(self, solid: NDArray[np.bool_], grid: Grid) -> None:
        if solid.shape != grid.size:
            raise FrameError("volume to look at", expected=f"shape {grid.size}", got=str(solid.shape))
        self._grid = grid
        self._blocks = blocks(np.asarray(solid, np.bool_)).reshape(2, -1)

    def cast(self, origin: NDArray[np.floating], directions: NDArray[np.floating]) -> Hits:
        """Sends rays from one point.

        A ray that starts on a plane of the grid starts in the voxel that it goes into; one that runs along a plane, in the voxel above.

        Args:
            origin: (3,), metres.
            directions: (n, 3), metres, of any length; those that are all zeros or not finite miss.
        """
        count = len(directions)
        hits = Hits(np.full(count, MISS, np.int64), np.full(count, MISS, np.int8), np.full(count, np.inf, np.float32))
        start = (np.asarray(origin, np.float64) - self._grid.low) / self._grid.voxel_size
        pieces = [slice(first, first + _CHUNK) for first in range(0, count, _CHUNK)]

        def work(piece: slice) -> None:
            ways = np.asarray(directions[piece], np.float64).T / self._grid.voxel_size[:, None]  # (3, m), in voxels
            octants = (ways < 0).T @ np.array([1, 2, 4], np.uint8)
            longest = np.abs(ways, out=ways).max(axis=0)
            fit = (longest > 0) & (longest < np.inf)  # False for nan too
            part = Hits(hits.voxel[piece], hits.face[piece], hits.distance[piece])
            for octant in np.flatnonzero(np.bincount(octants, minlength=8)):
                rays = np.flatnonzero((octants == octant) & fit)
                bundle = _Bundle(self._blocks, self._grid.size, start, int(octant))
                with np.errstate(all="ignore"):  # zeros in a direction make infinities, which are compared as such
                    bundle.cast(rays, ways[:, rays], part)

        with ThreadPoolExecutor(min(len(pieces), os.cpu_count() or 1) or 1) as pool:  # numpy lets go of the interpreter meanwhile
            list(pool.map(work, pieces))
        return hits


class _Bundle:
    """Rays of one octant. Along an axis on which they run towards smaller numbers, voxels and planes are counted from the other end.

    Args:
        blocks: (2, V) uint16, of `skipping.blocks`.
        size: (X, Y, Z).
        start: (3,) float64, in voxels.
        octant: sum of 1, 2 and 4 for the axes x, y and z that are turned.
    """

    def __init__(self, blocks: NDArray[np.uint16], size: tuple[int, int, int], start: NDArray[np.float64], octant: int) -> None:
        self._size, self._blocks = size, blocks[octant >> 2]
        self._turned = [bool(octant >> axis & 1) for axis in range(3)]
        self._start = [float(size[axis] - start[axis] if self._turned[axis] else start[axis]) for axis in range(3)]
        strides = [size[1] * size[2], size[2], 1]
        self._first = sum((size[axis] - 1) * strides[axis] for axis in range(3) if self._turned[axis])
        self._strides = [-stride if turned else stride for stride, turned in zip(strides, self._turned, strict=True)]

    def cast(self, rays: NDArray[np.int64], ways: NDArray[np.float64], hits: Hits) -> None:
        """Fills `hits` at `rays` (m,). ways: (3, m) float64, at least 0, in voxels."""
        start, size = self._start, self._size
        per_plane = 1.0 / ways
        # A way of 0 gives infinities of the right sign: always or never between the planes. On the plane itself it gives nan, which
        # counts as inside for the lower one and as outside for the upper one.
        near = [(0 - start[axis]) * per_plane[axis] for axis in range(3)]
        far = np.minimum(
            np.minimum((size[0] - start[0]) * per_plane[0], (size[1] - start[1]) * per_plane[1]), (size[2] - start[2]) * per_plane[2]
        )
        entry = np.fmax(np.fmax(near[0], near[1]), near[2])
        distance = np.maximum(entry, 0.0)
        here = [np.clip((start[axis] + distance * ways[axis]), 0, size[axis] - 1).astype(np.int32) for axis in range(3)]
        side = np.where(near[2] == entry, 2, np.where(near[1] == entry, 1, 0)).astype(np.int8)
        outside = entry >= 0
        for axis in range(3):  # on entering, the voxel along that axis is known, whatever the rounding
            here[axis][outside & (side == axis)] = 0
        side = np.where(outside, side, ways.argmax(axis=0)).astype(np.int8)
        keep = np.flatnonzero(distance < far)
        state = np.concatenate([ways, per_plane, far[None]])[:, keep]
        self._march(rays[keep], state, np.stack(here)[:, keep], side[keep], distance[keep], hits)

    def _march(
        self, rays: NDArray[np.int64], state: NDArray[np.float64], here: NDArray[np.int32], side: NDArray[np.int8],
        distance: NDArray[np.float64], hits: Hits,
    ) -> None:  # fmt: skip
        """From block to block, until all m rays have met a solid voxel or left the grid.

        Args:
            state: (7, m): ways, their inverses, and the distance at which the grid ends.
            here: (3, m), the voxel that each ray is in.
            side: (m,), the axis of the plane through which it came there.
            distance: (m,) of that plane.
        """
        start, strides = self._start, self._strides
        faces = np.array([2 * axis + turned for axis, turned in enumerate(self._turned)], np.int8)
        while len(rays):
            flat = here[0] * strides[0] + here[1] * strides[1] + here[2] * strides[2] + self._first
            block = self._blocks[flat]
            met = np.flatnonzero(block == 0)
            if len(met):
                place = rays[met]
                hits.voxel[place] = flat[met]
                hits.face[place] = faces[side[met]]
                hits.distance[place] = distance[met]
            reach = block % HEIGHT
            planes = [here[0] + reach, here[1] + reach, here[2] + block // HEIGHT]
            for axis in range(3):  # blocks reach out of the grid; where rays leave it must not depend on rounding
                np.minimum(planes[axis], self._size[axis], out=planes[axis])
            at = [(planes[axis] - start[axis]) * state[3 + axis] for axis in range(3)]
            level = np.minimum(at[0], at[1])
            distance = np.minimum(level, at[2])
            # A hit's block is empty: it would stand still for ever.
            going = np.flatnonzero((distance < state[6]) & (block != 0))
            side = np.where(at[2] < level, np.int8(2), (at[1] < at[0]).view(np.int8))
            if len(going) < len(rays):
                rays, distance, side = rays[going], distance[going], side[going]
                state, here = state.take(going, axis=1), here.take(going, axis=1)
                planes = [each[going] for each in planes]
            for axis in range(3):
                # Still in the block and never back, whatever the rounding.
                moved = (start[axis] + distance * state[axis]).astype(np.int32)
                np.maximum(moved, here[axis], out=moved)
                np.minimum(moved, planes[axis] - 1, out=moved)
                np.copyto(moved, planes[axis], where=side == axis)
                here[axis] = moved


def camera_rays(lidar2img: NDArray[np.float64], height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rays through the centres of a camera's pixels.

    Args:
        lidar2img: (4, 4), LiDAR metres → (column * depth, row * depth, depth, 1).
        height, width: of the image; pixel (row r, column c) covers [c, c + 1) x [r, r + 1) and its ray goes through (c + 0.5, r + 0.5).
    Returns:
        origin (3,) and directions (height * width, 3) float64, row-major; a ray's length is one metre of depth.
    """
    inverse = np.asarray(np.linalg.inv(lidar2img[:3, :3]), np.float64)
    origin: NDArray[np.float64] = -inverse @ lidar2img[:3, 3]
    columns = (np.arange(width) + 0.5)[:, None] * inverse[:, 0]  # (width, 3)
    rows = (np.arange(height) + 0.5)[:, None] * inverse[:, 1] + inverse[:, 2]  # (height, 3)
    directions: NDArray[np.float64] = (rows[:, None] + columns).reshape(-1, 3)
    return origin, directions


def render(hits: Hits, colours: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of n rays.

    Args:
        hits: of the rays.
        colours: (V, 3) or (X, Y, Z, 3) uint8, of the voxels.
        background: (n, 3) or (3,) uint8, for the rays that miss.
    Returns:
        (n, 3) uint8: round(colour * FACE_LIGHT[face]).
    """
    image = np.broadcast_to(background, (len(hits.voxel), 3)).astype(np.uint8)
    met = hits.voxel >= 0
    light = np.array(FACE_LIGHT)[hits.face[met]]
    image[met] = np.rint(colours.reshape(-1, 3)[hits.voxel[met]] * light[:, None])
    return image
