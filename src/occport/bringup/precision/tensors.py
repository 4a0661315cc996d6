"""Hazards that a tensor shows by its own numbers: too large, too small, squares, exponentials, margins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from .hazard import Hazard
from .rounding import Low

HEADROOM = 4.0  # times the largest number of this frame that another one may have
_SHARE = 0.01  # of numbers below which too small ones are not worth a line
_SAMPLE = 2**22
_NORMS = ("InstanceNormalization", "GroupNormalization", "LayerNormalization")


class Place(NamedTuple):
    """Where a tensor is: its name, what makes it, its stage."""

    tensor: str
    node: str
    op_type: str
    stage: str


class Range(NamedTuple):
    """Of a tensor's numbers: of the finite ones, and how many are none."""

    low: float
    high: float
    rms: float
    infinite: int = 0
    nan: int = 0

    @property
    def largest(self) -> float:
        """By size."""
        return max(abs(self.low), abs(self.high))


def range_of(array: np.ndarray) -> Range:
    """Smallest, largest and root mean square of the finite numbers, and how many are infinite or NaN."""
    if not array.size:
        return Range(0.0, 0.0, 0.0)
    low, high, infinite, nan = float(array.min()), float(array.max()), 0, 0
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = array[np.isfinite(array)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        nan = int(np.count_nonzero(np.isnan(array)))
        infinite = array.size - finite.size - nan
    sample = _sample(array)
    sample = sample[np.isfinite(sample)].astype(np.float64)
    return Range(low, high, math.sqrt(float((sample * sample).mean())) if sample.size else 0.0, infinite, nan)


def of_values(place: Place, array: np.ndarray, found: Range, low: Low) -> Iterator[Hazard]:
    """What is not finite already, overflow, little headroom, underflow."""
    if found.infinite or found.nan:
        yield not_finite(place, array.size, found)
    if found.largest > low.largest:
        beyond = int(np.count_nonzero(np.abs(array) > low.largest)) - found.infinite
        words = f"{beyond:,} of {array.size:,} numbers beyond {low.largest:,.0f}, up to {found.largest:,.6g}"
        yield Hazard("overflow", "breaks", *place, found.low, found.high, words, {"beyond": beyond, "largest": found.largest})
    elif found.largest * HEADROOM > low.largest:
        words = f"up to {found.largest:,.6g}, {low.largest / found.largest:.1f} times below {low.largest:,.0f} on this frame"
        yield Hazard("headroom", "watch", *place, found.low, found.high, words, {"headroom": low.largest / found.largest})
    share, gone = small_share(array, low)
    if share > _SHARE:
        words = f"{share:.1%} of the numbers other than 0 are below {low.smallest:.2g} and lose bits, {gone:.1%} become 0"
        severity = "loses" if gone > _SHARE and found.largest < 1 else "watch"
        yield Hazard("underflow", severity, *place, found.low, found.high, words, {"subnormal": share, "zero": gone})


def not_finite(place: Place, size: int, found: Range) -> Hazard:
    """Infinities and NaN of the float32 run itself, among `size` numbers."""
    words = f"{found.infinite:,} infinite and {found.nan:,} NaN of {size:,} numbers, already in the float32 run"
    figures = {"infinite": found.infinite, "nan": found.nan}
    return Hazard("not finite", "breaks", *place, found.low, found.high, words, figures)


def small_share(array: np.ndarray, low: Low) -> tuple[float, float]:
    """Of the numbers other than 0: the share that loses bits, and the share that becomes 0."""
    sample = np.abs(_sample(array))
    sample = sample[sample > 0]
    if not sample.size:
        return 0.0, 0.0
    return float((sample < low.smallest).mean()), float((sample <= low.least / 2).mean())


def of_reader(place: Place, node: NodeProto, array: np.ndarray, found: Range, low: Low, opset: int) -> Iterator[Hazard]:
    """What the node that reads a tensor would make of it in 16 bits: squares, exponentials, the choice of a label.

    Args:
        opset: of ONNX's own domain, which decides what the axis of a Softmax means.
    """
    if node.op_type in _NORMS and found.largest**2 > low.largest:
        words = f"squares up to {found.largest**2:,.4g} pass {low.largest:,.0f}, where {node.op_type} takes them in {low.name}"
        yield Hazard("square", "breaks", *place, found.low, found.high, words, {"largest_square": found.largest**2})
    if node.op_type == "Softmax" and array.size:
        yield from of_exponentials(place, softmax_terms(node, array.shape, opset), found, low)
    if node.op_type == "ArgMax" and array.ndim > 1:
        axis = _axis(node, 0)
        if array.shape[axis] > 1:
            yield from _margins(place, array, axis, found, low)


def of_exponentials(place: Place, terms: int, found: Range, low: Low) -> Iterator[Hazard]:
    """A sum of exponentials of that many logits, without their maximum taken off."""
    most = math.log(low.largest)
    if found.high + math.log(max(terms, 1)) > most:
        words = f"logits up to {found.high:.4g}: exp passes {low.largest:,.0f} from {most:.4g} on, {terms} terms in a sum"
        yield Hazard("softmax", "breaks", *place, found.low, found.high, words, {"terms": terms, "limit": most})


def softmax_terms(node: NodeProto, shape: tuple[int, ...], opset: int) -> int:
    """Logits in each sum of a Softmax: those along its axis; before opset 13 those of the axis and all behind it."""
    if not shape:
        return 1
    axis = _axis(node, -1 if opset >= 13 else 1)
    if opset >= 13:
        return shape[axis]
    return math.prod(shape[axis if axis >= 0 else axis + len(shape) :])


def _axis(node: NodeProto, usual: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), usual)


def _margins(place: Place, logits: NDArray[np.float32], axis: int, found: Range, low: Low) -> Iterator[Hazard]:
    """Labels whose first and second class are nearer than the rounding of both."""
    top = np.partition(logits, -2, axis=axis).take((-1, -2), axis=axis).astype(np.float64)
    first, second = top.take(0, axis=axis), top.take(1, axis=axis)
    near = (first - second) <= low.roundoff * (np.abs(first) + np.abs(second))
    if near.any():
        words = f"{int(near.sum()):,} of {near.size:,} labels hang on less than the rounding of their logits"
        yield Hazard("margin", "loses", *place, found.low, found.high, words, {"labels": int(near.sum()), "share": float(near.mean())})


def _sample(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)[:: max(array.size // _SAMPLE, 1) | 1]
