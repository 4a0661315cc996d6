"""From a projection matrix back to a camera: lens, direction and place, as datasets and 3D viewers want them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SKEW = 1e-3  # relative to the focal length: calibrations have less, a viewer's cameras have none


@dataclass(frozen=True, eq=False)
class Pinhole:
    """A camera without skew: lidar2img = intrinsic @ rotation.T @ (point - place).

    Attributes:
        intrinsic: (3, 3) float64, upper triangular, [2, 2] = 1, pixels.
        rotation: (3, 3) float64, columns: the camera's right, down and forward in the LiDAR frame.
        place: (3,) float64, its centre, LiDAR metres.
    """

    intrinsic: NDArray[np.float64]
    rotation: NDArray[np.float64]
    place: NDArray[np.float64]


def place_of(lidar2img: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the camera of a (4, 4) matrix is: (3,) float64, LiDAR metres; the one point that has no pixel. Full rank is assumed."""
    return np.asarray(-np.linalg.solve(lidar2img[:3, :3], lidar2img[:3, 3]), np.float64)


def pinhole_of(lidar2img: NDArray[np.float64]) -> Pinhole | None:
    """Takes a projection apart by an RQ decomposition.

    Args:
        lidar2img: (4, 4) float64, LiDAR metres → pixels times depth, of full rank (`rig.check_rig`).
    Returns:
        The camera; None for what a viewer cannot show as one: a mirrored image, or pixels that are skewed.
    """
    # In pixels the first rows are a thousand times the last; scaled, the decomposition does not care.
    sizes = np.linalg.norm(lidar2img[:3, :3], axis=1, keepdims=True)
    block = lidar2img[:3, :3] / sizes
    if np.linalg.det(block) <= 0:
        return None
    # RQ of A from QR: with J the reversal of rows, (J A).T = Q R gives A = (J R.T J) (J Q.T).
    orthogonal, upper = np.linalg.qr(block[::-1].T)
    lens, turn = upper.T[::-1, ::-1], orthogonal.T[::-1]
    signs = np.sign(np.diag(lens))
    intrinsic = sizes * (lens * signs)
    intrinsic = intrinsic / intrinsic[2, 2]
    if abs(intrinsic[0, 1]) > _SKEW * intrinsic[0, 0]:
        return None
    return Pinhole(np.triu(intrinsic), (signs[:, None] * turn).T, place_of(lidar2img))
