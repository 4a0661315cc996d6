"""How far two predictions of the same frames agree: the part of a deployment's accuracy table that needs no ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...voxels.semantic import ious, semantic_counts


@dataclass(frozen=True, eq=False)
class FrameAgreement:
    """One frame: `equal` of `voxels` have the same label; `counts` (C, 3) int64 as of `semantic_counts`, of one against the other."""

    equal: int
    voxels: int
    counts: NDArray[np.int64]


def agreement(labels: NDArray[np.uint8], others: NDArray[np.uint8], num_rows: int) -> FrameAgreement:
    """Compares two volumes (X, Y, Z) uint8 of one shape. num_rows: C, the classes with empty."""
    return FrameAgreement(int((labels == others).sum()), labels.size, semantic_counts(labels, others, num_rows))


@dataclass(frozen=True)
class Agreement:
    """All frames. A class's share: of the voxels that one or the other gives this class, those that both do; None where neither does."""

    frames: int
    equal: int
    voxels: int
    worst_frame: str
    worst_frame_share: float
    classes: dict[str, float | None]

    @property
    def share(self) -> float:
        """Of all voxels of all frames, those with the same label."""
        return self.equal / self.voxels

    @property
    def worst_class(self) -> str | None:
        """The class with the smallest share; None where no class occurs."""
        known = {name: value for name, value in self.classes.items() if value is not None}
        return min(known, key=lambda name: known[name]) if known else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        worst = self.worst_class
        return {
            "share": self.share,
            "equal": self.equal,
            "voxels": self.voxels,
            "worst_frame": {"name": self.worst_frame, "share": self.worst_frame_share},
            "worst_class": {"name": worst, "share": self.classes[worst]} if worst is not None else None,
            "classes": self.classes,
        }


class AgreementTotal:
    """Adds up frames, in any order."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = tuple(class_names)
        self._counts = np.zeros((len(self._names) + 1, 3), np.int64)
        self._frames = self._equal = self._voxels = 0
        self._worst: tuple[Fraction, str] = (Fraction(2), "")

    def add(self, name: str, frame: FrameAgreement) -> None:
        """One frame more."""
        self._frames += 1
        self._equal += frame.equal
        self._voxels += frame.voxels
        self._counts += frame.counts
        self._worst = min(self._worst, (Fraction(frame.equal, frame.voxels), name))  # of equal shares the first in the alphabet

    def result(self) -> Agreement | None:
        """None before the first frame."""
        if not self._frames:
            return None
        classes = dict(zip(self._names, ious(self._counts)[1:], strict=True))
        return Agreement(self._frames, self._equal, self._voxels, self._worst[1], float(self._worst[0]), classes)
