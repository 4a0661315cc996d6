"""A labelled volume seen from above, as on a map: x to the right, y (forward) up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..voxels.classes import EMPTY, IGNORE, colours
from ..voxels.occupancy import Occupancy

LOWEST = 0.6  # what is left of a colour at the very bottom; at the top layer all of it


def from_above(occupancy: Occupancy) -> NDArray[np.uint8]:
    """The topmost occupied voxel of every column, in its class's colour, the higher the brighter.

    A voxel of layer k of Z, counted from 0 below, has its class's colour times `shade(k, Z)`, rounded. Unknown voxels (255) count as empty.

    Returns:
        (Y, X, 4) uint8: R, G, B and 255 where the column holds anything, else 0; row 0 is the farthest forward, column 0 the
        farthest left.
    """
    labels = occupancy.labels
    layers = labels.shape[2]
    solid = (labels != EMPTY) & (labels != IGNORE)
    top = layers - 1 - np.argmax(solid[:, :, ::-1], axis=2)  # (X, Y); of no meaning where the column is empty
    label = np.take_along_axis(labels, top[:, :, None], axis=2)[:, :, 0]
    image = np.zeros((*top.shape, 4), np.uint8)
    image[:, :, :3] = np.rint(colours(occupancy.class_names)[label] * shade(top, layers)[:, :, None]).astype(np.uint8)
    seen = solid.any(axis=2)
    image[seen, 3] = 255
    image[~seen] = 0
    return np.ascontiguousarray(image.transpose(1, 0, 2)[::-1])  # (X, Y, 4) → (Y, X, 4), forward first


def shade(layer: NDArray[np.integer], layers: int) -> NDArray[np.float64]:
    """Brightness of a layer k of Z: LOWEST + (1 - LOWEST) * (k + 1) / Z. Any shape → the same shape, float64."""
    bright: NDArray[np.float64] = LOWEST + (1 - LOWEST) * (np.asarray(layer, np.float64) + 1) / layers
    return bright
