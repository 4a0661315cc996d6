"""Whether two backends label the voxels of a frame alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..export.agreement import percent

Labels = Mapping[int, NDArray[np.integer]]  # of each scale, 0 to 3, (1, X, Y, Z)


@dataclass(frozen=True)
class LabelAgreement:
    """One backend against another.

    Attributes:
        shares: part of the labels that agree, 0 to 1, by scale.
        totals: number of voxels by scale.
    """

    shares: Mapping[int, float]
    totals: Mapping[int, int]

    @property
    def worst(self) -> int:
        """The scale that agrees least; of equal ones the finest."""
        return min(self.shares, key=lambda scale: (self.shares[scale], -scale))

    def describe(self) -> str:
        """99.98 % of 640,000 at scale 3; worst scale 1, 99.87 % of 10,000."""
        finest, worst = max(self.shares), self.worst
        parts = [f"{percent(self.shares[finest])} of {self.totals[finest]:,} at scale {finest}"]
        if len(self.shares) > 1:
            share = f"worst scale {worst}, {percent(self.shares[worst])} of {self.totals[worst]:,}"
            parts.append("which is the worst" if worst == finest else share)
        if all(share == 1 for share in self.shares.values()):
            return f"all of {sum(self.totals.values()):,} labels"
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"worst_scale": self.worst, "agreement": {str(scale): share for scale, share in self.shares.items()}}


def label_agreement(got: Labels, want: Labels) -> LabelAgreement | None:
    """Compares the scales that both have; None where they share none."""
    scales = sorted(set(got) & set(want))
    if not scales:
        return None
    shares = {scale: float(np.mean(np.asarray(got[scale]) == np.asarray(want[scale]))) for scale in scales}
    return LabelAgreement(shares, {scale: int(want[scale].size) for scale in scales})
