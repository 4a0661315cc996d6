"""What all frames say together. Frames may come in any order: the totals are the same to the bit. Memory does not grow with them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...voxels.semantic import ious, mean_iou
from .reconstruction import NAMES

_SHOWN_NAMES = 20


class Names:
    """Counts names and remembers the first 20 in the alphabet."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        insort(self.first, name)
        del self.first[_SHOWN_NAMES:]

    def __str__(self) -> str:
        return ", ".join(self.first) + (f" and {self.count - len(self.first)} more" if self.count > len(self.first) else "")


@dataclass(frozen=True)
class Scores:
    """The metrics of a run.

    Attributes:
        frames: how many were scored.
        values: the metrics by their names; None where one is undefined.
        classes: the IoU of each class by its name; None where the class does not occur. Empty without semantics.
        counts: (C, 3) integers as of `semantic_counts`; empty without semantics.
        remarks: what must be known to read the values, a line each.
        details: more for the JSON file.
    """

    frames: int
    values: Mapping[str, float | None]
    classes: Mapping[str, float | None] = field(default_factory=dict)
    counts: Sequence[Sequence[int]] = ()
    remarks: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is undefined is null, never NaN."""
        table: dict[str, Any] = {"frames": self.frames, **self.values}
        if self.classes:
            table["classes"] = dict(self.classes)
            table["counts"] = {name: list(row) for name, row in zip(("occupied", *self.classes), self.counts, strict=True)}
        return {**table, **self.details, "remarks": list(self.remarks)}


class Total(Protocol):
    """Adds up the rows of frames."""

    def add(self, name: str, row: NDArray[np.generic] | None) -> None:
        """One frame more."""
        ...

    def scores(self) -> Scores:
        """All frames so far."""
        ...


class SemanticTotal:
    """IoU and mIoU of counts that are summed over all frames, as upstream."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = tuple(class_names)
        self._counts = np.zeros((len(self._names) + 1, 3), np.int64)
        self._frames = 0

    def add(self, name: str, row: NDArray[np.generic] | None) -> None:
        """row: (C, 3) int64 of `semantic_counts`."""
        assert row is not None
        self._counts += row.astype(np.int64)
        self._frames += 1

    def scores(self) -> Scores:
        """IoU, mIoU and the classes; says which classes do not occur and are therefore not in the mean."""
        values = ious(self._counts)
        classes = dict(zip(self._names, values[1:], strict=True))
        absent = [name for name, value in classes.items() if value is None]
        remarks = []
        if values[0] is None and self._frames:
            remarks.append("IoU is undefined: there is no occupied voxel, neither in the ground truth nor in the predictions")
        if absent and self._frames:
            remarks.append(
                f"mIoU is the mean over {len(classes) - len(absent)} of {len(classes)} classes; "
                f"neither ground truth nor predictions hold any {', '.join(absent)}"
            )
        return Scores(
            self._frames, {"IoU": values[0], "mIoU": mean_iou(values)}, classes, self._counts.tolist(), tuple(remarks),
            {"undefined_classes": absent},
        )  # fmt: skip


class ReconstructionTotal:
    """The mean of each metric over the frames, as upstream. Frames without a voxel to measure to are counted apart, by name."""

    def __init__(self) -> None:
        self._sums = [Fraction(0)] * len(NAMES)  # exact, as rounding would depend on the order of the frames
        self._frames = 0
        self._left_out = Names()

    def add(self, name: str, row: NDArray[np.generic] | None) -> None:
        """row: (6,) float64 of `reconstruction`, or None."""
        if row is None:
            self._left_out.add(name)
            return
        self._sums = [total + Fraction(float(value)) for total, value in zip(self._sums, row.astype(np.float64), strict=True)]
        self._frames += 1

    def scores(self) -> Scores:
        """The six metrics."""
        means = {name: float(total / self._frames) if self._frames else None for name, total in zip(NAMES, self._sums, strict=True)}
        remarks = []
        if self._left_out.count:
            what = f"{self._left_out.count} of {self._frames + self._left_out.count} frames"
            remarks.append(f"{what} are not in the means: no occupied voxel in prediction or ground truth of {self._left_out}")
        details = {"frames_left_out": self._left_out.count, "left_out": list(self._left_out.first)}
        return Scores(self._frames + self._left_out.count, means, remarks=tuple(remarks), details=details)
