"""Camera images of a snapshot. Exact: a pixel has the colour of the voxel that the ray through its centre meets first, or the sky's.

The colour is round(voxel's colour * light of the face), as `voxels.raycast.render` says; there is no haze, blur or shadow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..voxels.classes import EMPTY
from ..voxels.raycast import MISS, Caster, camera_rays, render
from .snapshot import Snapshot

_ZENITH, _HORIZON, _FAR_GROUND = (92.0, 146.0, 214.0), (222.0, 230.0, 236.0), (134.0, 138.0, 126.0)  # R, G, B


def photographs(scene: Snapshot, lidar2img: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """What the cameras of a rig see.

    Args:
        lidar2img: (N, 4, 4), LiDAR metres → pixels times depth.
        height, width: of an image, pixels.
    Returns:
        (N, height, width, 3) uint8, B, G, R.
    """
    caster = Caster(scene.labels != EMPTY, scene.grid)
    images = np.empty((len(lidar2img), height, width, 3), np.uint8)
    for image, matrix in zip(images, lidar2img, strict=True):
        origin, directions = camera_rays(matrix, height, width)
        hits = caster.cast(origin, directions)
        behind = np.zeros(directions.shape, np.uint8)
        missed = hits.voxel == MISS
        behind[missed] = _background(directions[missed])
        image[:] = render(hits, scene.colours, behind).reshape(height, width, 3)[:, :, ::-1]
    return images


def _background(directions: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(n, 3) → (n, 3) uint8, R, G, B: a sky that is deeper above, and hazy ground below the horizon."""
    rise = directions[:, 2] / np.linalg.norm(directions, axis=1)
    up = np.clip(rise / 0.5, 0, 1)[:, None] ** 0.7
    down = np.clip(-rise / 0.08, 0, 1)[:, None]
    sky = np.array(_HORIZON) * (1 - up) + np.array(_ZENITH) * up
    ground = np.array(_HORIZON) * (1 - down) + np.array(_FAR_GROUND) * down
    return np.asarray(np.rint(np.where(rise[:, None] > 0, sky, ground)), np.uint8)
