"""Whether a difference is more than rounding: the whole of a tensor, and each of its rows, against the noise of the very same row.

A row (a channel, a voxel, a camera, one slot) of n numbers differs by E, the sum of squares. D runs with rounding errors of the dtype
differ by N_1 ... N_D there. Were the difference such noise too, E / mean(N) would be the ratio of two sums of squares with v and v*D
degrees of freedom, where v is at most n, and less where errors share a cause (one weight of a channel, one position of a slot). v is
estimated from how unlike the N_j of a row are: for sums of squares, their shares of the total are Dirichlet-distributed, with
E[sum_j (share_j - 1/D)^2] = (1 - 1/D) / (v*D/2 + 1).

The limit for the worst of R rows is what R such ratios exceed once in ten thousand times: for the numerator Laurent and Massart's bound
(Ann. Statist. 28, 2000, lemma 1) x <= 1 + 2*sqrt(t/v) + 2*t/v, for the denominator Chernoff's, exp(-v*D/2 * (x - 1 - ln x)) = exp(-t),
t = ln(R / 1e-4). It is taken times 2 for what the noise leaves out, and rows are allowed as much more as the typical row takes: a kernel
that adds in its own dtype is worse everywhere, while a bug is worse somewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

_ALARM = 1e-4  # chance of a false alarm in one way of cutting a tensor into rows
_MARGIN = 2.0
_SHORTEST = 4  # numbers in a row
_BIG = 2**24  # above this many numbers only a few ways of cutting into rows are tried
_LEAST = 0.5  # of the typical noise, that every number may have: one that is near zero by chance, or cut off there
_LOOKED_AT = 256  # rows one by one
_NEAR = 4.0  # times worse that a way of cutting into rows may be, to be the one that is told
_QUICK = 2.5  # a row within this many times its noise needs no second look
Kept = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Worst:
    """How far a difference goes beyond noise.

    Attributes:
        ratio: the difference of the worst row (or of all) over what is allowed, both root mean square; above 1: not explained.
        kept: axes that number its rows; () for the whole tensor.
        rows: (n, len(kept)) of all rows beyond what is allowed, the worst first.
        count: rows in all.
        times: its root mean square over that of the noise.
    """

    ratio: float
    kept: Kept = ()
    rows: NDArray[np.int64] | None = None
    count: int = 1
    times: float = 0.0


class Sums:
    """Sums of squares of a difference, of the signal and of noise, by rows.

    Args:
        difference, signal: of one shape; finite.
        tiny: absolute error where numbers underflow.
        unit: largest relative error of one rounding.
    """

    def __init__(self, difference: np.ndarray, signal: np.ndarray, tiny: float, unit: float) -> None:
        kind = np.float64 if difference.size < _BIG else np.float32
        self._whole = difference
        self.shape = difference.shape
        self._kinds = list(_ways(self.shape))
        self._unit = unit
        square = np.square(difference, dtype=kind)
        self._difference = {kept: _summed(square, kept) for kept in self._kinds}
        square = np.square(signal, dtype=kind)
        self._signal = {kept: _summed(square, kept) for kept in self._kinds}
        typical = float(self._signal[()].item()) / max(1, difference.size)
        self._floor = tiny**2 + (unit * 1e-3) ** 2 * typical
        self._noise: dict[Kept, list[np.ndarray]] = {kept: [] for kept in self._kinds}

    @property
    def draws(self) -> int:
        """Runs with noise so far."""
        return len(self._noise[()])

    def add(self, noise: np.ndarray) -> None:
        """One more run: its difference from the run without noise."""
        square = np.square(noise, dtype=np.float64 if noise.size < _BIG else np.float32)
        for kept in self._kinds:
            self._noise[kept].append(_summed(square, kept))

    def within_rounding(self) -> float:
        """The largest row's difference over two roundings of its numbers, both root mean square: at most 1 needs no noise to explain it."""
        worst = 0.0
        for kept in self._kinds:
            allowed = (2 * self._unit) ** 2 * self._signal[kept] + self._floor * self._length(kept)
            worst = max(worst, float((self._difference[kept] / allowed).max()))
        return math.sqrt(worst)

    def quick(self) -> bool:
        """True where every row is so near its noise that more runs would not change the verdict."""
        return all(float((self._difference[kept] / self._allowance(kept)).max()) <= _QUICK**2 for kept in self._kinds)

    def worst(self, gain: float) -> Worst:
        """The verdict.

        Args:
            gain: how many times the noise a whole tensor may differ: what adding many terms in the dtype itself costs.
        """
        found: list[Worst] = []
        for kept in self._kinds:
            ratio = self._difference[kept] / self._allowance(kept)
            scale = gain**2 if not kept else max(1.0, min(gain**2, self._usual(kept, ratio)))
            found.append(self._of(kept, ratio, _MARGIN**2 * scale))
        best = max(found, key=lambda one: one.ratio)
        if best.ratio <= 1:
            return best
        # a way in which few rows are bad says where it is, the better the longer these are; where none does, it is everywhere
        near = [one for one in found if one.ratio >= max(1.0, best.ratio / _NEAR)]
        telling = [one for one in near if one.rows is not None and one.kept and 2 * len(one.rows) <= one.count]
        if telling:
            chosen = min(telling, key=lambda one: (len(one.kept), len(one.rows) / one.count if one.rows is not None else 1.0))
            for one in sorted(telling, key=lambda one: len(one.kept)):  # a further axis tells more where it makes no more rows: one camera
                if set(one.kept) > set(chosen.kept) and _number(one) <= _number(chosen):
                    chosen = one
        else:
            chosen = next((one for one in near if not one.kept), best)
        return replace(chosen, ratio=best.ratio)

    def _of(self, kept: Kept, ratio: np.ndarray, factor: float) -> Worst:
        """The worst rows of one way; where a difference sits in few of a row's numbers, those are what is judged."""
        freedom = self._freedom(kept)
        limit = factor * self._extreme(freedom, ratio.size)
        top = float(ratio.max())
        beyond = np.argwhere(ratio > limit)
        if not kept or not len(beyond):
            return Worst(math.sqrt(top / limit), kept, beyond, ratio.size, math.sqrt(top))
        beyond = beyond[np.argsort(-ratio[tuple(beyond.T)], kind="stable")]
        inner = [axis for axis in range(len(self.shape)) if axis not in kept]
        rows = np.transpose(self._whole, (*kept, *inner))
        excess = np.zeros(len(beyond))
        for i, row in enumerate(beyond[:_LOOKED_AT]):
            square = np.square(rows[tuple(row)], dtype=np.float64)
            taking_part = float(square.sum() ** 2 / max(float(np.square(square).sum()), 1e-300))
            own = factor * self._extreme(min(freedom, max(1.0, taking_part)), ratio.size)
            excess[i] = math.sqrt(float(ratio[tuple(row)]) / own)
        order = np.argsort(-excess, kind="stable")
        sure = beyond[order][excess[order] > 1] if excess.max() > 1 else beyond[:0]
        if len(beyond) > _LOOKED_AT and len(sure):
            sure = np.concatenate([sure, beyond[_LOOKED_AT:]])
        return Worst(float(excess.max()), kept, sure, ratio.size, math.sqrt(top))

    def _usual(self, kept: Kept, ratio: np.ndarray) -> float:
        """What the typical of several rows takes."""
        alive = ratio[self._signal[kept] > 0]
        return float(np.median(alive)) if alive.size > 2 else 1.0

    def _length(self, kept: Kept) -> int:
        return int(math.prod(self.shape) // max(1, math.prod(self.shape[axis] for axis in kept)))

    def _allowance(self, kept: Kept) -> np.ndarray:
        """The mean noise of each row, or what is typical for one with so much signal, whichever is more."""
        noise = np.mean(self._noise[kept], axis=0, dtype=np.float64)
        mean = float(np.mean([one.item() for one in self._noise[()]]))
        typical = mean / max(float(self._signal[()].item()), 1e-300) * self._signal[kept]
        floor = self._floor + _LEAST**2 * mean / max(1, math.prod(self.shape))
        return np.asarray(np.maximum(noise, typical) + floor * self._length(kept))

    def _extreme(self, freedom: float, rows: int) -> float:
        t = math.log(rows / _ALARM)
        upper = 1 + 2 * math.sqrt(t / freedom) + 2 * t / freedom
        return upper / _lower(2 * t / (freedom * self.draws))

    def _freedom(self, kept: Kept) -> float:
        """Degrees of freedom of a row's noise, between 1 and its length."""
        parts = np.stack([one.ravel() for one in self._noise[kept]]).astype(np.float64)
        parts = parts[:, parts.sum(0) > 0]
        draws = len(parts)
        if draws < 2 or not parts.size:
            return 1.0
        spread = float((np.square(parts / parts.sum(0) - 1 / draws)).sum(0).mean())
        freedom = 2 / draws * ((1 - 1 / draws) / max(spread, 1e-12) - 1)
        return float(np.clip(freedom, 1.0, self._length(kept)))


def _number(found: Worst) -> int:
    return len(found.rows) if found.rows is not None else 0


def _ways(shape: tuple[int, ...]) -> Iterator[Kept]:
    """Axes that number the rows: none, each, all but one, the first few."""
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    total = math.prod(shape)
    ways: list[Sequence[int]] = [(), *((axis,) for axis in axes)]
    ways += [axes[:count] for count in range(2, len(axes))]
    if total < _BIG:
        ways += list(combinations(axes, len(axes) - 1)) if axes else []
    elif len(axes) > 2:
        ways += [[axis for axis in axes if axis != 1]]  # pixels of maps (A, C, H, W), voxels of volumes (B, C, Z, Y, X)
    for kept in dict.fromkeys(tuple(way) for way in ways):
        if not kept or total // math.prod(shape[axis] for axis in kept) >= _SHORTEST:
            yield kept


def _summed(square: np.ndarray, kept: Kept) -> np.ndarray:
    axes = tuple(axis for axis in range(square.ndim) if axis not in kept)
    return np.asarray(square.sum(axis=axes)).astype(np.float64)


def _lower(t: float) -> float:
    """x below 1 with x - 1 - ln x = t."""
    low, high = -t - 1.0, 0.0  # of ln x
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if math.exp(middle) - 1 - middle < t else (middle, high)
    return math.exp((low + high) / 2)
