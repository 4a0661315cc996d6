"""How far a ray may leap: for every voxel a block of empty voxels around it.

In a street the ground is near everywhere, so a cube would be small everywhere. The blocks are flat: wide along x and y, to both sides,
and in z they only lie ahead of the ray; rays that rise and rays that fall have blocks of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT = 256  # of a block, times this, plus its reach, is how a block is written down
# A step from one reach to the next is less than twice the smaller one, so that three shifted blocks cover the larger one.
_REACHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
_HEIGHTS = (1, 2, 4, 8, 16, 32)
_SLOPE = 4  # a block with a reach of 4 and a height of 1 is as good as one with a reach of 4 and any height: rays are rather level


def blocks(solid: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """The best block at every voxel, for both ways in z.

    Args:
        solid: (X, Y, Z) bool. Outside everything is empty.
    Returns:
        (2, X, Y, Z) uint16: [0] for rays with z >= 0, [1] for falling ones; 0 in a solid voxel, else reach + 256 * height: all voxels are
        empty whose x and y are less than `reach` from the voxel's and whose z is less than `height` ahead of its own.
    """
    best = np.zeros((2, *solid.shape), np.uint16)
    _fill(best[0], ~solid)
    _fill(best[1][:, :, ::-1], ~solid[:, :, ::-1])
    return best


def _fill(best: NDArray[np.uint16], empty: NDArray[np.bool_]) -> None:
    """One way in z: blocks that extend to larger z."""
    score = np.zeros(empty.shape, np.uint16)
    tall, height = empty, 1
    for wanted in _HEIGHTS:
        if wanted > 1:
            if height >= empty.shape[2]:
                break  # outside is empty: such a block is as high as it gets
            tall = _both(tall, wanted - height, 2)
            height = wanted
        wide, reach = tall, 1
        for more in _REACHES:
            if more > 1:
                wide = _three(_three(wide, more - reach, 0), more - reach, 1)
                reach = more
            if not wide.any():
                break
            # 64: of two that are equally good the larger one
            worth = np.uint16(min(reach, _SLOPE * height) * 128 + reach + height)
            better = wide & (score < worth)
            np.copyto(score, worth, where=better)
            np.copyto(best, np.uint16(reach + HEIGHT * height), where=better)


def _both(empty: NDArray[np.bool_], step: int, axis: int) -> NDArray[np.bool_]:
    """Where it is empty here and `step` ahead along `axis`."""
    here, ahead = _shifted(axis, step)
    result = empty.copy()
    result[here] &= empty[ahead]
    return result


def _three(empty: NDArray[np.bool_], step: int, axis: int) -> NDArray[np.bool_]:
    """Where it is empty here, `step` ahead and `step` behind along `axis`."""
    here, ahead = _shifted(axis, step)
    result = empty.copy()
    result[here] &= empty[ahead]
    result[ahead] &= empty[here]
    return result


def _shifted(axis: int, step: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of three axes, `step` apart along one; both are empty where the volume is shorter."""
    here, ahead = [slice(None)] * 3, [slice(None)] * 3
    here[axis], ahead[axis] = slice(None, -step), slice(step, None)
    return tuple(here), tuple(ahead)
