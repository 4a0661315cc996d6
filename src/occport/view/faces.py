"""The surface of a class of voxels: the faces that can be seen, as triangles, shaded so that shapes are readable.

A face is exposed where the neighbour behind it is of another class, not only where it is empty: a viewer that hides one class must
not tear holes into the next one. A volume of 200 x 200 x 16 has half a million voxels, and what shows is mostly road and walls.

Shade is one number for each corner, 1 for an open face that looks up. The six directions differ as under a sky, every other voxel
is a little darker, and corners darken where other voxels crowd in front of them (ambient occlusion of block worlds: the two
neighbours beside the corner and the one between them), so that a viewer needs neither lights nor normals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..voxels.classes import EMPTY, IGNORE
from ..voxels.grid import Grid

# Of faces 0..5, which look to -x, +x, -y, +y, -z, +z.
SHADES = (0.72, 0.72, 0.84, 0.84, 0.55, 1.0)
_CROWDED = 0.13  # shade that each of up to three voxels around a corner takes away
_CHEQUERED = 0.07  # that every other voxel is darker: in a flat road they could not be counted
# Corners of a face in the plane of its other two axes, in cyclic order; the axes follow the normal's (y, z for x), so that this
# order is counter-clockwise seen from the positive side.
_CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.int64)
_ALONG_0_2 = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)  # the two ways to cut a face into triangles
_ALONG_1_3 = np.array([[1, 2, 3], [1, 3, 0]], np.uint32)


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles of n faces; a face has 4 corners and 2 triangles of its own.

    Attributes:
        vertices: (4n, 3) float32, x, y, z, LiDAR metres.
        triangles: (2n, 3) uint32, indices of vertices, counter-clockwise seen from outside.
        shades: (4n,) float32, 0 (black) to 1 (the class's own colour).
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.uint32]
    shades: NDArray[np.float32]

    @property
    def num_faces(self) -> int:
        """n."""
        return len(self.vertices) // 4


def exposed_faces(labels: NDArray[np.uint8], label: int, grid: Grid, covered: bool = True) -> Surface:
    """The surface of the voxels of one label.

    Args:
        labels: (X, Y, Z) uint8, the shape of the grid; 0 is empty, 255 unknown and treated as empty.
        label: 1 to 254; one that does not occur has a surface without faces.
        covered: also the faces behind which another class lies.
    Returns:
        With `covered` a closed surface: where all classes are shown, faces between two of them lie inside. Without it, what shows
        of the whole volume.
    """
    assert labels.shape == grid.size and EMPTY < label < IGNORE
    # One layer of empty space around it, so that every voxel has neighbours.
    own = labels == label
    occupied = np.pad((labels != EMPTY) & (labels != IGNORE), 1)
    hiding = np.pad(own, 1) if covered else occupied
    vertices, shades, cuts = [], [], []
    for face in range(6):
        axis, side = face // 2, face % 2
        behind = np.zeros(3, np.int64)
        behind[axis] = 2 * side - 1
        voxels = np.argwhere(own & ~_shifted(hiding, behind))
        shade: NDArray[np.floating] = SHADES[face] * (1 - _CROWDED * _crowding(occupied, voxels + 1 + behind, axis))
        shade *= 1 - _CHEQUERED * (voxels.sum(axis=1, keepdims=True) % 2)
        vertices.append(_corners(voxels, axis, side, grid))
        shades.append(shade)
        cuts.append(_cut(shade, side))
    count = sum(len(part) for part in shades)
    first = 4 * np.arange(count, dtype=np.uint32)
    triangles = np.concatenate(cuts) + first[:, None, None]  # (n, 2, 3)
    return Surface(
        np.concatenate(vertices).reshape(-1, 3).astype(np.float32), triangles.reshape(-1, 3).astype(np.uint32),
        np.concatenate(shades).reshape(-1).astype(np.float32),
    )  # fmt: skip


def _shifted(padded: NDArray[np.bool_], step: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(X + 2, Y + 2, Z + 2) → (X, Y, Z): at each voxel, the value of its neighbour one `step` away."""
    begin = 1 + step
    end = begin + np.array(padded.shape) - 2
    return padded[begin[0] : end[0], begin[1] : end[1], begin[2] : end[2]]


def _corners(voxels: NDArray[np.int64], axis: int, side: int, grid: Grid) -> NDArray[np.float64]:
    """Corners (n, 4, 3), metres, of the face on one side of voxels (n, 3)."""
    steps = np.zeros((4, 3), np.int64)
    steps[:, axis] = side
    steps[:, (axis + 1) % 3], steps[:, (axis + 2) % 3] = _CORNERS.T
    return grid.low + (voxels[:, None] + steps) * grid.voxel_size


def _crowding(occupied: NDArray[np.bool_], front: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """How many voxels crowd around each corner, 0 to 3. front (n, 3): the padded index of the place in front of the face → (n, 4).

    A face behind another voxel shows only when that one's class is hidden: then nothing crowds it.
    """
    across = np.zeros((2, 3), np.int64)
    across[0, (axis + 1) % 3] = across[1, (axis + 2) % 3] = 1
    sides = 2 * _CORNERS - 1
    first = front[:, None] + sides[:, :1] * across[0]  # (n, 4, 3)
    second = front[:, None] + sides[:, 1:] * across[1]
    between = first + second - front[:, None]
    beside, next_to, corner = (occupied[index[..., 0], index[..., 1], index[..., 2]] for index in (first, second, between))
    crowd = np.where(beside & next_to, 3, beside.astype(np.int64) + next_to + corner)
    covered = occupied[front[:, 0], front[:, 1], front[:, 2]]
    return np.where(covered[:, None], 0, crowd)


def _cut(shade: NDArray[np.floating], side: int) -> NDArray[np.uint32]:
    """Corner shades (n, 4) → two triangles of each face (n, 2, 3), cut along the more even diagonal: a dark corner stays one."""
    uneven = np.abs(shade[:, 0] - shade[:, 2]) > np.abs(shade[:, 1] - shade[:, 3])
    triangles = np.where(uneven[:, None, None], _ALONG_1_3, _ALONG_0_2)
    return triangles if side else triangles[:, :, ::-1]
