"""Reading a map between its pixels: the right way, and the wrong ways that kernels are known for.

A reading is separable: along each axis a position becomes a few (pixel, weight) pairs, and the value is the sum over all pairs of
both axes. Positions are in pixels; 0 is the centre of the first pixel. Whatever lies outside the map (infinities and nan included)
gets weight 0 and a pixel that exists, so that nothing ever indexes outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Pairs = tuple[tuple[np.ndarray, np.ndarray], ...]  # pixel (n) int64 in the map, weight (n) float64
Axis = Callable[[np.ndarray, int], Pairs]
Pixel = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Way:
    """How a kernel gets from a place to a value.

    Attributes:
        pixel: (place, size of the map along that axis) → position in pixels. A place of "msda" is in [0, 1], one of "dcn" in pixels;
            None: the right way, place*size - 1/2, and the place itself.
        axis: position → pixels and weights.
        wanders: far outside the map a tiny change of the position changes the value wholly, so that nothing can be said there.
    """

    pixel: Pixel | None = None
    axis: Axis = lambda position, size: bilinear(position, size)
    wanders: bool = False


def _pair(pixel: np.ndarray, weight: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    inside = (pixel >= 0) & (pixel <= size - 1)  # false for nan
    return np.where(inside, pixel, 0).astype(np.int64), np.where(inside, weight, 0.0)


def _low_and_fraction(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.floor(position)
    with np.errstate(invalid="ignore"):  # inf - inf
        return low, position - low


def bilinear(position: np.ndarray, size: int) -> Pairs:
    """Right: both neighbours by their distance, each that is outside counts as zero."""
    low, fraction = _low_and_fraction(position)
    return _pair(low, 1 - fraction, size), _pair(low + 1, fraction, size)


def border(position: np.ndarray, size: int) -> Pairs:
    """Wrong: outside counts as the nearest pixel of the border."""
    return bilinear(np.clip(position, 0, size - 1), size)


def reflection(position: np.ndarray, size: int) -> Pairs:
    """Wrong: outside counts as the map in a mirror at its outer edges, -1/2 and size - 1/2."""
    with np.errstate(invalid="ignore"):  # inf has no remainder
        turned = np.mod(position + 0.5, 2 * size)
    return border(np.minimum(turned, 2 * size - turned) - 0.5, size)


def nearest(position: np.ndarray, size: int) -> Pairs:
    """Wrong: the nearest pixel alone."""
    return (_pair(np.floor(position + 0.5), np.ones_like(position), size),)


def truncated(position: np.ndarray, size: int) -> Pairs:
    """Wrong: the pixel below alone."""
    return (_pair(np.floor(position), np.ones_like(position), size),)


def exchanged(position: np.ndarray, size: int) -> Pairs:
    """Wrong: each neighbour with the weight of the other."""
    low, fraction = _low_and_fraction(position)
    return _pair(low, fraction, size), _pair(low + 1, 1 - fraction, size)


def all_or_nothing(position: np.ndarray, size: int) -> Pairs:
    """Wrong: a sample that has any neighbour outside counts as zero."""
    whole = (position >= 0) & (position <= size - 1)
    return bilinear(np.where(whole, position, np.nan), size)


def read(image: np.ndarray, y: np.ndarray, x: np.ndarray, axis: Axis) -> np.ndarray:
    """Values (n, C) of a map (H, W, C) at n positions in pixels; all float64."""
    height, width, channels = image.shape
    table = image.reshape(height * width, channels)  # (H, W, C) to (H*W, C)
    out = np.zeros((len(y), channels))
    columns = axis(x, width)
    for row, row_weight in axis(y, height):
        for column, column_weight in columns:
            with np.errstate(invalid="ignore"):  # 0 * inf: the nan that comes of an infinite pixel is told by whoever wants finite values
                out += table[row * width + column] * (row_weight * column_weight)[:, None]
    return out


def extent(image: np.ndarray, y: np.ndarray, x: np.ndarray, axis: Axis) -> np.ndarray:
    """(n, C) float64: the largest absolute value among the pixels that `read` gives a weight."""
    height, width, channels = image.shape
    table = np.abs(image).reshape(height * width, channels)  # (H, W, C) to (H*W, C)
    out = np.zeros((len(y), channels))
    columns = axis(x, width)
    for row, row_weight in axis(y, height):
        for column, column_weight in columns:
            np.maximum(out, table[row * width + column] * (row_weight * column_weight != 0)[:, None], out=out)
    return out


def spread(image: np.ndarray, y: np.ndarray, x: np.ndarray, dy: np.ndarray, dx: np.ndarray, axis: Axis) -> np.ndarray:
    """(n, C) float64: by how much `read` can change where each position moves by up to `dy`, `dx` (n) pixels.

    Exact for readings that are piecewise linear along each axis with kinks at whole pixels: over a box such a function is largest and
    smallest at the box's corners, at the kinks inside, or where both meet. (A jump is covered too, by the corners on both its sides.)
    """
    rows, columns = _stops(y, dy, image.shape[0]), _stops(x, dx, image.shape[1])
    # the position itself, then every row stop with every column stop: one reading for all of them
    stops = 1 + len(rows) * len(columns)
    all_y = np.concatenate([y, *(row for row in rows for _ in columns)])
    all_x = np.concatenate([x, *(column for _ in rows for column in columns)])
    values = read(image, all_y, all_x, axis).reshape(stops, len(y), -1)  # (stops*n, C) to (stops, n, C)
    return np.asarray(np.abs(values[1:] - values[0]).max(0))


def _stops(position: np.ndarray, reach: np.ndarray, size: int) -> list[np.ndarray]:
    """Both ends of [position - reach, position + reach], and the whole pixels inside, for the intervals that touch the map."""
    with np.errstate(invalid="ignore"):  # inf - inf
        low, high = position - reach, position + reach
    touching = (high > -1) & (low < size)
    if not touching.any():
        return [low, high]
    first = np.floor(low) + 1
    kinks = int((np.floor(high[touching]) - first[touching]).max()) + 1
    return [low, high, *(np.minimum(first + kink, high) for kink in range(kinks))]


RIGHT = Way()
