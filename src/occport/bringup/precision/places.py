"""What 16 bits do to the places where attentions and deformable convolutions sample, in pixels of their maps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .hazard import Hazard
from .rounding import Low
from .tensors import Place, range_of

_WORTH = 1 / 64  # pixel: below that, bilinear weights hardly feel it
_SAMPLE = 2**21


class Error(NamedTuple):
    """Of sampled positions inside the map, in pixels; `cells`: share that reads other pixels than it should."""

    rms: float
    most: float
    cells: float
    step: float  # between neighbouring numbers at the far end of the map


def of_locations(place: Place, locations: np.ndarray, width: int, height: int, low: Low) -> Iterator[Hazard]:
    """Locations (..., 2) in [0, 1] of a map: rounded at the kernel's port, and multiplied by its size in 16 bits.

    Sources: the operators' definition, pixel = location * size - 0.5.
    """
    points = _thinned(locations.reshape(-1, 2))
    sizes = np.array([width, height], np.float64)
    exact = points * sizes - 0.5
    inside = ((exact > -1) & (exact < sizes)).all(axis=1)
    exact, points = exact[inside], points[inside]
    if not len(points):
        return
    held = low.rounded(points)
    at_port = _error(held * sizes - 0.5, exact, sizes, low)
    product = low.rounded(low.rounded(held * sizes) - 0.5)
    in_kernel = _error(product, exact, sizes, low)
    found = range_of(locations)
    for kind, error, what in (
        ("location", at_port, "the locations rounded"), ("location product", in_kernel, "loc * size - 0.5 in 16 bits, too"),
    ):  # fmt: skip
        if error.most > _WORTH:
            yield Hazard(kind, _severity(error), *place, found.low, found.high, _words(error, what, width, height), error._asdict())


def of_offsets(place: Place, offsets: np.ndarray, stride: int, low: Low) -> Iterator[Hazard]:
    """Offsets (A, G*T*2, Ho, Wo) in pixels, (dy, dx) of each tap: place + offset in 16 bits; of a tap its centre's place."""
    A, pairs, height, width = offsets.shape
    parts = offsets.reshape(A, pairs // 2, 2, height, width)
    sizes = np.array([width * stride, height * stride], np.float64)
    rows, columns = (np.arange(size) * float(stride) for size in (height, width))
    worst: list[NDArray[np.float64]] = []
    exacts: list[NDArray[np.float64]] = []
    for axis, base in ((1, columns[None, :]), (0, rows[:, None])):
        exact = (parts[:, :, axis] + base).astype(np.float64)
        worst.append(_thinned(low.rounded(low.rounded(parts[:, :, axis]) + base).reshape(-1, 1)))
        exacts.append(_thinned(exact.reshape(-1, 1)))
    error = _error(np.hstack(worst), np.hstack(exacts), sizes, low)
    if error.most > _WORTH:
        found = range_of(offsets)
        words = _words(error, "place + offset in 16 bits", int(sizes[0]), int(sizes[1]))
        yield Hazard("offset position", _severity(error), *place, found.low, found.high, words, error._asdict())


def step_at(size: float, low: Low) -> float:
    """The distance of neighbouring numbers just below `size`: 0.125 for float16 between 128 and 256."""
    return 2.0 ** math.floor(math.log2(max(size - 1.0, 1.0))) * low.roundoff * 2


def _error(got: NDArray[np.float64], exact: NDArray[np.float64], sizes: NDArray[np.float64], low: Low) -> Error:
    apart = np.abs(got - exact)
    cells = (np.floor(got) != np.floor(exact)).any(axis=1)
    return Error(
        float(np.sqrt((apart**2).mean())), float(apart.max()), float(cells.mean()), step_at(float(sizes.max()), low)
    )  # fmt: skip


def _words(error: Error, what: str, width: int, height: int) -> str:
    apart = f"off by {error.rms:.3f} px rms, {error.most:.3f} at most"
    steps = f"steps of {error.step:g} px at the end of {width} x {height}"
    return f"{what}: {apart}, {error.cells:.1%} of the samples read other pixels ({steps})"


def _severity(error: Error) -> str:
    return "breaks" if error.most >= 0.5 else "loses" if error.rms > _WORTH else "watch"


def _thinned(points: np.ndarray) -> NDArray[np.float64]:
    return points[:: max(len(points) // _SAMPLE, 1)].astype(np.float64)
