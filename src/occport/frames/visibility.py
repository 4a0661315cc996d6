"""Which voxel each camera sees, by brute force in numpy.

It shares nothing with `model/projection.py`: the tables of the network and their `dropped` counts are checked against it.
Letters: N cameras, V voxels, flat voxel order (z, h, w); H x W is the padded image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .rig import turned

_NEAR = 1e-5  # metres; what is not farther away is behind the camera
_CHUNK = 4096  # voxels at a time: the intermediate values of six cameras then stay in the cache
_ROUND_TO = 64
_SPARE_CAMERAS = 1


def voxel_centres(volume_hwz: tuple[int, int, int], pc_range: Sequence[float]) -> NDArray[np.float32]:
    """Centres of all voxels in the LiDAR frame.

    Args:
        volume_hwz: (h, w, z) voxel counts along y, x and z.
        pc_range: x, y, z minimum, then maximum, metres.
    Returns:
        (V, 3) float32, (x, y, z) metres; voxel (z, h, w) stands at index (z*H + h)*W + w. The centre of cell i of n is
        (i + 0.5) / n of the extent, computed in float64.
    """
    h, w, z = volume_hwz
    x_min, y_min, z_min, x_max, y_max, z_max = (float(value) for value in pc_range)
    xs = x_min + (np.arange(w) + 0.5) / w * (x_max - x_min)
    ys = y_min + (np.arange(h) + 0.5) / h * (y_max - y_min)
    zs = z_min + (np.arange(z) + 0.5) / z * (z_max - z_min)
    centres = np.empty((z, h, w, 3), np.float64)
    centres[..., 0] = xs
    centres[..., 1] = ys[:, None]
    centres[..., 2] = zs[:, None, None]
    return centres.reshape(-1, 3).astype(np.float32)  # (z, h, w, 3) → (V, 3)


def hits(
    lidar2img: NDArray[np.floating[Any]], image_hw: tuple[int, int], points: NDArray[np.floating[Any]], dtype: DTypeLike = np.float64
) -> NDArray[np.bool_]:
    """Whether camera n sees point v: farther than 1e-5 m, and strictly inside the padded image.

    Args:
        lidar2img: (N, 4, 4), LiDAR metres → pixels.
        image_hw: (H, W) of the padded image: the original counts points on padded rows as visible.
        points: (V, 3) metres.
        dtype: what to compute in.
    Returns:
        (N, V) bool.
    """
    height, width = image_hw
    rows = np.asarray(lidar2img, dtype)[:, :3]
    homogeneous = np.ones((4, len(points)), dtype)
    homogeneous[:3] = points.T
    column, row, depth = np.moveaxis(rows @ homogeneous, 1, 0)  # (N, 3, V) → three times (N, V)
    divisor = np.maximum(depth, np.asarray(_NEAR, dtype))
    u = column / divisor / width
    v = row / divisor / height
    seen: NDArray[np.bool_] = (depth > _NEAR) & (u > 0) & (u < 1) & (v > 0) & (v < 1)
    return seen


def needs(hit: NDArray[np.bool_]) -> tuple[int, int]:
    """(N, V) bool → the largest number of voxels that one camera sees, the largest number of cameras that see one voxel."""
    if hit.size == 0:
        return 0, 0
    return int(np.count_nonzero(hit, axis=1).max()), int(np.count_nonzero(hit, axis=0).max())


def budget_for(
    lidar2img: NDArray[np.float64], image_hw: tuple[int, int], points: NDArray[np.float32], step_degrees: float = 5
) -> tuple[int, int]:
    """Static room for one level: slots of a camera, cameras of a voxel.

    The largest need over the rig turned through 360 degrees: + 10 %, rounded up to 64, within 1..V, for the slots; + 1, within
    1..N, for the cameras. Turning matters, since voxels are a square grid and another calibration meets it at another angle.

    Args:
        lidar2img: (N, 4, 4) float64, LiDAR metres → pixels.
        image_hw: (H, W) of the padded image.
        points: (V, 3) float32 metres.
        step_degrees: between one tried turn and the next.
    """
    num_cameras, num_points = len(lidar2img), len(points)
    turns = [_edges(turned(lidar2img, degrees), image_hw) for degrees in np.arange(0.0, 360.0, step_degrees)]
    seen = np.zeros((len(turns), num_cameras), np.int64)
    most_cameras = 0
    for start in range(0, num_points, _CHUNK):
        chunk = points[start : start + _CHUNK]
        homogeneous = np.ones((4, len(chunk)), np.float32)
        homogeneous[:3] = chunk.T
        for number, edges in enumerate(turns):
            # (4N, C) → (N, 4, C): a camera sees what lies on the inner side of its four edges.
            hit = (edges @ homogeneous).reshape(num_cameras, 4, -1).min(axis=1) > 0
            seen[number] += np.count_nonzero(hit, axis=1)
            most_cameras = max(most_cameras, int(hit.sum(axis=0, dtype=np.uint8).max()))
    most = int(seen.max())
    slots = math.ceil(most * 11 / (10 * _ROUND_TO)) * _ROUND_TO
    return max(1, min(slots, num_points)), max(1, min(most_cameras + _SPARE_CAMERAS, num_cameras))


def _edges(lidar2img: NDArray[np.float64], image_hw: tuple[int, int]) -> NDArray[np.float32]:
    """(N, 4, 4) → (4N, 4): the visibility conditions as linear functions of (x, y, z, 1) that are positive inside.

    0 < column/depth/W < 1 with positive depth is column/W > 0 and depth - column/W > 0 (their sum is the depth); rows alike.
    The 1e-5 m are left out, and float32 moves a few border voxels: the 10 % are there for more than that.
    """
    height, width = image_hw
    column, row, depth = lidar2img[:, 0] / width, lidar2img[:, 1] / height, lidar2img[:, 2]
    return np.stack([column, depth - column, row, depth - row], axis=1).reshape(-1, 4).astype(np.float32)


def overflow(hit: NDArray[np.bool_], slots: int, cameras: int) -> int:
    """How many (camera, voxel) pairs a budget drops.

    A camera takes its visible voxels in ascending order and keeps the first `slots`; of the cameras that kept it, a voxel keeps
    the first `cameras` in ascending order. What is visible and not kept is dropped.

    Args:
        hit: (N, V) bool.
        slots, cameras: the budget.
    """
    by_camera = hit & (np.cumsum(hit, axis=1) <= slots)
    kept = by_camera & (np.cumsum(by_camera, axis=0) <= cameras)
    return int(np.count_nonzero(hit) - np.count_nonzero(kept))


def unseen_report(hit: NDArray[np.bool_], camera_names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the cameras that see no voxel at all. hit: (N, V) bool."""
    return tuple(camera_names[camera] for camera in np.flatnonzero(~hit.any(axis=1)))
