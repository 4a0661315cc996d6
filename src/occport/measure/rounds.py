"""Measuring in turns: in every round each backend computes the frame once, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .backend import Backend
from .stages import STAGES, WHOLE


@dataclass(frozen=True)
class Seconds:
    """Several measurements of one thing: median, least, and the interquartile range, which is 0 for one measurement."""

    median: float
    least: float
    spread: float


def take_rounds(backends: Sequence[Backend], rounds: int) -> None:
    """Runs every backend once a round; each round begins with another one.

    Args:
        rounds: number of them, warm-up included.

    Errors: those of `Backend.run`. After an interrupt, what was measured stays with the backends.
    """
    for number in range(rounds):
        first = number % len(backends)
        for backend in (*backends[first:], *backends[:first]):
            backend.run()


def seconds_of(values: Sequence[float]) -> Seconds:
    """At least one value."""
    if len(values) == 1:
        return Seconds(values[0], values[0], 0.0)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Seconds(median, min(values), high - low)


def by_stage(laps: Sequence[Mapping[str, float]]) -> dict[str, Seconds]:
    """Each stage over all laps, in the order of a frame, then the whole; stages that no lap has are left out."""
    return {stage: seconds_of([lap.get(stage, 0.0) for lap in laps]) for stage in (*STAGES, WHOLE) if any(stage in lap for lap in laps)}


def times_as_fast(laps: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> float:
    """How many times as fast as the others: the median over rounds, each of which gives one ratio. Both hold the same rounds."""
    return statistics.median(other[WHOLE] / lap[WHOLE] for lap, other in zip(laps, others, strict=False))
