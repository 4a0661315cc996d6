"""Numbers in words for people: with units, short enough for a table, exact values where they matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

NOTHING = "–"
_POWERS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def count(number: int | None) -> str:
    """1,234,567."""
    return NOTHING if number is None else f"{number:,}"


def amount(number: float | None, unit: str = "") -> str:
    """Four digits with a prefix of a thousand: 2.324 T, 180.4 M, 12."""
    if number is None:
        return NOTHING
    for power, letter in _POWERS:
        if abs(number) >= power:
            return f"{number / power:.4g} {letter}{unit}"
    return f"{number:.4g} {unit}".rstrip()


def size(number: float | None) -> str:
    """Bytes: 690.6 MiB, 120 B."""
    if number is None:
        return NOTHING
    for power, unit in _BYTES:
        if abs(number) >= power:
            return f"{number / power:,.4g} {unit}"
    return f"{number:,.0f} B"


def figure(number: float | None) -> str:
    """A measured number: 0 is 0, small and large ones with an exponent, others with four digits."""
    if number is None:
        return NOTHING
    if number == 0 or 1e-3 <= abs(number) < 1e5:
        return f"{number:.4g}"
    return f"{number:.2e}"


def share(part: float | None) -> str:
    """Of one, in per cent; 100% only where it is all."""
    if part is None:
        return NOTHING
    text = f"{part:.4%}"
    return "100%" if part == 1 else "< 100%" if text == "100.0000%" else text


def milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds."""
    return NOTHING if seconds is None else f"{seconds * 1e3:,.4g} ms"


def shape(sizes: Iterable[int]) -> str:
    """1 x 6 x 3; "scalar" for rank 0."""
    return " × ".join(map(str, sizes)) or "scalar"


def plain(name: str) -> str:
    """A key of a record as words: max_abs → max abs."""
    return name.replace("_", " ")


def commas(values: Iterable[Any]) -> str:
    """One after the other; a dash for none."""
    return ", ".join(map(str, values)) or NOTHING


FILTERS: Mapping[str, Callable[..., str]] = {
    "count": count, "amount": amount, "size": size, "figure": figure, "share": share, "milliseconds": milliseconds, "dims": shape,
    "plain": plain, "commas": commas,
}  # fmt: skip
