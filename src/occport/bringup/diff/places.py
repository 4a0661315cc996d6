"""Where in a tensor something is wrong, in words: cameras by name, voxels by their place, channels, rows and columns of a map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..dumps.axes import AXIS_WORDS
from ..dumps.index import Entry, Index
from .explain import Finding
from .rows import filled_slots

_LISTED = 3


def place_words(index: Index, theirs: Callable[[str], NDArray[np.generic] | None], finding: Finding) -> str:
    """The rows of a finding: "camera 3 (BACK), 12 of 384 slots, worst slot 17"; with the note on odd numbers."""
    entry = index.entry(finding.tensor)
    parts = [finding.note] if finding.note else []
    if finding.note and finding.got is not None and finding.want is not None:
        beside = np.argwhere(~np.isfinite(finding.got) & np.isfinite(finding.want))
        if len(beside):
            parts.append("first at " + _indices(index, entry, tuple(range(finding.got.ndim)), beside[0]))
    worst = finding.worst
    if worst is None or worst.rows is None:
        return ", ".join(parts)
    if not worst.kept or not len(worst.rows):
        return ", ".join(parts) or "everywhere"
    rows, shape = worst.rows, finding.got.shape if finding.got is not None else ()
    first = _indices(index, entry, worst.kept, rows[0], theirs)
    if len(rows) == 1:
        return ", ".join([*parts, first])
    shared = []
    for column, axis in enumerate(worst.kept):
        values = np.unique(rows[:, column])
        if len(values) <= _LISTED and (not shape or len(values) < shape[axis]):
            shared.append(" and ".join(_index(index, entry, axis, int(value)) for value in values))
    what = f"{len(rows):,} of {worst.count:,} {_rows(entry, worst.kept)}"
    return ", ".join([*parts, f"{what}{', all of ' + ', '.join(shared) if shared else ''}", f"worst {first}"])


def _rows(entry: Entry | None, kept: tuple[int, ...]) -> str:
    if entry is None or not entry.axes:
        return "rows"
    letters = [entry.axes[axis] for axis in kept]
    if {"X", "Y", "Z"} <= set(letters):
        return "voxels"
    return {"H": "pixels", "W": "pixels", "Wo": "pixels"}.get(letters[-1], f"{AXIS_WORDS.get(letters[-1], 'row')}s")


def _indices(
    index: Index, entry: Entry | None, kept: tuple[int, ...], row: NDArray[np.int64],
    theirs: Callable[[str], NDArray[np.generic] | None] | None = None,
) -> str:  # fmt: skip
    shape = entry.shape if entry is not None else ()
    said = [_index(index, entry, axis, int(value)) for axis, value in zip(kept, row, strict=True) if not shape or shape[axis] > 1]
    text = ", ".join(said) or "the only value"
    voxel = _voxel(index, entry, dict(zip(kept, map(int, row), strict=True)), theirs)
    return f"{text} ({voxel})" if voxel else text


def _index(index: Index, entry: Entry | None, axis: int, value: int) -> str:
    letter = entry.axes[axis] if entry is not None and entry.axes else ""
    name = f" ({index.cameras[value]})" if letter == "A" and value < len(index.cameras) else ""
    return f"{AXIS_WORDS.get(letter, f'axis {axis}')} {value}{name}"


def _voxel(index: Index, entry: Entry | None, at: dict[int, int], theirs: Callable[[str], NDArray[np.generic] | None] | None) -> str:
    """The place of a voxel that is told by its number, or by its slot."""
    if entry is None or not entry.axes or not entry.stage.startswith("level "):
        return ""
    level = int(entry.stage.removeprefix("level "))
    if level >= len(index.grids):
        return ""
    letters = {entry.axes[axis]: value for axis, value in at.items()}
    number = letters.get("V")
    if number is None and "K" in letters and "A" in letters and theirs is not None and level < len(index.slots):
        table = theirs(index.slots[level])
        if table is None or not filled_slots(np.asarray(table, np.int64).reshape(-1, table.shape[-1]))[letters["A"], letters["K"]]:
            return ""
        number = int(table.reshape(-1, table.shape[-1])[letters["A"], letters["K"]])
    grid = index.grids[level]
    if number is None or not 0 <= number < grid[0] * grid[1] * grid[2]:
        return ""
    z, y, x = (int(one) for one in np.unravel_index(number, grid))
    return f"voxel X {x}, Y {y}, Z {z}"
