"""Their slots in the order of ours: rows are matched by camera and voxel, so that one voxel more or less shifts nothing.

Both tables hold a camera's voxels in ascending order and 0 in empty slots at the end. Where theirs was not dumped, the rows of a tensor
themselves tell by how much they are shifted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_REACH = 4  # slots that rows may be shifted by, where no table tells
_ASIDE = 0.1  # of the rows' mean square, that a change of the shift by one must save
_WORTH = 0.1  # of the difference, that may be left behind shifts


@dataclass(frozen=True, eq=False)
class Match:
    """Which of their slots holds what one of ours does.

    Attributes:
        theirs: (A, K) int64: for each of our slots theirs with the same voxel; -1 for an empty slot and for a voxel that they do not have.
        filled: (A, K) bool: our slots that hold a voxel.
        voxels: (A, K) int64: our table.
        unmatched: rows that only one of both has.
        only_ours, only_theirs: (camera, voxel) of some of them.
    """

    theirs: NDArray[np.int64]
    filled: NDArray[np.bool_]
    voxels: NDArray[np.int64]
    unmatched: int
    only_ours: tuple[tuple[int, int], ...] = ()
    only_theirs: tuple[tuple[int, int], ...] = ()

    @property
    def plain(self) -> bool:
        """True where every filled slot is where it should be."""
        place = np.arange(self.theirs.shape[1])
        return self.unmatched == 0 and bool((self.theirs == place)[self.filled].all())


def filled_slots(table: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(A, K) bool: slots that hold a voxel; voxels of a camera ascend, and 0 behind the first slot says that a slot is empty."""
    filled = table > 0
    filled[:, 0] = True
    return filled


def matched(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> Match:
    """Matches two tables (A, K) of the voxel in each slot."""
    filled, there = filled_slots(ours), filled_slots(theirs)
    found = np.full(ours.shape, -1, np.int64)
    only_ours: list[tuple[int, int]] = []
    only_theirs: list[tuple[int, int]] = []
    for camera, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        slots = np.flatnonzero(there[camera])
        order = slots[np.argsort(other[slots], kind="stable")]
        values = other[order]
        place = np.searchsorted(values, mine)
        same = (place < len(values)) & (values[np.minimum(place, len(values) - 1)] == mine) & filled[camera]
        found[camera, same] = order[place[same]]
        only_ours += [(camera, int(voxel)) for voxel in mine[filled[camera] & ~same]]
        only_theirs += [(camera, int(voxel)) for voxel in np.setdiff1d(values, mine[filled[camera]])]
    return Match(found, filled, ours, len(only_ours) + len(only_theirs), tuple(only_ours), tuple(only_theirs))


def aligned_rows(ours: NDArray[np.int64], golden: np.ndarray, theirs: np.ndarray) -> Match | None:
    """Matches rows by their numbers where their table is not known: a path of shifts along each camera's slots, changed where that pays.

    Args:
        ours: (A, K), our table.
        golden, theirs: (A, K, ...), a tensor of the level.

    Returns: None where no shift makes it any better.
    """
    A, K = ours.shape
    filled = filled_slots(ours)
    mine, other = (array.reshape(A, K, -1).astype(np.float32) for array in (golden, theirs))
    scale = float(np.mean(mine[filled] ** 2)) or 1.0
    found = np.full((A, K), -1, np.int64)
    shifted = unmatched = 0
    before = after = 0.0
    for camera in range(A):
        count = int(filled[camera].sum())
        path = _shifts(mine[camera, :count], other[camera], scale)
        slots = np.arange(count) + path
        inside = (slots >= 0) & (slots < K)
        found[camera, :count] = np.where(inside, slots, -1)
        before += float(((mine[camera, :count] - other[camera, :count]) ** 2).sum())
        after += float(((mine[camera, :count] - other[camera, np.clip(slots, 0, K - 1)]) ** 2)[inside].sum())
        after += scale * int((~inside).sum()) * mine.shape[2]
        shifted += int(np.count_nonzero(path))
        unmatched += int(np.abs(np.diff(path, prepend=0)).sum())
    return Match(found, filled, ours, unmatched) if shifted and after < _WORTH * before else None


def _shifts(mine: NDArray[np.float32], other: NDArray[np.float32], scale: float) -> NDArray[np.int64]:
    """The shift of each row with the least sum of squares, a change of it costing something."""
    count, shifts = len(mine), np.arange(-_REACH, _REACH + 1)
    errors = np.empty((len(shifts), count))
    for i, shift in enumerate(shifts):
        slots = np.arange(count) + shift
        inside = (slots >= 0) & (slots < len(other))
        errors[i] = np.where(inside, ((mine - other[np.clip(slots, 0, len(other) - 1)]) ** 2).mean(1), scale)
    price = np.abs(shifts[:, None] - shifts[None, :]) * scale * _ASIDE
    start = np.abs(shifts) * scale * _ASIDE
    best = start + errors[:, 0] if count else start
    came = np.zeros((count, len(shifts)), np.int64)
    for k in range(1, count):
        ways = best[:, None] + price
        came[k] = ways.argmin(0)
        best = ways[came[k], np.arange(len(shifts))] + errors[:, k]
    path = np.zeros(count, np.int64)
    state = int(best.argmin())
    for k in range(count - 1, -1, -1):
        path[k] = shifts[state]
        state = int(came[k, state])
    return path


def rearranged(theirs: np.ndarray, match: Match) -> np.ndarray:
    """Their rows (A, K, ...) in the order of our slots; rows that they do not have are 0."""
    taken = np.take_along_axis(theirs, np.maximum(match.theirs, 0).reshape(*match.theirs.shape, *(1,) * (theirs.ndim - 2)), 1)
    return np.where((match.theirs >= 0).reshape(*match.theirs.shape, *(1,) * (theirs.ndim - 2)), taken, 0).astype(theirs.dtype)


def renumbered(back: NDArray[np.int64], match: Match) -> NDArray[np.int64]:
    """Their slot numbers camera * K + k as ours; A * K (none) stays, and a slot that we do not have becomes -1."""
    A, K = match.theirs.shape
    ours = np.full(A * K + 1, -1, np.int64)
    ours[A * K] = A * K
    place = np.arange(A * K).reshape(A, K)
    known = match.theirs >= 0
    camera = np.broadcast_to(np.arange(A)[:, None], (A, K))
    ours[(camera * K + match.theirs)[known]] = place[known]
    return np.where((back >= 0) & (back <= A * K), ours[np.clip(back, 0, A * K)], -1)
