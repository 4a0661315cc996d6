"""How far a right kernel may be off: a bound for each element of the output, derived from the arithmetic.

Let u be the unit roundoff of the kernel's dtype (2^-24 float32, 2^-11 float16, 2^-8 bfloat16) and r(v) <= u*|v| half the distance of
the numbers around v. The bound adds up what a kernel may lose that takes its inputs rounded to the dtype, computes in it or in anything
finer, in any order, and rounds its output to it.

*Positions.* A location rounds on its way in (only if the dtype does not hold it already) and in each step to the pixel position: location*w
and the subtraction of 1/2; by way of a grid in [-1, 1], as for GridSample, also 2*location - 1 and back. All of it together is a reach of
d pixels: 0.25 at w = 200 in float16. Bilinear reading with zeros outside is continuous, hence the error is at most how far the
read value changes within the box of +-d around the position (`reading.spread`, exact). For "dcn" it is taken after the
weighted sum over the channels of one tap: they all share the error of that tap's position, and their signs count.

*Samples.* Rounded value and weight, two bilinear factors and their product, its product with the value, the sum of four corners, the
product with the weight: 10 roundings, taken as 12, each of at most u times the largest corner.
A softmax inside the node adds the relative error of its weights: rounded logits, the exponent and its function, the sum, the division.

*Sums.* n terms t added in the dtype itself, in any order, lose at most u*n*sum|t| (Higham, "Accuracy and Stability of Numerical
Algorithms", 2002, 4.2). For the thousands of terms of a wide convolution that says nothing; there rounding errors add up like random
numbers, about u*sqrt(n)*|partial sum| (Higham & Mary, SIAM J. Sci. Comput. 41, 2019), and partial sums stay below the result and a few
times the root of the squares. The bound takes u*min(n*sum|t|, 2*sqrt(n)*(|sum t| + 4*sqrt(sum t^2))). A kernel that adds thousands of
terms of one sign in bfloat16 stalls, exceeds it, and should accumulate in float32.

*Output.* One rounding, and the smallest numbers of the dtype where results underflow.

Positions that are not finite in the dtype are outside for every kernel, as is everything farther from the map than d.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .case import Case
from .golden import (
    attention_positions,
    attention_weights,
    dense_weight,
    evaluate,
    group_maps,
    level_maps,
    pieces,
    tap_grid,
    tap_masks,
    tap_offsets,
    tap_positions,
)
from .precision import PRECISIONS, Precision, gap, input_gap
from .reading import RIGHT, Way, extent, spread

_SAMPLE = 12  # roundings of one sample
_STOPS = 10  # positions at which `spread` reads, mostly


class Pair(NamedTuple):
    """A plain tolerance: |got - want| <= atol + rtol*|want|."""

    atol: float
    rtol: float


def bound(case: Case, dtype: str, way: Way = RIGHT, golden: np.ndarray | None = None) -> np.ndarray:
    """The largest error of a right kernel in `dtype` ("float32", "float16", "bfloat16") for each element of the output.

    Args:
        case: must have passed `case.check`.
        dtype: what the kernel computes in, and what its inputs and output are rounded to.
        way: how maps are read; with a wrong way, the bound of a kernel that has this bug and no other.
        golden: what `evaluate(case, way)` gives, where it is known already.

    Returns:
        float64 of the golden output's shape. inf where nothing can be said (a way that wanders, far outside).
    """
    precision = PRECISIONS[dtype]
    out = evaluate(case, way) if golden is None else golden
    losses = _attention_losses(case, precision, way) if case.operator == "msda" else _deform_conv_losses(case, precision, way)
    each, total, squares = (part.reshape(out.shape) if case.operator == "msda" else _as_map(part, out.shape) for part in losses[:3])
    terms = losses.terms
    adding = np.minimum(terms * total, 2 * math.sqrt(terms) * (np.abs(out) + 4 * np.sqrt(squares)))
    underflow = 4 * precision.tiny * (terms + total)
    bound = each + precision.unit * (adding + np.abs(out)) + underflow
    if "bias" in case.quantities:
        bound += 2 * precision.unit * np.abs(case.float64("bias"))[:, None, None]
    return np.asarray(np.where(np.isfinite(bound), bound * (1 + 32 * precision.unit), np.inf))


def pair(case: Case, dtype: str, golden: np.ndarray) -> Pair:
    """One atol and rtol that every right kernel in `dtype` meets: the largest `bound` less rtol*|golden|, rounded up to two digits."""
    rtol = 4 * PRECISIONS[dtype].unit
    rest = float((bound(case, dtype, golden=golden) - rtol * np.abs(golden)).max())
    return Pair(_rounded_up(max(rest, PRECISIONS[dtype].tiny)), rtol)


class _Losses(NamedTuple):
    """Parts of the bound, rows x channels, before they are weighed."""

    each: np.ndarray  # of positions and samples
    total: np.ndarray  # sum of |terms|
    squares: np.ndarray  # sum of terms squared
    terms: int


def _as_map(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return rows.transpose(0, 2, 1).reshape(shape)  # (A, Ho*Wo, O) to (A, O, Ho, Wo)


def _attention_losses(case: Case, precision: Precision, way: Way) -> _Losses:
    """Each part (A, Q, M, D)."""
    y, x = attention_positions(case, way)
    weights, errors = np.abs(attention_weights(case)), _weight_errors(case, precision)
    A, Q, M, L, P = weights.shape
    D = case.quantities["value"].shape[3]
    each, total, squares = np.zeros((3, A, Q, M, D))
    for image, head, level, feature in level_maps(case):
        for block in pieces(Q, P * D * _STOPS):
            at, to = (image, block, head, level), (image, block, head)
            reach = [_attention_reach(case, precision, at, axis).ravel() for axis in (1, 0)]
            places = y[at].ravel(), x[at].ravel()
            move = _spread(feature, places, reach, way).reshape(-1, P, D)  # (Qb*P, D) to (Qb, P, D)
            size = extent(feature, *places, way.axis).reshape(-1, P, D)
            factor = weights[at][:, :, None]
            with np.errstate(invalid="ignore"):  # 0 * inf: a point that does not count
                each[to] += np.nan_to_num(factor * move, nan=0.0, posinf=np.inf).sum(1)
            each[to] += (factor * (errors[at][:, :, None] + _SAMPLE * precision.unit) * size).sum(1)
            total[to] += (factor * size).sum(1)
            squares[to] += ((factor * size) ** 2).sum(1)
    return _Losses(each, total, squares, L * P)


def _attention_reach(case: Case, precision: Precision, at: tuple[int, slice, int, int], axis: int) -> np.ndarray:
    """(Qb, P) pixels that a position may be off along x (axis 0) or y (1)."""
    image, block, _, level = at
    size = float(case.quantities["spatial_shapes"][level, 1 - axis])
    if "sampling_offsets" in case.quantities:
        reference = case.quantities["reference_points"][image, block, level, axis].astype(np.float64)[:, None]
        offset = case.quantities["sampling_offsets"][at][..., axis].astype(np.float64)
        place = reference + offset / size
        entry = input_gap(reference, precision) + (input_gap(offset, precision) + gap(reference * size, precision)) / size
        entry = entry + gap(offset / size, precision) + gap(place, precision)
    else:
        place = case.quantities["sampling_locations"][at][..., axis].astype(np.float64)
        entry = input_gap(place, precision)
    grid = gap(np.abs(2 * place - 1) + 2 * entry, precision) + gap(2 * place, precision)
    pixel = gap(place * size, precision) + 2 * gap(place * size - 0.5, precision)
    return np.asarray(size * (entry + grid / 2) + pixel)


def _weight_errors(case: Case, precision: Precision) -> np.ndarray:
    """(A, Q, M, L, P) relative errors of weights that the node makes itself; 0 where they come in."""
    if "attention_logits" not in case.quantities:
        return np.zeros(case.quantities["attention_weights"].shape)
    logits = case.float64("attention_logits")
    shifted = logits - logits.max((-2, -1), keepdims=True)
    exponent = input_gap(logits, precision) + 2 * (gap(logits, precision) + gap(shifted, precision))
    terms = logits.shape[-1] * logits.shape[-2]
    largest = np.where(shifted > -20, exponent, 0.0).max((-2, -1), keepdims=True)  # a term below e^-20 hardly counts in the sum
    return np.asarray(np.expm1(np.minimum(exponent + largest + (terms + 6) * precision.unit, 20.0)))


def _deform_conv_losses(case: Case, precision: Precision, way: Way) -> _Losses:
    """Each part (A, Ho*Wo, O)."""
    positions, offsets, grid = tap_positions(case, way), tap_offsets(case), tap_grid(case)
    masks, weight = np.abs(tap_masks(case)), dense_weight(case)
    A, _, _, _, rows = offsets.shape
    each, total, squares = np.zeros((3, A, rows, weight.shape[2]))
    for image, group, channels, feature in group_maps(case):
        for tap, kernel in enumerate(weight[:, channels]):
            weighted = feature @ kernel  # (H, W, C/G) to (H, W, O)
            for block in pieces(rows, max(kernel.shape) * _STOPS):
                at = image, group, tap, slice(None), block
                to = image, block
                reach = [_tap_reach(offsets[at][axis], grid[tap, axis, block], feature.shape[axis], precision) for axis in (0, 1)]
                y, x = positions[at]
                factor = masks[image, group, tap, block, None]
                with np.errstate(invalid="ignore"):  # 0 * inf: a tap that does not count
                    each[to] += np.nan_to_num(factor * _spread(weighted, (y, x), reach, way), nan=0.0, posinf=np.inf)
                size = factor * extent(feature, y, x, way.axis)
                terms = size @ np.abs(kernel)
                each[to] += _SAMPLE * precision.unit * terms
                total[to] += terms
                squares[to] += size**2 @ kernel**2
    per_output = case.quantities["weight"].shape[1] * len(weight)
    return _Losses(each, total, squares, per_output)


def _tap_reach(offset: np.ndarray, grid: np.ndarray, size: int, precision: Precision) -> np.ndarray:
    """(n) pixels that positions may be off along one axis of `size` pixels."""
    place = grid + offset
    there = 2 * gap(place, precision) + input_gap(grid, precision) + input_gap(offset, precision)
    scaled = (2 * place + 1) / size
    by_grid = (2 * gap(scaled, precision) + gap(np.abs(scaled - 1) + gap(scaled, precision), precision)) * size / 2
    return np.asarray(there + by_grid + gap(place, precision) + 2 * gap(place + 0.5, precision))


def _spread(feature: np.ndarray, places: tuple[np.ndarray, np.ndarray], reach: list[np.ndarray], way: Way) -> np.ndarray:
    """`reading.spread`; inf where a way wanders."""
    move = spread(feature, *places, reach[0], reach[1], way.axis)
    if way.wanders:
        lost = np.zeros(len(move), bool)
        for place, off, size in zip(places, reach, feature.shape, strict=False):
            lost |= ~(off < 0.25) | ~(np.abs(place) < 4 * size + 4)
        move[lost] = np.inf
    return move


def _rounded_up(value: float) -> float:
    """To two significant digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step) * step:.1e}")
