"""Ground truth as the dataset stores it: a sparse list of voxels, `occ_path` of SurroundOcc's dataset files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from .classes import EMPTY, IGNORE
from .files import read_array
from .grid import Grid


def read_ground_truth(path: Path, grid: Grid, semantic: bool) -> NDArray[np.uint8]:
    """The dense volume of a ground-truth file; upstream.md, section "Input", 5.

    Args:
        path: a .npy file (n, 4) of any numeric type: voxel indices x, y, z and the class, a row for each voxel that is not empty; n may
            be 0. Class 0 means that nobody knows. Of rows for the same voxel the last counts, as in upstream's assignment.
        grid: which the indices belong to.
        semantic: whether classes are kept; without, rows of class 0 are dropped and all others become 1.
    Returns:
        (X, Y, Z) uint8: 0 empty, 1, 2, … the class, 255 = ignore (only with semantics).
    Errors: FrameError for a file that is missing or damaged, is not such a list, or belongs to a grid of another size.
    """
    rows = _rows(path)
    index, classes = rows[:, :3], rows[:, 3]
    inside = grid.inside(index)
    if not inside.all():
        worst = index[int(np.argmin(inside))].tolist()
        raise FrameError(
            f"{path}: ground truth of another size", expected=f"voxel indices in a grid of {shown_size(grid.size)}",
            got=f"index {worst} ({int((~inside).sum())} of {len(rows)} rows are outside)",
            fix="give the ground truth that belongs to this network's grid",
        )  # fmt: skip
    if len(classes) and not 0 <= classes.min() <= classes.max() <= IGNORE:
        raise FrameError(f"{path}: classes", expected=f"0 to {IGNORE}", got=f"{classes.min()} to {classes.max()}")
    if not semantic:
        index, classes = index[classes > 0], np.ones(int((classes > 0).sum()), np.int64)
    volume = np.full(grid.size, EMPTY, np.uint8)
    flat = np.ravel_multi_index(tuple(index.T), grid.size)
    # numpy leaves open which of several values for one place an assignment keeps: take each voxel's last row.
    places, from_the_end = np.unique(flat[::-1], return_index=True)
    volume.reshape(-1)[places] = np.where(classes == EMPTY, IGNORE, classes)[::-1][from_the_end]
    return volume


def shown_size(size: tuple[int, int, int]) -> str:
    """200 x 200 x 16."""
    return " x ".join(map(str, size))


def _rows(path: Path) -> NDArray[np.int64]:
    """(n, 4) int64."""
    array = read_array(path)
    if array.dtype.kind not in "iuf" or array.ndim != 2 or array.shape[1] != 4:
        raise FrameError(
            f"{path}: ground truth", expected="(n, 4) numbers: voxel indices x, y, z and the class", got=f"{array.shape} of {array.dtype}"
        )
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        odd = ~(np.abs(array) < 2**31) | (array != np.floor(array))
        if odd.any():
            row = int(np.argmax(odd.any(axis=1)))
            raise FrameError(
                f"{path}: ground truth", expected="whole numbers: voxel indices x, y, z and the class",
                got=f"row {row}: {[float(value) for value in array[row]]}", fix="points in metres must be turned into indices first",
            )  # fmt: skip
    elif array.dtype == np.uint64:
        array = np.minimum(array, np.uint64(2**31))
    return array.astype(np.int64)
