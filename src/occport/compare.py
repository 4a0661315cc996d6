"""Comparing what a model gives with what it should give: the worst value, its place, and which labels differ.

Everything is computed in float64 in pieces of a few megabytes, so that comparing arrays of many million values costs little memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_PIECE = 2**18  # values in work at a time: 2 MiB in float64 for each temporary array


@dataclass(frozen=True)
class Comparison:
    """How `got` differs from `want`; made by `compare`.

    Attributes:
        passed: every element is within atol + rtol * |want|.
        reason: why the arrays could not be compared at all (shape, dtype, empty); then all numbers are nan and all indices ().
        max_abs: the largest |got - want|; inf where one is nan or they are different infinities.
        max_rel: the largest |got - want| / max(|want|, atol): atol bounds it where `want` is near zero.
        index: the worst element, which passes |got - want| <= atol + rtol * |want| by most, or comes closest to passing it.
        axes: names of the axes of `index`.
        shape: shape of both arrays.
        got, want: the values at `index`.
        rms: root of the mean square difference.
        cosine: cosine of the angle between both arrays over their finite elements; 1.0 where both are all zero.
        failing, total: number of elements beyond the tolerance, and of all.
        row_index: the worst row (the voxel, where the row axis is the class): index without the row axis; () without one.
        row_axes: names of the axes of `row_index`.
        row_rms: root of the mean square difference along that row; nan without a row axis.
    """

    passed: bool
    reason: str = ""
    max_abs: float = math.nan
    max_rel: float = math.nan
    index: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    got: float = math.nan
    want: float = math.nan
    rms: float = math.nan
    cosine: float = math.nan
    failing: int = 0
    total: int = 0
    row_index: tuple[int, ...] = ()
    row_axes: tuple[str, ...] = ()
    row_rms: float = math.nan

    def describe(self) -> str:
        """One line: the worst difference and its place, the whole, the worst row, and how many fail."""
        if self.reason:
            return self.reason
        if self.max_abs == 0:
            return f"equal, {self.total:,} values"
        sizes = dict(zip(self.axes, self.shape, strict=True))
        parts = [
            f"max abs {self.max_abs:.1e} (rel {self.max_rel:.1e}), worst at {_place(self.index, self.axes, sizes)}: "
            f"got {self.got:.6g}, want {self.want:.6g}",
            f"rms {self.rms:.1e}",
            f"cosine {self.cosine:.8f}",
        ]
        if self.row_axes:
            word = "voxel" if {"X", "Y", "Z"} <= set(self.row_axes) else "row"
            parts.append(f"worst {word} {_place(self.row_index, self.row_axes, sizes)} (rms {self.row_rms:.1e})")
        count = f"{self.failing:,} of {self.total:,} beyond" if self.failing else f"all {self.total:,} within"
        parts.append(f"{count} the tolerance")
        return "; ".join(parts)


def compare(
    got: np.ndarray, want: np.ndarray, *, atol: float, rtol: float, axes: Sequence[str] | None = None, row_axis: int | None = None,
    equal_nan: bool = False,
) -> Comparison:
    """Compares two arrays of one shape and dtype (any real dtype) element by element.

    Args:
        got: the array to judge.
        want: the reference.
        atol, rtol: an element fails where |got - want| > atol + rtol * |want|. Equal infinities pass, different ones and nan fail.
        axes: a name for each axis, such as ("B", "class", "X", "Y", "Z"); None names them "axis 0", "axis 1", ...
        row_axis: the axis (may be negative) along which one row lies, such as the class axis of logits; None: no row is looked for.
        equal_nan: nan on both sides passes too.

    Returns: a Comparison; a different shape or dtype, and arrays without elements, do not pass and have a `reason`.
    """
    assert atol >= 0 and rtol >= 0, (atol, rtol)
    if got.shape != want.shape:
        return Comparison(False, f"expected shape {list(want.shape)}, got {list(got.shape)}")
    if got.dtype != want.dtype:
        return Comparison(False, f"expected dtype {want.dtype.name}, got {got.dtype.name}")
    if not np.can_cast(want.dtype, np.float64):
        return Comparison(False, f"expected real numbers, got dtype {want.dtype.name}")
    if want.size == 0:
        return Comparison(False, f"expected values to compare, got empty arrays of shape {list(want.shape)}")
    names = tuple(axes) if axes is not None else tuple(f"axis {axis}" for axis in range(want.ndim))
    assert len(names) == want.ndim, f"{want.ndim} axes, names {names}"
    row = None if row_axis is None else range(want.ndim)[row_axis]
    totals = _Totals(want.shape, row)
    for place, got_piece, want_piece in _pieces(got, want, row):
        totals.add(place, got_piece, want_piece, atol, rtol, equal_nan)
    index = totals.worst_index()
    row_index = () if row is None else totals.worst_row()
    return Comparison(
        passed=totals.failing == 0, max_abs=totals.max_abs, max_rel=totals.max_rel, index=index, axes=names, shape=want.shape,
        got=float(got[index]), want=float(want[index]), rms=math.sqrt(totals.square / want.size), cosine=totals.cosine(),
        failing=totals.failing, total=want.size, row_index=row_index, row_axes=() if row is None else names[:row] + names[row + 1 :],
        row_rms=math.nan if row is None else math.sqrt(totals.row_square.max() / want.shape[row]),
    )


_Place = tuple[slice, slice, slice]


def _pieces(got: np.ndarray, want: np.ndarray, row: int | None) -> Iterator[tuple[_Place, np.ndarray, np.ndarray]]:
    """Both arrays as (before, row, after), in pieces that hold whole rows: the piece's place in that form, and its values in float64."""
    split = want.ndim if row is None else row
    length = 1 if row is None else want.shape[split]
    inner = math.prod(want.shape[split + 1 :])
    # (..., row, ...) to (before, row, after); without a row axis (all, 1, 1)
    got3, want3 = got.reshape(-1, length, inner), want.reshape(-1, length, inner)
    outer_step = max(1, _PIECE // (length * inner))
    inner_step = inner if outer_step > 1 else max(1, _PIECE // length)
    for outer in range(0, want3.shape[0], outer_step):
        for first in range(0, inner, inner_step):
            place = (slice(outer, outer + outer_step), slice(None), slice(first, first + inner_step))
            yield place, got3[place].astype(np.float64), want3[place].astype(np.float64)


class _Totals:
    """Sums and maxima over the pieces of two arrays."""

    def __init__(self, shape: tuple[int, ...], row: int | None) -> None:
        split = len(shape) if row is None else row
        self._shape, self._row = shape, row
        self._length, self._inner = (1, 1) if row is None else (shape[split], math.prod(shape[split + 1 :]))
        self._excess, self._worst = -math.inf, 0
        self.max_abs = self.max_rel = self.square = 0.0
        self.failing = 0
        self._dot = self._got_square = self._want_square = 0.0
        self.row_square = np.zeros((math.prod(shape[:split]), self._inner) if row is not None else (0, 0))

    def add(self, place: _Place, got: np.ndarray, want: np.ndarray, atol: float, rtol: float, equal_nan: bool) -> None:
        finite = np.isfinite(got) & np.isfinite(want)
        same = (got == want) | (np.isnan(got) & np.isnan(want) if equal_nan else False)
        got, want = np.where(finite, got, 0.0), np.where(finite, want, 0.0)
        difference = np.where(finite, np.abs(got - want), np.where(same, 0.0, np.inf))
        size = np.abs(want)
        excess = difference - (atol + rtol * size)
        self.failing += int(np.count_nonzero(excess > 0))
        worst = int(np.argmax(excess))
        if excess.flat[worst] > self._excess:
            self._excess = float(excess.flat[worst])
            outer, row, inner = (int(i) for i in np.unravel_index(worst, excess.shape))
            self._worst = ((place[0].start + outer) * self._length + row) * self._inner + place[2].start + inner
        self.max_abs = max(self.max_abs, float(difference.max()))
        floor = np.maximum(size, atol)
        relative = np.divide(difference, floor, out=np.where(difference > 0, np.inf, 0.0), where=floor > 0)
        self.max_rel = max(self.max_rel, float(relative.max()))
        square = np.square(difference)
        self.square += float(square.sum())
        self._dot += float(np.vdot(got, want))
        self._got_square += float(np.vdot(got, got))
        self._want_square += float(np.vdot(want, want))
        if self._row is not None:
            self.row_square[place[0], place[2]] = square.sum(axis=1)  # (before, row, after) to (before, after)

    def cosine(self) -> float:
        if self._got_square == 0 or self._want_square == 0:
            return 1.0 if self._got_square == self._want_square else 0.0
        return max(-1.0, min(1.0, self._dot / math.sqrt(self._got_square) / math.sqrt(self._want_square)))

    def worst_index(self) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(self._worst, self._shape))

    def worst_row(self) -> tuple[int, ...]:
        assert self._row is not None
        shape = self._shape[: self._row] + self._shape[self._row + 1 :]
        return tuple(int(i) for i in np.unravel_index(int(np.argmax(self.row_square)), shape))


def _place(index: tuple[int, ...], axes: tuple[str, ...], sizes: dict[str, int]) -> str:
    """An index with names, without the axes of length 1: "class 3, X 17"."""
    named = [f"{name} {i}" for name, i in zip(axes, index, strict=True) if sizes[name] > 1]
    return ", ".join(named) or "the only value"


@dataclass(frozen=True)
class LabelComparison:
    """How labels differ from those of reference logits; made by `compare_labels`.

    Attributes:
        passed: every label that differs is excused: the reference itself nearly chose it.
        reason: why nothing could be compared; then all numbers are 0 or nan.
        agreement: fraction of voxels with the same label.
        differing, unexcused, total: number of voxels whose label differs, of those beyond the noise, and of all.
        noise: the margin below which a label may differ.
        index: (b, x, y, z) of the differing voxel with the largest margin; () where none differs.
        got, want: the labels there.
        margin: by how much the reference preferred its own label there.
    """

    passed: bool
    reason: str = ""
    agreement: float = math.nan
    differing: int = 0
    unexcused: int = 0
    total: int = 0
    noise: float = math.nan
    index: tuple[int, ...] = ()
    got: int = 0
    want: int = 0
    margin: float = math.nan

    def describe(self) -> str:
        """One line: how many labels differ, how many of them without excuse, and the clearest of them."""
        if self.reason:
            return self.reason
        if not self.differing:
            return f"all {self.total:,} labels agree"
        b, x, y, z = self.index
        place = f"X {x}, Y {y}, Z {z}" + (f" of sample {b}" if b else "")
        excuse = f"{self.unexcused:,} beyond the noise" if self.unexcused else "all within the noise"
        return (
            f"labels agree on {self.agreement:.4%} of {self.total:,} voxels; {self.differing:,} differ, {excuse} of {self.noise:.1e}; "
            f"clearest at {place}: got {self.got}, want {self.want}, margin {self.margin:.1e}"
        )


def compare_labels(got_labels: np.ndarray, want_logits: np.ndarray, *, noise: float, threshold: float = 0.25) -> LabelComparison:
    """Compares labels with those that reference logits stand for. A label may differ only where the reference was undecided.

    The margin of a voxel is how far the reference's logit of its own label lies above that of the label it got (infinite for a label
    that is no class). For one class it is the distance from the threshold's logit. A nan among the reference's logits excuses nothing.

    Args:
        got_labels: (B, X, Y, Z) integers or booleans: class index, or occupied 1 / free 0 where there is one class.
        want_logits: (B, C, X, Y, Z) floats.
        noise: margin below which a label may differ, in logits.
        threshold: for C = 1, the probability above which a voxel is occupied (SurroundOcc's metric: 0.25), between 0 and 1.
    """
    assert noise >= 0 and 0 < threshold < 1, (noise, threshold)
    if want_logits.ndim != 5:
        return LabelComparison(False, f"expected logits of shape [B, C, X, Y, Z], got {list(want_logits.shape)}")
    wanted = (*want_logits.shape[:1], *want_logits.shape[2:])
    if got_labels.shape != wanted:
        return LabelComparison(False, f"expected labels of shape {list(wanted)}, got {list(got_labels.shape)}")
    if got_labels.dtype.kind not in "iub":
        return LabelComparison(False, f"expected integer labels, got dtype {got_labels.dtype.name}")
    if got_labels.size == 0:
        return LabelComparison(False, f"expected labels to compare, got an empty array of shape {list(got_labels.shape)}")
    differing = unexcused = 0
    worst: tuple[float, tuple[int, ...], int, int] = (-1.0, (), 0, 0)
    for b in range(want_logits.shape[0]):
        for x in range(want_logits.shape[2]):
            want, margin = _labels_and_margins(got_labels[b, x], want_logits[b, :, x].astype(np.float64), threshold)
            different = got_labels[b, x] != want
            differing += int(np.count_nonzero(different))
            unexcused += int(np.count_nonzero(different & (margin >= noise)))
            if different.any():
                y, z = (int(i) for i in np.unravel_index(int(np.argmax(np.where(different, margin, -1.0))), margin.shape))
                if margin[y, z] > worst[0]:
                    worst = (float(margin[y, z]), (b, x, y, z), int(got_labels[b, x, y, z]), int(want[y, z]))
    margin_there, index, got, wanted_label = worst
    return LabelComparison(
        passed=unexcused == 0, agreement=1 - differing / got_labels.size, differing=differing, unexcused=unexcused, total=got_labels.size,
        noise=noise, index=index, got=got, want=wanted_label, margin=margin_there if index else math.nan,
    )


def _labels_and_margins(got: np.ndarray, logits: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The reference's labels (Y, Z) and how far it prefers each to the label in `got` (Y, Z); `logits` (C, Y, Z) float64."""
    classes = logits.shape[0]
    edge = math.log(threshold / (1 - threshold))
    if classes == 1:
        want = (logits[0] > edge).astype(np.int64)
        legal = (got == 0) | (got == 1)
        margin = np.abs(logits[0] - edge)
    else:
        want = np.argmax(logits, axis=0)
        legal = (got >= 0) & (got < classes)
        chosen = np.where(legal, got, 0)[None].astype(np.int64)
        margin = np.max(logits, axis=0) - np.take_along_axis(logits, chosen, axis=0)[0]
    return want, np.where(legal & ~np.isnan(margin), margin, np.inf)
