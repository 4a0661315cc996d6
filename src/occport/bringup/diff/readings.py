"""Which numbers somebody's array holds: bytes of an unknown dtype, and words that stand for another one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..dumps.formats import BFLOAT16, dtype_of
from ..dumps.index import Entry
from .hints import Hint

_FLOATS = {8: ("float64",), 4: ("float32", ">f4"), 2: ("float16", "bfloat16", ">f2"), 1: ("int8", "uint8")}  # by bytes of a number
_WHOLE = {8: ("int64",), 4: ("int32",), 1: ("uint8",)}
_UNPADDED = ("float32", "float16", "bfloat16")  # where more numbers than ours are there
_BIG_ENDIAN = {">f4": "float32, the high byte first", ">f2": "float16, the high byte first"}


class Reading(NamedTuple):
    """One way to take what is stored: "" or how, in words; and the numbers."""

    words: str
    array: np.ndarray


def readings(theirs: np.ndarray, entry: Entry, hint: Hint, raw: bool) -> list[Reading]:
    """What an array can hold, the likeliest first.

    Args:
        theirs: as it is stored; bytes where `raw`.
        entry: of our tensor.
        hint: what the user tells.

    Errors: ValueError for numbers that no tensor has, for another dtype than the user tells, and for bytes that cannot be ours.
    """
    if raw:
        return _of_bytes(theirs, entry, hint)
    if theirs.dtype != BFLOAT16 and theirs.dtype.kind not in "fiub":
        raise ValueError(f"{theirs.dtype.name} numbers, where ours are {entry.dtype}; dump it again as numbers, or as bare bytes")
    if hint.dtype:
        told = dtype_of(hint.dtype)
        if told != theirs.dtype and (told.itemsize != theirs.dtype.itemsize or theirs.dtype.kind not in "iu"):
            raise ValueError(f"the map tells dtype {hint.dtype}, the file holds {theirs.dtype.name}; correct the map")
        return [Reading("", theirs if told == theirs.dtype else theirs.view(told))]
    if "float" in entry.dtype and theirs.dtype == np.uint16 and math.isnan(hint.scale):
        return [Reading("16-bit words taken as bfloat16", theirs.view(BFLOAT16)), Reading("", theirs)]
    return [Reading("", theirs)]


def _of_bytes(theirs: np.ndarray, entry: Entry, hint: Hint) -> list[Reading]:
    if hint.dtype:
        return [Reading("", _as(theirs, hint.dtype))]
    count = max(math.prod(hint.shape) if hint.shape else math.prod(entry.shape), 1)
    floating, own = "float" in entry.dtype, dtype_of(entry.dtype).itemsize
    width = theirs.size // count if theirs.size % count == 0 else 0
    if floating:
        names = _FLOATS.get(width) or tuple(name for name in _UNPADDED if theirs.size % dtype_of(name).itemsize == 0)
    else:
        names = (entry.dtype,) if width == own else _WHOLE.get(width, ())
    if not names:
        raise ValueError(f"{theirs.size:,} bytes do not hold {count:,} numbers of {entry.dtype}; tell dtype and shape with --map")
    plain = names[0] == entry.dtype and own != 2  # of two 16-bit types it is always told which
    words = ["" if name == names[0] and plain else f"bytes taken as {_BIG_ENDIAN.get(name, name)}" for name in names]
    return [Reading(how, _as(theirs, name)) for how, name in zip(words, names, strict=True)]


def _as(raw: np.ndarray, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype) if dtype in _BIG_ENDIAN else dtype_of(dtype)
    if raw.size % kind.itemsize:
        raise ValueError(f"{raw.size:,} bytes are no whole number of {dtype}")
    array = raw.view(kind)
    return array.astype(kind.newbyteorder("="), copy=False)
