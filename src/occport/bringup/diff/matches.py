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
        self._aligned: set[str] = set()
        self.remarks: list[str] = []

    def of(self, entry: Entry, golden: np.ndarray, theirs: np.ndarray) -> Match | None:
        """The match of a tensor's level; None where there is no table, and for a table that lists the same voxels in another order."""
        table = self._table(entry)
        if table is None:
            return None
        if table.name not in self._found:
            match, sure = self._match(table, entry, golden, theirs)
            if not sure:
                return match
            self._found[table.name] = match
        match = self._found[table.name]
        return None if entry == table and match is not None and not match.unmatched else match

    @property
    def shifted(self) -> dict[str, Match]:
        """Tables that they did not dump → how their rows are shifted against ours, as the rows themselves tell."""
        return {name: match for name, match in self._found.items() if match is not None and name in self._aligned}

    def _table(self, entry: Entry) -> Entry | None:
        """The golden table that says which voxel is in each slot of this tensor."""
        index = self._both.index
        for name in index.slots:
            table = index.entry(name)
            if table is not None and (table.stage == entry.stage or (entry.stage in ("", "tables") and _room(table) == _room(entry))):
                return table
        return None

    def _match(self, table: Entry, entry: Entry, golden: np.ndarray, theirs: np.ndarray) -> tuple[Match | None, bool]:
        """The match, and whether it holds for the whole level: tensors without rows of slots do not tell where there is no table."""
        ours = self._both.golden(table.name).reshape(table.shape[-2:])
        got, _ = self._both.read(table, ours)
        if got is not None:
            match = matched(ours, np.asarray(got.array).reshape(ours.shape))
            self._tell(table, match)
            return match, True
        plain = matched(ours, ours)
        if entry.axes[:2] != ("A", "K") or "float" not in entry.dtype:
            return plain, False
        shifted = aligned_rows(ours, golden, theirs)
        if shifted is None:
            return plain, True
        self._aligned.add(table.name)
        how = f"{shifted.unmatched} slots more or less; matched by their numbers, as {table.name} was not dumped"
        self.remarks.append(f"{table.stage}: rows are shifted against ours, {how}")
        return shifted, True

    def _tell(self, table: Entry, match: Match) -> None:
        if match.unmatched:
            shown = [*(("ours", *pair) for pair in match.only_ours[:2]), *(("theirs", *pair) for pair in match.only_theirs[:2])]
            who = "; ".join(f"only {side}: camera {camera}, voxel {voxel}" for side, camera, voxel in shown)
            many = f"{match.unmatched} voxels of cameras are in one table only"
            self.remarks.append(f"{table.stage}: {many} ({who}); rows matched by voxel")
        elif not match.plain:
            place = np.arange(match.theirs.shape[1])
            count = int(np.count_nonzero((match.theirs != place) & match.filled))
            self.remarks.append(f"{table.name}: {count} slots hold the right voxels in another order; rows matched by voxel")


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
