"""Frames of the synthetic city: what every command takes where no frame is given."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..frames.frame import Frame
from ..frames.pinhole import place_of
from ..frames.rig import nuscenes_like_rig
from ..voxels.grid import Grid
from .photograph import photographs
from .snapshot import Snapshot, snapshot


@lru_cache(maxsize=2)
def city_frame(seed: int, number: int, num_cameras: int, image_size: tuple[int, int], grid: Grid) -> tuple[Frame, Snapshot]:
    """Frame `number` of the city with seed `seed`, and what is there. Kept for the next call, and therefore read-only.

    Args:
        num_cameras: N, 1 to 8, of a nuScenes-like rig.
        image_size: (H, W), pixels.
        grid: of the ground truth; the images show its voxels.
    Errors: FrameError as `rig.nuscenes_like_rig`.
    """
    names, rig = nuscenes_like_rig(num_cameras, *image_size)
    scene = snapshot(seed, number, grid, _places(rig))
    images = photographs(scene, rig, *image_size)
    for array in (images, rig, scene.labels, scene.colours):
        array.setflags(write=False)
    described = f"synthetic: frame {number} of a made-up city (seed {seed}), {num_cameras} cameras of a nuScenes-like rig"
    return Frame(f"city_{seed}_{number:06d}", names, images, rig, described), scene


def default_frame(num_cameras: int, image_size: tuple[int, int], grid: Grid, seed: int) -> Frame:
    """The frame "synthetic": the first one of the city. Arguments and errors as in `city_frame`."""
    frame, _ = city_frame(seed, 0, num_cameras, image_size, grid)
    return Frame("synthetic", frame.camera_names, frame.images, frame.lidar2img, frame.described)


def _places(rig: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4, 4) → (N, 3), where the cameras stand."""
    return np.stack([place_of(matrix) for matrix in rig])
