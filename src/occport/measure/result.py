"""What was measured, as data: one backend, and all of them with what they are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .gemm import GemmSpeed
from .labels import LabelAgreement
from .operators import Operator
from .peak import Peak
from .rounds import Seconds, by_stage, times_as_fast
from .stages import WHOLE


@dataclass(frozen=True)
class Measured:
    """One backend.

    Attributes:
        name, described, precision: as of `backend.Backend`.
        laps: seconds by stage of each round that counts.
        flops: operations of one frame by stage, as this backend does them.
        operators: the slowest first; () where not asked for.
        peak: memory of a process of its own; None where not asked for.
        labels: against the first backend; None of that one itself, and where the weights are others.
    """

    name: str
    described: str
    precision: str
    laps: tuple[Mapping[str, float], ...]
    flops: Mapping[str, int]
    operators: tuple[Operator, ...] = ()
    peak: Peak | None = None
    labels: LabelAgreement | None = None

    def flops_of(self, stage: str) -> int:
        """Of one stage, or of `stages.WHOLE`; 0 where nothing counts."""
        return sum(self.flops.values()) if stage == WHOLE else self.flops.get(stage, 0)


@dataclass(frozen=True)
class Result:
    """All of them; the first is the one that others are compared with.

    Attributes:
        machine: as `machine.machine` tells it.
        frame: one line.
        flops: operations of a frame by stage, of the network as it is written: what the bound counts.
        gemm: the machine's speed by precision.
        warmup: rounds that do not count.
        backends: in the order of the columns.
    """

    machine: Mapping[str, str | int]
    frame: str
    flops: Mapping[str, int]
    gemm: Mapping[str, GemmSpeed]
    warmup: int
    backends: tuple[Measured, ...]

    @property
    def total_flops(self) -> int:
        """Of a whole frame."""
        return sum(self.flops.values())

    def fraction(self, backend: Measured, speed: float) -> float:
        """Of the machine's GEMM speed in the backend's precision. speed: operations in a second."""
        return speed / self.gemm[backend.precision].flops

    def bound(self, precision: str) -> float:
        """Seconds that a frame's arithmetic takes at the machine's GEMM speed."""
        return self.total_flops / self.gemm[precision].flops

    def of_bound(self, backend: Measured) -> float:
        """The bound as a fraction of the time that a whole frame took (median); 1 is the speed of matrix products alone."""
        return self.bound(backend.precision) / by_stage(backend.laps)[WHOLE].median

    def times(self, backend: Measured) -> float:
        """How many times as fast as the first backend, round by round."""
        return times_as_fast(backend.laps, self.backends[0].laps)

    def to_json(self) -> dict[str, Any]:
        """Plain values; seconds, bytes, operations and operations in a second."""
        return {
            "machine": dict(self.machine),
            "frame": self.frame,
            "rounds": min(len(backend.laps) for backend in self.backends),
            "warmup": self.warmup,
            "flops": {**self.flops, WHOLE: self.total_flops},
            "gemm": {
                name: {"flops_per_second": speed.flops, "how": speed.how, "bound_s": self.bound(name)} for name, speed in self.gemm.items()
            },
            "backends": [self._backend_json(backend) for backend in self.backends],
        }

    def _backend_json(self, backend: Measured) -> dict[str, Any]:
        stages = {stage: self._time_json(backend, stage, seconds) for stage, seconds in by_stage(backend.laps).items()}
        return {
            "name": backend.name,
            "described": backend.described,
            "precision": backend.precision,
            "stages": stages,
            "operators": [self._operator_json(backend, each) for each in backend.operators],
            "of_bound": self.of_bound(backend),
            "times_as_fast_as_first": self.times(backend),
            "peak_bytes": backend.peak.process if backend.peak else None,
            "peak_device_bytes": backend.peak.device if backend.peak else None,
            "labels_against_first": backend.labels.to_json() if backend.labels else None,
        }

    def _time_json(self, backend: Measured, stage: str, seconds: Seconds) -> dict[str, Any]:
        table: dict[str, Any] = {"median_s": seconds.median, "least_s": seconds.least, "interquartile_s": seconds.spread}
        return table | self._speed_json(backend, backend.flops_of(stage), seconds.median)

    def _operator_json(self, backend: Measured, operator: Operator) -> dict[str, Any]:
        table: dict[str, Any] = {"name": operator.name, "calls": operator.calls, "seconds": operator.seconds}
        return table | self._speed_json(backend, operator.flops, operator.seconds)

    def _speed_json(self, backend: Measured, flops: int, seconds: float) -> dict[str, float | int]:
        if not flops or seconds <= 0:
            return {}
        return {"flops": flops, "flops_per_second": flops / seconds, "of_gemm": self.fraction(backend, flops / seconds)}


def stages_of(backends: Sequence[Measured]) -> list[str]:
    """Every stage that a backend has, in the order of a frame; the whole is the last."""
    found = {stage: None for backend in backends for stage in by_stage(backend.laps)}
    found.pop(WHOLE, None)
    return [*found, WHOLE]
