"""Their rows in our order, level by level."""

from __future__ import annotations

import numpy as np

from ..dumps.index import Entry
from .both import Both
from .rows import Match, aligned_rows, matched, rearranged, renumbered


class Matches:
    """Which of their slots is which of ours, for each level: by their tables, else by the rows of the level's first tensor."""

    def __init__(self, both: Both) -> None:
        self._both = both
        self._found: dict[str, Match | None] = {}
        self.remarks: list[str] = []

    def of(self, entry: Entry, golden: np.ndarray, theirs: np.ndarray) -> Match | None:
        """The match of a tensor's level; None where there is no table."""
        table = self._table(entry)
        if table is None:
            return None
        if table.name not in self._found:
            self._found[table.name] = self._match(table, entry, golden, theirs)
        return self._found[table.name]

    def _table(self, entry: Entry) -> Entry | None:
        """The golden table that says which voxel is in each slot of this tensor."""
        index = self._both.index
        for name in index.slots:
            table = index.entry(name)
            if table is not None and (table.stage == entry.stage or (entry.stage in ("", "tables") and _room(table) == _room(entry))):
                return table
        return None

    def _match(self, table: Entry, entry: Entry, golden: np.ndarray, theirs: np.ndarray) -> Match | None:
        ours = self._both.golden(table.name).reshape(table.shape[-2:])
        got, _ = self._both.read(table, ours)
        if got is not None:
            match = matched(ours, np.asarray(got.array).reshape(ours.shape))
            if match.unmatched or not match.plain:
                shown = [*(("ours", *pair) for pair in match.only_ours[:2]), *(("theirs", *pair) for pair in match.only_theirs[:2])]
                who = "; ".join(f"only {side}: camera {camera}, voxel {voxel}" for side, camera, voxel in shown)
                many = f"{match.unmatched} voxels of cameras are in one table only"
                self.remarks.append(f"{table.stage}: {many} ({who}); rows matched by voxel")
            return match
        plain = matched(ours, ours)
        if entry.axes[:2] != ("A", "K") or "float" not in entry.dtype:
            return plain
        shifted = aligned_rows(ours, golden, theirs)
        if shifted is None:
            return plain
        how = f"{shifted.unmatched} slots more or less; matched by their numbers, as {table.name} was not dumped"
        self.remarks.append(f"{table.stage}: rows are shifted against ours, {how}")
        return shifted


def _room(entry: Entry) -> tuple[int, ...]:
    """Cameras and slots of a tensor that has both."""
    if "K" in entry.axes:
        place = entry.axes.index("K")
        return entry.shape[place - 1 : place + 1]
    return ()


def in_our_order(entry: Entry, theirs: np.ndarray, match: Match | None) -> np.ndarray:
    """Their rows in the order of our slots; slot numbers in a table of rows turned into ours."""
    if match is None or match.plain:
        return theirs
    if entry.axes[-2:] == ("R", "V") and "int" in entry.dtype:
        return renumbered(theirs, match)
    if entry.axes[:1] == ("A*K",):
        A, K = match.theirs.shape
        rows = rearranged(theirs[: A * K].reshape(A, K, *theirs.shape[1:]), match).reshape(A * K, *theirs.shape[1:])
        return np.concatenate([rows, theirs[A * K :]])
    if "K" in entry.axes and entry.axes.index("K") in (1, 2):
        lead = entry.axes.index("K") - 1
        return rearranged(theirs.reshape(theirs.shape[lead:]), match).reshape(theirs.shape)
    return theirs
