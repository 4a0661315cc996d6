"""What the value of a config key may be: each `Kind` says it in words and puts a right value into its final, hashable form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

MAX_COUNT = 65_536  # of anything that is counted: larger is a slip of the finger, and would end in want of memory
FINITE = 1e18  # a number below it is still finite in float32 when squared


def shown(value: object, limit: int = 100) -> str:
    """A value for an error message: `repr`, cut to `limit` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits than Python prints, or endless nesting
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit - 4]} ..."


class Kind(NamedTuple):
    """A type of value."""

    expected: str  # for messages
    read: Callable[[Any], Any]  # the value in its final form, hashable; None where it is wrong


def _is_whole(value: object, low: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= MAX_COUNT


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < FINITE  # false for NaN


def _many(value: Any, length: int | None, accept: Callable[[Any], bool]) -> tuple[Any, ...] | None:
    right = isinstance(value, list | tuple) and length in (None, len(value)) and all(accept(item) for item in value)
    return tuple(value) if right else None


def whole(limit: int = MAX_COUNT) -> Kind:
    """A whole number from 1."""
    return Kind(f"a whole number from 1 to {limit:,}", lambda value: value if _is_whole(value) and value <= limit else None)


def wholes(length: int) -> Kind:
    """So many whole numbers from 1."""
    return Kind(f"{length} values, each a whole number from 1 to {MAX_COUNT:,}", lambda value: _many(value, length, _is_whole))


def numbers(length: int, *, positive: bool = False) -> Kind:
    """So many finite numbers, as floats."""

    def read(value: Any) -> tuple[float, ...] | None:
        items = _many(value, length, lambda item: _is_number(item) and (item > 0 or not positive))
        return None if items is None else tuple(float(item) for item in items)

    return Kind(f"{length} values, each a finite number{' above 0' if positive else ''}", read)


def _read_range(value: Any) -> tuple[float, ...] | None:
    bounds = _many(value, 6, _is_number)
    return tuple(map(float, bounds)) if bounds and all(low < high for low, high in zip(bounds[:3], bounds[3:], strict=True)) else None


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _same(value: Any, allowed: Any) -> bool:
    """Equality that keeps True and 1 apart."""
    if isinstance(value, tuple) and isinstance(allowed, tuple):
        return len(value) == len(allowed) and all(map(_same, value, allowed))
    return type(value) is type(allowed) and bool(value == allowed)


def one_of(*allowed: Any) -> Kind:
    """One of these values, a list being as good as a tuple. None as an allowed value comes out as False."""

    def read(value: Any) -> Any:
        value = _frozen(value)
        return (False if value is None else value) if any(_same(value, item) for item in allowed) else None

    return Kind(" or ".join(repr(item) for item in allowed), read)


def _differ(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == len({repr(item) for item in value}) > 0


FLAG = Kind("True or False", lambda value: value if isinstance(value, bool) else None)
FLAGS = Kind("4 values, each True or False", lambda value: _many(value, 4, lambda item: isinstance(item, bool)))
STRIDES = Kind("7 values, each 1 or 2", lambda value: _many(value, 7, lambda item: _is_whole(item) and item <= 2))
RANGE = Kind("6 finite numbers (x, y, z from; x, y, z to; metres), each from below its to", _read_range)
NAMES = Kind(
    "different names, each some printable characters",
    lambda value: _many(value, None, lambda item: isinstance(item, str) and item != "" and item.isprintable()) if _differ(value) else None,
)
