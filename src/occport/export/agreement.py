"""How far a lower precision is from float32: the same network and frame in both, scale by scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScaleAgreement:
    """One scale: how many of its labels are the same, and how far its logits are apart.

    Attributes:
        scale: 0 to 3, coarse to fine.
        total, differing: number of voxels, and of those with another label.
        max_abs, rms: of the difference of all logits; inf where one is no number.
    """

    scale: int
    total: int
    differing: int
    max_abs: float
    rms: float

    @property
    def share(self) -> float:
        """Of the labels that agree, 0 to 1."""
        return 1 - self.differing / self.total


@dataclass(frozen=True)
class PrecisionAgreement:
    """All scales of one frame."""

    precision: str
    frame: str
    scales: tuple[ScaleAgreement, ...]

    @property
    def worst(self) -> ScaleAgreement:
        """The scale with the smallest share of labels that agree; of equal ones the finest."""
        return min(self.scales, key=lambda scale: (scale.share, -scale.scale))

    def describe(self) -> str:
        """bf16 against fp32 on frame X: scale 3 99.93 % of 640,000 labels agree (worst: scale 1, 99.87 % of 10,000)."""
        finest, worst = self.scales[-1], self.worst
        also = "the worst scale" if worst == finest else f"worst: scale {worst.scale}, {percent(worst.share)} of {worst.total:,}"
        head = f"{self.precision} against fp32 on frame {self.frame}"
        return f"{head}: scale {finest.scale} {percent(finest.share)} of {finest.total:,} labels agree ({also})"

    def to_json(self) -> dict[str, Any]:
        """Plain values: precision, frame, worst_scale, and `scales` with agreement, differing, total, max_abs and rms of each."""
        scales = [{**asdict(scale), "agreement": scale.share} for scale in self.scales]
        for table in scales:
            table.update({name: None for name in ("max_abs", "rms") if not math.isfinite(table[name])})
        return {"precision": self.precision, "frame": self.frame, "worst_scale": self.worst.scale, "scales": scales}


def precision_agreement(
    precision: str, frame: str, got: Sequence[NDArray[np.float32]], want: Sequence[NDArray[np.float32]]
) -> PrecisionAgreement:
    """Compares the logits of a lower precision with those in float32.

    Args:
        precision, frame: names for the line.
        got, want: four each, coarse to fine: logits (1, classes, X, Y, Z) float32. One class counts as occupied above 0.
    """
    scales = []
    for scale, (low, exact) in enumerate(zip(got, want, strict=True)):
        apart = np.abs(low.astype(np.float64) - exact)
        known = bool(np.isfinite(apart).all())
        differing = int(np.count_nonzero((labels_of(low) != labels_of(exact)) | ~np.isfinite(low).all(axis=1)))
        figures = (float(apart.max()), float(np.sqrt(np.square(apart).mean()))) if known else (math.inf, math.inf)
        scales.append(ScaleAgreement(scale, low.size // low.shape[1], differing, *figures))
    return PrecisionAgreement(precision, frame, tuple(scales))


def labels_of(logits: NDArray[np.floating], threshold: float = 0.0) -> NDArray[np.int64]:
    """(1, classes, X, Y, Z) → (1, X, Y, Z): the class of the largest logit; of one class, 1 where it is above the threshold."""
    labels: NDArray[np.int64] = (logits[:, 0] > threshold).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(axis=1)
    return labels


def percent(share: float) -> str:
    """Of 0 to 1. Never 100 % where it is not all; rounding would make it so."""
    return "100 %" if share == 1 else f"{min(share, 0.9999) * 100:.2f} %"
