"""What 16 bits do to the places where attentions and deformable convolutions sample, in pixels of their maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .hazard import Hazard
from .rounding import Low
from .tensors import Place, range_of

_WORTH = 1 / 64  # pixel: below that, bilinear weights hardly feel it
_SAMPLE = 2**21
Points = NDArray[np.float64]
Rounding = Callable[[Points], Points]


class Error(NamedTuple):
    """Of sampled positions inside the map, in pixels; `cells`: share that reads other pixels than it should."""

    rms: float
    most: float
    cells: float
    step: float  # between neighbouring numbers at the far end of the map


class Way(NamedTuple):
    """From what a port holds to a pixel of the map: points (n, 2), sizes (2) of the map, and what rounds each result."""

    pixel: Callable[[Points, Points, Rounding], Points]
    formula: str


# what a port can hold → its way. Sources: the operators' definitions; ONNX's GridSample with and without align_corners.
WAYS: Mapping[str, Way] = {
    "location": Way(lambda p, size, held: held(held(p * size) - 0.5), "loc * size - 0.5"),
    "grid": Way(lambda p, size, held: held(held(held(p + 1) * size) - 1) / 2, "((grid + 1) * size - 1) / 2"),
    "corner grid": Way(lambda p, size, held: held(held(p + 1) * (size - 1)) / 2, "(grid + 1) * (size - 1) / 2"),
}


def of_locations(
    place: Place, locations: np.ndarray, width: int, height: int, low: Low, form: str = "location", what: str = "locations"
) -> Iterator[Hazard]:
    """Locations (..., 2), x and y: rounded at the kernel's port, and made to pixels in 16 bits.

    Args:
        form: of WAYS: "location" in [0, 1] of the map; "grid" and "corner grid" in [-1, 1].
        what: they are, in words.
    """
    points = _thinned(locations.reshape(-1, 2))
    sizes, way = np.array([width, height], np.float64), WAYS[form]
    exact = way.pixel(points, sizes, _as_it_is)
    inside = ((exact > -1) & (exact < sizes)).all(axis=1)
    exact, points = exact[inside], points[inside]
    if not len(points):
        return
    held = low.rounded(points)
    at_port = _error(way.pixel(held, sizes, _as_it_is), exact, sizes, low)
    in_kernel = _error(way.pixel(held, sizes, low.rounded), exact, sizes, low)
    found = range_of(locations)
    for kind, error, done in (
        ("location", at_port, f"the {what} rounded"), ("location product", in_kernel, f"the {what} rounded, and {way.formula} in 16 bits"),
    ):  # fmt: skip
        if error.most > _WORTH:
            yield Hazard(kind, _severity(error), *place, found.low, found.high, _words(error, done, width, height), error._asdict())


def of_pixels(place: Place, offsets: np.ndarray, width: int, height: int, low: Low) -> Iterator[Hazard]:
    """Offsets (..., 2) of an attention, x and y in pixels: rounded at the kernel's port. Those longer than the map sample nothing."""
    points = _thinned(offsets.reshape(-1, 2))
    points = points[(np.abs(points) <= (width, height)).all(axis=1)]
    if not len(points):
        return
    apart = np.abs(low.rounded(points) - points)
    rms, most, longest = float(np.sqrt((apart**2).mean())), float(apart.max()), float(np.abs(points).max())
    if most > _WORTH:
        step, found = step_at(longest + 1, low), range_of(offsets)
        words = f"the offsets rounded: off by {rms:.3f} px rms, {most:.3f} at most (steps of {step:g} px at {longest:.4g} px, the longest)"
        severity = "breaks" if most >= 0.5 else "loses" if rms > _WORTH else "watch"
        yield Hazard("sampling offset", severity, *place, found.low, found.high, words, {"rms": rms, "most": most, "step": step})


def of_offsets(place: Place, offsets: np.ndarray, stride: int, low: Low) -> Iterator[Hazard]:
    """Offsets (A, G*T*2, Ho, Wo) in pixels, (dy, dx) of each tap: place + offset in 16 bits; of a tap its centre's place."""
    A, pairs, height, width = offsets.shape
    parts = offsets.reshape(A, pairs // 2, 2, height, width)
    sizes = np.array([width * stride, height * stride], np.float64)
    rows, columns = (np.arange(size) * float(stride) for size in (height, width))
    worst: list[Points] = []
    exacts: list[Points] = []
    for axis, base in ((1, columns[None, :]), (0, rows[:, None])):
        exact = (parts[:, :, axis] + base).astype(np.float64)
        worst.append(_thinned(low.rounded(low.rounded(parts[:, :, axis]) + base).reshape(-1, 1)))
        exacts.append(_thinned(exact.reshape(-1, 1)))
    got, right = np.hstack(worst), np.hstack(exacts)
    inside = ((right > -1) & (right < sizes)).all(axis=1)
    if not inside.any():
        return
    error = _error(got[inside], right[inside], sizes, low)
    if error.most > _WORTH:
        found = range_of(offsets)
        words = _words(error, "place + offset in 16 bits", int(sizes[0]), int(sizes[1]))
        yield Hazard("offset position", _severity(error), *place, found.low, found.high, words, error._asdict())


def step_at(size: float, low: Low) -> float:
    """The distance of neighbouring numbers just below `size`: 0.125 for float16 between 128 and 256."""
    return 2.0 ** math.floor(math.log2(max(size - 1.0, 1.0))) * low.roundoff * 2


def _as_it_is(points: Points) -> Points:
    return points


def _error(got: Points, exact: Points, sizes: Points, low: Low) -> Error:
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


def _thinned(points: np.ndarray) -> Points:
    return points[:: max(len(points) // _SAMPLE, 1)].astype(np.float64)
