"""One thing that half precision would do to a file, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("breaks", "loses", "watch")  # numbers become infinite or places wrong; accuracy goes; it could, on another frame


@dataclass(frozen=True)
class Kind:
    """What all hazards of a kind have in common: what it is, and the advice."""

    title: str
    advice: str


KINDS: Mapping[str, Kind] = {
    "overflow": Kind("numbers beyond the largest", "keep this tensor and what reads it in float32, or scale it before"),
    "headroom": Kind("close to the largest", "another frame may pass it: keep it in float32, or take bfloat16"),
    "weight overflow": Kind("a weight beyond the largest", "keep the node in float32"),
    "underflow": Kind("numbers that become 0 or lose bits as subnormals", "scale the tensor up before, or keep it in float32"),
    "weight underflow": Kind("weights that become 0", "scale them up and the result down, or keep the node in float32"),
    "geometry": Kind("voxels that change their cameras", "keep all from lidar2img to the tables in float32, rows scaled by the image size"),
    "location": Kind("sampling places rounded in [0, 1]", "give the kernel float32 locations, or reference points and offsets apart"),
    "location product": Kind("loc * size - 0.5 in 16 bits", "compute places in float32 inside the kernel, whatever the values have"),
    "offset position": Kind("positions of a deformable convolution in 16 bits", "add the offset to its place in float32 inside the kernel"),
    "softmax": Kind("exponentials without the maximum taken off", "subtract the row's maximum first"),
    "square": Kind("squares of a normalisation", "take means and squares in float32"),
    "accumulation": Kind("long sums in 16 bits", "accumulate in float32; round once at the end"),
    "margin": Kind("labels nearer to each other than the logits' rounding", "take the argmax of float32 logits"),
}  # fmt: skip


@dataclass(frozen=True)
class Hazard:
    """One finding.

    Attributes:
        kind: one of KINDS.
        severity: one of SEVERITIES.
        tensor, node, op_type, stage: where; "" where it is no single one.
        low, high: range of the tensor on the frame.
        figures: numbers by name.
        words: what was found, one line.
    """

    kind: str
    severity: str
    tensor: str
    node: str
    op_type: str
    stage: str
    low: float
    high: float
    words: str
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def advice(self) -> str:
        """What to do."""
        return KINDS[self.kind].advice

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; numbers that are none become null."""
        table = {**vars(self), "figures": {key: _number(value) for key, value in self.figures.items()}, "advice": self.advice}
        return {**table, "low": _number(self.low), "high": _number(self.high)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
