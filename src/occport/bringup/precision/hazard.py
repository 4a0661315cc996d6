"""One thing that half precision would do to a file, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("breaks", "loses", "watch", "kept")
SEVERITY_WORDS: Mapping[str, str] = {
    "breaks": "numbers become infinite or 0, places and hits wrong", "loses": "accuracy goes", "watch": "it could, on another frame",
    "kept": "it would, but a 16-bit export keeps these in float32",
}  # fmt: skip
SPREADING = ("not finite", "overflow")  # kinds that a tensor hands on to those made from it: where they begin is what matters
TABLES = "tables"  # stage of the geometry


@dataclass(frozen=True)
class Kind:
    """What all hazards of a kind have in common: what it is, and the advice."""

    title: str
    advice: str


KINDS: Mapping[str, Kind] = {
    "not finite": Kind("not finite already in float32", "mend the file or its inputs first: what is made from these tells nothing"),
    "overflow": Kind("numbers beyond the largest", "keep this tensor and what reads it in float32, or scale it before"),
    "headroom": Kind("close to the largest", "another frame may pass it: keep it in float32, or take bfloat16"),
    "weight overflow": Kind("a weight beyond the largest", "keep the node in float32"),
    "underflow": Kind("numbers that become 0 or lose bits as subnormals", "scale the tensor up before, or keep it in float32"),
    "weight underflow": Kind("weights that become 0 or subnormal", "scale them up and the result down, or keep the node in float32"),
    "geometry": Kind(
        "voxels that change their cameras", "keep all from lidar2img to the tables in float32, as exports do, rows scaled by the image size"
    ),
    "location": Kind("sampling places rounded at the kernel's port", "give the kernel its places in float32"),
    "location product": Kind("sampling places worked out in 16 bits", "compute places in float32 in the kernel, whatever the values have"),
    "sampling offset": Kind("offsets of an attention in pixels, rounded at the kernel's port", "give the kernel float32 offsets"),
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
        begins: of a kind that spreads (SPREADING): nothing that the tensor is made from has it.
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
    begins: bool = False

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
