"""Which voxels each camera would see if the projection were computed in 16 bits: unscaled, as the original does it, and scaled.

Original: pixels = lidar2img · (x, y, z, 1), divided by the depth, then by the image size. Scaled: the rows of the matrix are divided by
the image size first, so that the numbers stay small. A voxel is seen where its depth is over 1e-5 m and 0 < u < 1, 0 < v < 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...export.spec import Spec
from ...frames.visibility import voxel_centres
from .hazard import Hazard
from .rounding import Low
from .tensors import Place

_MIN_DEPTH = 1e-5
_PLACE = Place("lidar2img", "", "", "tables")


@dataclass(frozen=True)
class Hits:
    """What 16 bits do to the hits of one way of projecting.

    Attributes:
        way: "unscaled" or "scaled".
        largest: number on the way, in exact arithmetic.
        infinite: numbers that pass the largest.
        levels: of each level: hits, lost, gained.
        off: root mean square distance in pixels of places seen by both, and the largest.
    """

    way: str
    largest: float
    infinite: int
    levels: tuple[tuple[int, int, int], ...]
    off: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        levels = [dict(zip(("hits", "lost", "gained"), level, strict=True)) for level in self.levels]
        pixels = {"rms": self.off[0], "max": self.off[1]}
        return {"way": self.way, "largest": self.largest, "infinite": self.infinite, "levels": levels, "pixels_off": pixels}


def hits_in(spec: Spec, lidar2img: NDArray[np.floating], low: Low) -> tuple[Hits, Hits]:
    """Both ways in a 16-bit type. lidar2img: (N, 4, 4), lidar metres → pixels."""
    points = [
        voxel_centres((level.volume_h, level.volume_w, level.volume_z), spec.config.pc_range) for level in spec.config.levels
    ]  # fmt: skip
    exact = [_project(lidar2img, level, spec.image_hw, scaled=True, dtype=np.dtype(np.float64)) for level in points]
    unscaled, scaled = (
        _held(name, spec, lidar2img, points, exact, name == "scaled", low) for name in ("unscaled", "scaled")
    )  # fmt: skip
    return unscaled, scaled


def of_geometry(found: Sequence[Hits], low: Low, elsewhere: str = "") -> list[Hazard]:
    """A finding for each way that changes any hit, or has numbers that the type does not hold.

    Args:
        elsewhere: where the projection is, in words; "": in the file.
    """
    hazards = []
    for hits in found:
        lost, gained = (sum(level[i] for level in hits.levels) for i in (1, 2))
        whole = sum(level[0] for level in hits.levels)
        if lost or gained or hits.infinite:
            beyond = f", {hits.infinite:,} beyond {low.largest:,.0f}" if hits.infinite else ""
            words = f"{hits.way} projection in {low.name}: numbers up to {hits.largest:,.0f}{beyond}; {lost:,} of {whole:,} hits lost, "
            words += f"{gained:,} gained; places off by {hits.off[0]:.2f} px rms, {hits.off[1]:.1f} at most"
            words += f" ({elsewhere})" if elsewhere else ""
            figures = {"lost": lost, "gained": gained, "hits": whole, "largest": hits.largest, "pixels_rms": hits.off[0]}
            severity = "breaks" if (lost or gained) and not elsewhere else "watch"
            hazards.append(Hazard("geometry", severity, *_PLACE, -hits.largest, hits.largest, words, figures))
    return hazards


def _held(
    way: str, spec: Spec, lidar2img: NDArray[np.floating], points: Sequence[NDArray[np.float32]],
    exact: Sequence[tuple[NDArray[np.bool_], NDArray[np.float64], float, int]], scaled: bool, low: Low,
) -> Hits:  # fmt: skip
    levels, largest, infinite = [], 0.0, 0
    squares, count, most = 0.0, 0, 0.0
    size = np.array([spec.image_hw[1], spec.image_hw[0]], np.float64)
    for level, (hit, uv, _, _) in zip(points, exact, strict=True):
        _, _, reach, _ = _project(lidar2img, level, spec.image_hw, scaled=scaled, dtype=np.dtype(np.float64))
        got, there, _, beyond = _project(lidar2img, level, spec.image_hw, scaled=scaled, dtype=low.dtype)
        largest, infinite = max(largest, reach), infinite + beyond
        levels.append((int(hit.sum()), int((hit & ~got).sum()), int((got & ~hit).sum())))
        apart = np.hypot(*np.moveaxis((there - uv)[hit & got] * size, -1, 0))
        apart = apart[np.isfinite(apart)]
        squares, count, most = squares + float((apart**2).sum()), count + apart.size, max(most, float(apart.max(initial=0.0)))
    return Hits(way, largest, infinite, tuple(levels), (float(np.sqrt(squares / max(count, 1))), most))


def _project(
    lidar2img: NDArray[np.floating], points: NDArray[np.float32], image_hw: tuple[int, int], *, scaled: bool, dtype: np.dtype
) -> tuple[NDArray[np.bool_], NDArray[np.float64], float, int]:
    """Every operation in one type. Returns hits (N, V), places (N, V, 2) in [0, 1], the largest number, and how many are infinite."""
    size = np.array([image_hw[1], image_hw[0]], np.float64)
    rows = lidar2img.astype(np.float64)
    if scaled:
        rows = rows / np.array([*size, 1.0, 1.0])[:, None]
    with np.errstate(all="ignore"):
        matrix, (x, y, z) = rows.astype(dtype), points.T.astype(dtype)
        terms = [matrix[:, :3, i, None] * part[None, None] for i, part in enumerate((x, y, z))]
        sums = ((terms[2] + matrix[:, :3, 3, None]) + terms[1]) + terms[0]  # (N, 3, V)
        depth = sums[:, 2]
        places = sums[:, :2] / np.maximum(depth, np.asarray(_MIN_DEPTH, dtype))[:, None]
        if not scaled:
            places = places / size.astype(dtype)[None, :, None]
        uv = np.moveaxis(places.astype(np.float64), 1, -1)
        seen = (depth.astype(np.float64) > _MIN_DEPTH) & (uv > 0).all(-1) & (uv < 1).all(-1)
    numbers = [*terms, sums]
    infinite = sum(int(np.isinf(one.astype(np.float32)).sum()) for one in numbers)
    largest = max(float(np.abs(one.astype(np.float64)).max()) for one in numbers)
    return seen, uv, largest, infinite
