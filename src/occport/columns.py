"""Rows of texts as aligned columns for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def aligned(rows: Iterable[Iterable[str]], texts: Collection[int] = (0,)) -> str:
    """Columns two spaces apart, as wide as their widest cell.

    Args:
        rows: equally many cells each; at least one row.
        texts: numbers of the columns that stand to the left; all others, of numbers, to the right. -1 is the last.
    """
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = {number % len(widths) for number in texts}
    lines = []
    for row in table:
        cells = (cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
