"""A grid of voxels in the LiDAR frame: from indices to metres and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError

NUSCENES_RANGE = (-50.0, -50.0, -5.0, 50.0, 50.0, 3.0)


@dataclass(frozen=True)
class Grid:
    """`size` voxels (X, Y, Z) over `pc_range`: x, y, z from, then x, y, z to, LiDAR metres (x right, y forward, z up)."""

    size: tuple[int, int, int]
    pc_range: tuple[float, float, float, float, float, float] = NUSCENES_RANGE

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise FrameError("grid", expected="at least one voxel along X, Y and Z", got=str(list(self.size)))
        if not all(low < high for low, high in zip(self.pc_range[:3], self.pc_range[3:], strict=True)):
            raise FrameError("range of the grid", expected="x, y, z from, then x, y, z to, each larger", got=str(list(self.pc_range)))

    @property
    def low(self) -> NDArray[np.float64]:
        """(3,) float64: the corner of voxel (0, 0, 0), metres."""
        return np.array(self.pc_range[:3], np.float64)

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """(3,) float64: the edges of a voxel along x, y, z, metres."""
        edges: NDArray[np.float64] = (np.array(self.pc_range[3:], np.float64) - self.low) / np.array(self.size)
        return edges

    def centres(self, index: NDArray[np.integer]) -> NDArray[np.float64]:
        """Voxel indices (n, 3), x, y, z → their centres (n, 3) float64, metres: low + (i + 0.5) * extent / N."""
        extent = np.array(self.pc_range[3:], np.float64) - self.low
        centres: NDArray[np.float64] = self.low + (np.asarray(index, np.float64) + 0.5) * extent / np.array(self.size)
        return centres

    def index_of(self, points: NDArray[np.floating]) -> NDArray[np.int64]:
        """Points (n, 3), metres → indices (n, 3) int64 of the voxels that hold them; outside the grid they are < 0 or >= size."""
        return np.floor((np.asarray(points, np.float64) - self.low) / self.voxel_size).astype(np.int64)

    def inside(self, index: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(n, 3) → (n,) bool: whether the grid has such a voxel."""
        within: NDArray[np.bool_] = np.all((index >= 0) & (index < np.array(self.size)), axis=1)
        return within
