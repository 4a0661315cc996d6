"""How much light falls on a voxel's faces: less in corners and courtyards, less in the shadow of what stands in the sun's way.

Both are worked out once for the empty place in front of every face, and taken between the middles of these places for what lies between.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_REACH = 2  # voxels to each side that crowd a place
_DARKEST = 0.5  # what is left of the sky's light where everything around is solid
_SHADOW = 0.74  # what is left of the sun's


class Light:
    """Light among the voxels.

    Args:
        solid: (X, Y, Z) bool.
    """

    def __init__(self, solid: NDArray[np.bool_]) -> None:
        # A margin, so that the places in front of the outermost faces have their light too.
        padded = np.pad(solid, _REACH + 2)
        light = _sky(padded) * np.where(_shadowed(padded), _SHADOW, 1.0)
        self._light = np.ascontiguousarray(light, np.float32)

    def on_faces(self, place: NDArray[np.float64], axis: NDArray[np.integer], outward: NDArray[np.float64]) -> NDArray[np.float32]:
        """Brightness of places on faces of solid voxels.

        Args:
            place: (n, 3), in voxels from the grid's corner.
            axis, outward: (n,), the face's axis 0 to 2, and -1 or 1: where its outside is.
        Returns:
            (n,) float32, 1 on an open plane in the sun.
        """
        every = np.arange(len(place))
        position = place + (_REACH + 2 - 0.5)
        position[every, axis] = np.rint(position[every, axis] + 0.5 * outward)  # the middle of the voxel in front
        corner = np.clip(np.floor(position).astype(np.int64), 0, np.array(self._light.shape) - 2)
        share = np.clip(position - corner, 0.0, 1.0).astype(np.float32)
        strides = np.array(self._light.strides) // self._light.itemsize
        flat, first = self._light.reshape(-1), corner @ strides
        # Across the face there are four neighbours; along its axis the place is in the middle.
        across, along = (axis + 1) % 3, (axis + 2) % 3
        right, up = share[every, across], share[every, along]
        to_right, to_up = strides[across], strides[along]
        low = flat[first] * (1 - right) + flat[first + to_right] * right
        high = flat[first + to_up] * (1 - right) + flat[first + to_up + to_right] * right
        return np.asarray(low * (1 - up) + high * up, np.float32)


def _sky(solid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(X, Y, Z) float32: 1 in front of an open plane, less the more of the 5 x 5 x 5 voxels around is solid beyond such a plane's."""
    share = solid.astype(np.float32)
    for axis in range(3):
        share = _mean_along(share, axis)
    of_plane = _REACH / (2 * _REACH + 1)
    light: NDArray[np.float32] = 1 - (1 - _DARKEST) * np.clip((share - of_plane) / (1 - of_plane), 0.0, 1.0)
    return light


def _shadowed(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(X, Y, Z) bool: whether a solid voxel lies on the way to the sun, which goes up a layer with each step.

    The sun stands in front on the left, so that shadows fall into the picture's view.
    """
    dark = np.zeros_like(solid)
    for layer in range(solid.shape[2] - 2, -1, -1):
        # A step towards the sun is one to the left and one forward.
        dark[1:, :-1, layer] = (solid[:, :, layer + 1] | dark[:, :, layer + 1])[:-1, 1:]
    return dark


def _mean_along(volume: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The mean over 2 * _REACH + 1 voxels along an axis; beyond the volume everything is empty. The same shape."""
    window = 2 * _REACH + 1
    padding = [(0, 0)] * 3
    padding[axis] = (_REACH + 1, _REACH)
    sums = np.cumsum(np.pad(volume, padding), axis=axis, dtype=np.float64)
    length = volume.shape[axis]
    late, early = (np.take(sums, np.arange(start, start + length), axis=axis) for start in (window, 0))
    return ((late - early) / window).astype(np.float32)
