"""How far one tensor is from ours: figures over all elements, the worst row, and small pictures of where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..dumps.index import Entry, Index
from .result import QUANTILES, ErrorMap, Figures
from .rows import Match

_PIECE = 2**20  # elements in work at a time
_SAMPLE = 2**22  # elements that quantiles are taken from, evenly
_FLOOR = 1e-3  # of ours' root mean square, below which a relative difference is taken relative to that
_SIDE = 200  # pixels of a picture at most
_ROWS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (  # axes that a tensor has → what a row of it is
    (("X", "Y", "Z"), ("X", "Y", "Z")), (("A", "K"), ("A", "K")), (("V",), ("V",)), (("A", "C"), ("A", "C")), (("A", "O"), ("A", "O")),
    (("A",), ("A",)),
)  # fmt: skip


def figures_of(entry: Entry, golden: np.ndarray, theirs: np.ndarray, index: Index, match: Match | None) -> Figures:
    """The figures of a tensor.

    Args:
        golden, theirs: of one shape; theirs in our order of slots.
        match: of the tensor's level; rows of empty slots, and of voxels that only one of both has, are left out.
    """
    axes, golden, theirs = _with_slots(entry, golden, theirs, match)
    used = _used(axes, golden.shape, match)
    row_axes = tuple(axis for axis in axes if axis in _row_letters(axes))
    size = golden.size
    want_rms = math.sqrt(sum(float((part.astype(np.float64) ** 2).sum()) for part in _pieces(golden)) / size) if size else 0.0
    total = _Sum(_FLOOR * want_rms, size)
    squares = np.zeros([golden.shape[i] if axes and axes[i] in row_axes else 1 for i in range(golden.ndim)])
    for begin in _begins(golden):
        part = slice(begin, begin + _step(golden))
        want, got = golden[part].astype(np.float64), theirs[part].astype(np.float64)
        mask = used[part] if used is not None else None
        error = total.add(want, got, mask, begin)
        _add_rows(squares, error, axes, row_axes, part)
    place = _row_place(squares, axes, row_axes)
    count = size // max(int(np.prod([golden.shape[i] for i in range(golden.ndim) if axes and axes[i] in row_axes])), 1)
    worst = math.sqrt(float(squares.max()) / max(count, 1)) if squares.size else 0.0
    flips, labels = _flips(entry, golden, theirs, axes)
    return Figures(
        total.max_abs, total.max_rel, total.rms, total.cosine, total.quantiles(), tuple(map(int, total.place(golden.shape))), axes,
        total.got, total.want, place, row_axes, worst, row_words(axes, place, row_axes, index, entry.stage, match), flips, labels,
        total.not_numbers, match.unmatched if match is not None and used is not None else 0, total.count, want_rms,
    )  # fmt: skip


class _Sum:
    """Sums over pieces of two arrays."""

    def __init__(self, floor: float, size: int) -> None:
        self._floor, self._each = floor, max(size // _SAMPLE, 1)
        self.max_abs = self.max_rel = 0.0
        self.got = self.want = 0.0
        self.count = self.not_numbers = 0
        self._flat = 0
        self._square = self._gg = self._tt = self._gt = 0.0
        self._sampled: list[NDArray[np.float32]] = []

    def add(self, want: NDArray[np.float64], got: NDArray[np.float64], mask: NDArray[np.bool_] | None, begin: int) -> NDArray[np.float64]:
        """Adds a piece; returns |got - want|, 0 where nothing is compared and inf where theirs alone is no number."""
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(got - want)
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        error[same] = 0.0
        bad = ~np.isfinite(got) & np.isfinite(want)
        error[bad | np.isnan(error)] = np.inf
        if mask is not None:
            mask = np.broadcast_to(mask, error.shape)
            error[~mask] = 0.0
            bad &= mask
        self.not_numbers += int(bad.sum())
        self.count += int(mask.sum()) if mask is not None else error.size
        if error.size:
            flat = int(error.argmax())
            if error.flat[flat] > self.max_abs:
                self.max_abs = float(error.flat[flat])
                self.got, self.want = float(got.flat[flat]), float(want.flat[flat])
                self._flat = flat + begin * (error.size // max(error.shape[0], 1) if error.ndim else 1)
            with np.errstate(invalid="ignore", divide="ignore"):
                self.max_rel = max(self.max_rel, float(np.nan_to_num(error / np.maximum(np.abs(want), self._floor), posinf=np.inf).max()))
        finite = np.isfinite(got) & np.isfinite(want) & (mask if mask is not None else True)
        want, got = np.where(finite, want, 0.0), np.where(finite, got, 0.0)
        self._square += float((error * error).sum()) if np.isfinite(error).all() else np.inf
        self._gg, self._tt, self._gt = (self._gg + float((want * want).sum()), self._tt + float((got * got).sum()),
                                        self._gt + float((want * got).sum()))  # fmt: skip
        self._sampled.append(error.reshape(-1)[:: self._each].astype(np.float32))
        return error

    @property
    def rms(self) -> float:
        """Root mean square difference."""
        return math.sqrt(self._square / self.count) if self.count else 0.0

    @property
    def cosine(self) -> float:
        """Cosine of the angle between both, over finite elements; 1 where both are 0."""
        norm = math.sqrt(self._gg) * math.sqrt(self._tt)
        return self._gt / norm if norm else float(self._gg == self._tt and not self.not_numbers)

    def quantiles(self) -> tuple[float, ...]:
        """Of the differences, at QUANTILES."""
        sample = np.sort(np.concatenate(self._sampled)) if self._sampled else np.zeros(0)
        if not len(sample):
            return (0.0,) * len(QUANTILES)
        return tuple(float(sample[min(int(q * len(sample)), len(sample) - 1)]) for q in QUANTILES)

    def place(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the worst element."""
        return tuple(int(i) for i in np.unravel_index(self._flat, shape)) if math.prod(shape) and shape else ()


def _with_slots(
    entry: Entry, golden: np.ndarray, theirs: np.ndarray, match: Match | None
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:  # fmt: skip
    """Cameras and slots that have been merged into one axis, apart again; the row of none, behind the last slot, left out."""
    if entry.axes[:1] != ("A*K",) or match is None:
        return entry.axes, golden, theirs
    A, K = match.filled.shape
    rest = golden.shape[1:]
    return ("A", "K", *entry.axes[1:]), golden[: A * K].reshape(A, K, *rest), theirs[: A * K].reshape(A, K, *rest)


def _used(axes: tuple[str, ...], shape: tuple[int, ...], match: Match | None) -> NDArray[np.bool_] | None:
    if match is None or "K" not in axes or axes.index("K") < 1 or axes[axes.index("K") - 1] != "A":
        return None
    place = axes.index("A")
    filled = match.filled & (match.theirs >= 0)
    return filled.reshape(*(1,) * place, *filled.shape, *(1,) * (len(shape) - place - 2))


def _row_letters(axes: tuple[str, ...]) -> tuple[str, ...]:
    return next((row for needed, row in _ROWS if set(needed) <= set(axes)), axes[:1])


def _step(array: np.ndarray) -> int:
    return max(_PIECE // max(array[:1].size, 1), 1) if array.ndim else 1


def _begins(array: np.ndarray) -> Iterator[int]:
    yield from range(0, len(array) if array.ndim else 1, _step(array)) if array.ndim else (0,)


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    for begin in _begins(array):
        yield array[begin : begin + _step(array)] if array.ndim else array


def _add_rows(squares: NDArray[np.float64], error: NDArray[np.float64], axes: Sequence[str], rows: Sequence[str], part: slice) -> None:
    if not axes or not error.ndim:
        squares += float((error * error).sum())
        return
    others = tuple(i for i, axis in enumerate(axes) if axis not in rows)
    sums = (error * error).sum(axis=others, keepdims=True)
    squares[part if axes[0] in rows else slice(None)] += sums


def _row_place(squares: NDArray[np.float64], axes: Sequence[str], rows: Sequence[str]) -> tuple[int, ...]:
    if not rows or not squares.size:
        return ()
    place = np.unravel_index(int(squares.argmax()), squares.shape)
    return tuple(int(place[i]) for i, axis in enumerate(axes) if axis in rows)


def row_words(
    axes: Sequence[str], place: Sequence[int], row_axes: Sequence[str], index: Index, stage: str, match: Match | None = None
) -> str:  # fmt: skip
    """A row in words: "camera 2 (CAM_BACK), slot 40 = voxel (12, 40, 3)"; voxels as (x, y, z)."""
    found = dict(zip(row_axes, place, strict=True))
    words = []
    if "A" in found:
        name = f" ({index.cameras[found['A']]})" if found["A"] < len(index.cameras) else ""
        words.append(f"camera {found['A']}{name}")
    level = int(stage.removeprefix("level ")) if stage.startswith("level ") else -1
    grid = index.grids[level] if 0 <= level < len(index.grids) else None
    if "K" in found:
        voxel = int(match.voxels[found["A"], found["K"]]) if match is not None else -1
        words.append(f"slot {found['K']}" + (f" = {_voxel(voxel, grid)}" if voxel >= 0 else ""))
    if "V" in found:
        words.append(_voxel(found["V"], grid))
    if {"X", "Y", "Z"} <= set(found):
        words.append(f"voxel ({found['X']}, {found['Y']}, {found['Z']})")
    words += [f"channel {found[letter]}" for letter in ("C", "O") if letter in found]
    if not words and found:
        words.append(", ".join(f"{axis} {i}" for axis, i in found.items()))
    return ", ".join(words)


def _voxel(number: int, grid: tuple[int, int, int] | None) -> str:
    if grid is None:
        return f"voxel {number}"
    z, y, x = np.unravel_index(number, grid) if 0 <= number < math.prod(grid) else (-1, -1, -1)
    return f"voxel ({x}, {y}, {z})"


def _flips(entry: Entry, golden: np.ndarray, theirs: np.ndarray, axes: tuple[str, ...]) -> tuple[int, int]:
    """Labels that differ, and all: of whole numbers on a grid of voxels, and of logits by the largest class."""
    if not {"X", "Y", "Z"} <= set(axes) or entry.role != "output":
        return 0, 0
    if "float" not in entry.dtype:
        return int((golden != theirs).sum()), golden.size
    if "C" in axes and golden.shape[axes.index("C")] > 1:
        channel = axes.index("C")
        ours, others = golden.argmax(channel), theirs.argmax(channel)
        return int((ours != others).sum()), ours.size
    return 0, 0


def maps_of(entry: Entry, golden: np.ndarray, theirs: np.ndarray, index: Index, match: Match | None) -> tuple[ErrorMap, ...]:
    """Pictures of where a tensor differs: the worst camera's map, a volume from above, or a level's rows on their voxels from above."""
    axes, golden, theirs = _with_slots(entry, golden, theirs, match)
    with np.errstate(invalid="ignore", over="ignore"):
        if {"X", "Y", "Z"} <= set(axes):
            return (_volume(axes, golden, theirs),)
        if axes[:1] == ("A",) and axes[-2:] in (("H", "W"), ("Ho", "Wo")):
            return (_camera(golden, theirs, index),)
        level = int(entry.stage.removeprefix("level ")) if entry.stage.startswith("level ") else -1
        if axes[:2] == ("A", "K") and match is not None and 0 <= level < len(index.grids):
            return (_on_voxels(golden, theirs, match, index.grids[level]),)
        if axes[:1] == ("V",) and 0 <= level < len(index.grids):
            error = np.abs(theirs.astype(np.float32) - golden).reshape(len(golden), -1).mean(1).reshape(index.grids[level])
            return (_above(error, "voxels of the level"),)
    return ()


def _camera(golden: np.ndarray, theirs: np.ndarray, index: Index) -> ErrorMap:
    means = [float(np.abs(theirs[i].astype(np.float32) - golden[i]).mean()) for i in range(len(golden))]
    worst = int(np.nan_to_num(means, nan=np.inf).argmax())
    error = np.abs(theirs[worst].astype(np.float32) - golden[worst]).mean(0)
    name = f" ({index.cameras[worst]})" if worst < len(index.cameras) else ""
    return ErrorMap(f"camera {worst}{name}, mean over channels", *_small(error, "image row", "image column"))


def _volume(axes: tuple[str, ...], golden: np.ndarray, theirs: np.ndarray) -> ErrorMap:
    labels = golden.dtype.kind in "iub"
    error = (theirs != golden).astype(np.float32) if labels else np.abs(theirs.astype(np.float32) - golden)
    others = tuple(i for i, axis in enumerate(axes) if axis not in ("X", "Y", "Z"))
    left = [axis for axis in axes if axis in ("X", "Y", "Z")]
    title = "labels that differ" if labels else "mean over classes or channels"
    return _above(np.transpose(error.mean(others), [left.index(axis) for axis in ("Z", "Y", "X")]), title)


def _on_voxels(golden: np.ndarray, theirs: np.ndarray, match: Match, grid: tuple[int, int, int]) -> ErrorMap:
    rows = np.abs(theirs.astype(np.float32) - golden).reshape(*match.filled.shape, -1).mean(2)
    used = match.filled & (match.theirs >= 0)
    error = np.full(math.prod(grid), np.nan, np.float32)
    voxels = match.voxels[used]
    order = np.argsort(rows[used], kind="stable")  # of several cameras the worst is written last
    error[voxels[order]] = rows[used][order]
    return _above(error.reshape(grid), "rows of all cameras on their voxels, the worst of each")


def _above(error: NDArray[np.float32], title: str) -> ErrorMap:
    """(Z, Y, X) from above: the worst of each column; x to the right, y up."""
    return ErrorMap(f"{title}, from above", *_small(np.fmax.reduce(error, axis=0), "y", "x"), upwards=True)


def _small(error: NDArray[np.float32], down: str, right: str) -> tuple[NDArray[np.float32], str, str, tuple[int, int]]:
    """At most _SIDE pixels on a side, the worst of each block; what rows and columns are; and the size of a block."""
    rows, columns = (max(1, -(-size // _SIDE)) for size in error.shape)
    for axis, size in enumerate((rows, columns)):
        if size > 1:
            error = np.fmax.reduceat(error, np.arange(0, error.shape[axis], size), axis=axis)
    return np.ascontiguousarray(error, np.float32), down, right, (rows, columns)
