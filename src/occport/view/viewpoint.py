"""Where a picture's camera stands: behind and above the grid, looking forward, as near as the grid fits into the picture."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..voxels.grid import Grid

_HALF_VIEW = math.tan(math.radians(22.0))  # half the horizontal angle: far enough away that near voxels do not tower
_PITCH = (12.0, 68.0)  # degrees downwards, the flattest and the steepest look
_MARGIN = 0.985  # of the picture that the grid takes


def from_behind(grid: Grid, height: int, width: int) -> NDArray[np.float64]:
    """The projection of a level camera behind the grid that sees all of it.

    It looks down at the angle at which the grid's outline has the picture's proportions, so that no room is wasted; within limits.

    Args:
        grid: x right, y forward, z up, metres.
        height, width: of the picture, pixels.
    Returns:
        lidar2img (4, 4) float64: homogeneous LiDAR metres → pixels times depth.
    """
    low, high = grid.low, np.array(grid.pc_range[3:], np.float64)
    centre = (low + high) / 2
    corners = np.array([(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]) - centre
    flat, steep = _PITCH
    for _ in range(30):  # the steeper, the taller the outline
        pitch = (flat + steep) / 2
        _, bottom, top = _outline(corners, pitch)
        if (top - bottom) * width > 2 * _HALF_VIEW * height:
            steep = pitch
        else:
            flat = pitch
    away, bottom, top = _outline(corners, flat)
    focal = _MARGIN * min(width / (2 * _HALF_VIEW), height / (top - bottom))
    axes = _axes(flat)
    pose = np.eye(4)
    pose[:3, :3] = axes
    pose[:3, 3] = -axes @ (centre - away * axes[2])
    intrinsic = np.eye(4)
    intrinsic[0, :3] = focal, 0.0, width / 2
    intrinsic[1, :3] = 0.0, focal, height / 2 + focal * (top + bottom) / 2
    lidar2img: NDArray[np.float64] = intrinsic @ pose
    return lidar2img


def _axes(pitch: float) -> NDArray[np.float64]:
    """(3, 3): rows are the camera's right, down and forward in the LiDAR frame."""
    sine, cosine = math.sin(math.radians(pitch)), math.cos(math.radians(pitch))
    return np.array([[1.0, 0.0, 0.0], [0.0, -sine, -cosine], [0.0, cosine, -sine]])


def _outline(corners: NDArray[np.float64], pitch: float) -> tuple[float, float, float]:
    """Distance from the centre at which the corners (8, 3) just fit the width; then their lowest and highest slope upwards."""
    right, down, forward = _axes(pitch) @ corners.T
    away = float(np.max(np.abs(right) / _HALF_VIEW - forward))
    slopes = -down / (away + forward)
    return away, float(slopes.min()), float(slopes.max())
