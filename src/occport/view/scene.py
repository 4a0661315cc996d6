"""What there is to see of one frame."""

from __future__ import annotations

from dataclasses import dataclass

from ..frames.frame import Frame
from ..voxels.occupancy import Occupancy


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame with its volumes; at least one of them is there.

    Attributes:
        frame: the images and cameras.
        prediction: what a network said of it, or None.
        truth: the ground truth, or None; on the prediction's grid where there are both.
        trained: False where the predictions say of themselves that untrained weights made them.
    """

    frame: Frame
    prediction: Occupancy | None
    truth: Occupancy | None
    trained: bool = True
