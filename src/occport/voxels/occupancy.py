"""What the network says about one frame: a label for every voxel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .classes import EMPTY, IGNORE
from .files import save_occupancy
from .grid import Grid

POINT_THRESHOLD = 0.5  # of a probability without semantics: upstream's point clouds; its metric takes 0.25


@dataclass(frozen=True, eq=False)
class Occupancy:
    """A labelled volume.

    Attributes:
        name: the frame's.
        labels: (X, Y, Z) uint8: 0 = empty, i = class_names[i - 1], 255 = unknown (ground truth only).
        class_names: of labels 1, 2, …; ("occupied",) without semantics.
        grid: where the voxels are.
        probabilities: (X, Y, Z) float32 of being occupied, of a network without semantics; else None. Labels are then 1 where it
            is above 0.5, as in upstream's point clouds.
        notes: lines about what makes the labels doubtful, such as voxels that found no room in an exported file's budget.
    """

    name: str
    labels: NDArray[np.uint8]
    class_names: tuple[str, ...]
    grid: Grid
    probabilities: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()

    def points(self) -> NDArray[np.float32]:
        """Occupied voxels as upstream writes them, in C order of X, Y, Z.

        Returns (n, 4) float32: the centre x, y, z in LiDAR metres, and the class.
        """
        index = np.argwhere((self.labels != EMPTY) & (self.labels != IGNORE))
        classes = self.labels[tuple(index.T)]
        return np.concatenate([self.grid.centres(index), classes[:, None]], axis=1).astype(np.float32)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes NAME.npz (labels), NAME.npy (points) and NAME.ply (coloured points) into `folder`; see `voxels/files.py`.

        Returns the paths. Errors: ExportError where the folder cannot be written to; then nothing is there.
        """
        return save_occupancy(self, Path(folder))
