"""What the city is made of: boxes, cylinders and ellipsoids, each with a class and a paint. World metres, z = 0 is the road."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shape:
    """A solid that stands upright.

    Attributes:
        form: a box, a cylinder with an upright axis, or an ellipsoid.
        label: the name of its class.
        middle: x, y, z of its centre.
        half: half its extent along its own x, y and z; a cylinder's are its radii and half its height.
        colour: R, G, B.
        yaw: degrees, counter-clockwise seen from above: its own y axis points that far left of the world's y.
        windows: whether rows of windows are painted on its sides.
        speed: metres a frame along the world's y.
        detail: whether coarse grids leave it out, where grown to a voxel it would hide what it belongs to.
    """

    form: Literal["box", "cylinder", "ellipsoid"]
    label: str
    middle: tuple[float, float, float]
    half: tuple[float, float, float]
    colour: tuple[int, int, int]
    yaw: float = 0.0
    windows: bool = False
    speed: float = 0.0
    detail: bool = False

    def at(self, frame: float) -> tuple[float, float, float]:
        """Its centre at a frame of its scene."""
        x, y, z = self.middle
        return x, y + frame * self.speed, z

    def reach(self, least: float) -> float:
        """Radius of a circle around its centre that holds it, grown to at least `least` to each side."""
        return math.hypot(max(self.half[0], least), max(self.half[1], least))

    def covers(self, points: NDArray[np.float64], middle: NDArray[np.float64], least: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points (n, 3), world metres, lie in it.

        Args:
            middle: (3,) where its centre is.
            least: (3,), half extents that it is grown to where it is thinner: a voxel's, so that nothing vanishes between voxels.
        """
        turn = math.radians(self.yaw)
        offset = points - middle
        own_x = math.cos(turn) * offset[:, 0] + math.sin(turn) * offset[:, 1]
        own_y = -math.sin(turn) * offset[:, 0] + math.cos(turn) * offset[:, 1]
        half = np.maximum(np.array(self.half), least)
        ratio = np.abs(np.stack([own_x, own_y, offset[:, 2]])) / half[:, None]
        if self.form == "box":
            return np.asarray((ratio <= 1).all(axis=0))
        if self.form == "cylinder":
            return np.asarray((ratio[0] ** 2 + ratio[1] ** 2 <= 1) & (ratio[2] <= 1))
        return np.asarray((ratio**2).sum(axis=0) <= 1)
