"""Rows that hold every pair of values of any two factors, so far as a row with that pair can be: the usual way to test combinations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product

Row = tuple[str | int, ...]


def rows(factors: Mapping[str, Sequence[str | int]], possible: Callable[[Row], bool]) -> list[Row]:
    """Greedy: of all possible rows again and again the one with most pairs that no row has yet. The same for the same factors."""
    candidates = [row for row in product(*factors.values()) if possible(row)]
    pairs = {row: {(i, row[i], j, row[j]) for i, j in combinations(range(len(row)), 2)} for row in candidates}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        best = max(candidates, key=lambda row: len(pairs[row] & missing))
        chosen.append(best)
        missing -= pairs[best]
    return chosen
