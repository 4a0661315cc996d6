"""Pickles of plain data and numpy arrays, read without running anything that a pickle names.

The names that numpy's pickles use lead to small stand-ins here, not to numpy: numpy's own `__setstate__` takes a type
description at its word, and a forged one makes it read arbitrary memory. `plain` turns a stand-in into the array, after checks.
Everything else but the standard containers is refused by name. Protocols 0 to 5; texts and arrays of Python 2 come out right.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import FrameError
from .frame import file_bytes

_TYPE_CODE = re.compile(r"([fiu][1248]|b1|[SU]\d{1,4})")
_MAX_NESTING = 4  # lists of lists that `plain` follows


class StoredType:
    """Stand-in for a pickled numpy.dtype: its code and, from its state, its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, *args: object) -> None:
        self.code = args[0] if args else None
        self.order: object = "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) >= 2:
            self.order = state[1]

    def numpy(self) -> np.dtype[np.generic] | None:
        """The type, where it is a plain number, truth value or text; else None."""
        if not isinstance(self.code, str) or not _TYPE_CODE.fullmatch(self.code) or self.order not in ("<", ">", "=", "|"):
            return None
        try:
            return np.dtype(str(self.order) + self.code)
        except TypeError:
            return None


class StoredArray:
    """Stand-in for a pickled numpy array or scalar: type, shape, axis order and bytes, unchecked until `plain` asks."""

    __slots__ = ("dtype", "fortran", "raw", "shape")

    def __init__(self, dtype: object = None, shape: object = (), fortran: object = False, raw: object = b"") -> None:
        self.dtype, self.shape, self.fortran, self.raw = dtype, shape, fortran, raw

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 5:  # (version, shape, type, Fortran order, bytes)
            _, self.shape, self.dtype, self.fortran, self.raw = state

    def numpy(self) -> np.ndarray | None:
        """The array, or None where type, shape and bytes do not fit each other."""
        dtype = self.dtype.numpy() if isinstance(self.dtype, StoredType) else None
        raw = self.raw.encode("latin1", "replace") if isinstance(self.raw, str) else self.raw
        shape = self.shape
        if dtype is None or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
            return None
        if len(shape) > 8 or not all(type(count) is int and 0 <= count < 2**40 for count in shape):
            return None
        count = 1
        for extent in shape:
            count *= extent
        if dtype.itemsize == 0 or count * dtype.itemsize != len(raw):
            return None
        return np.frombuffer(bytes(raw), dtype).reshape(shape, order="F" if self.fortran else "C")


def plain(value: object, nesting: int = 0) -> object:
    """Stand-ins → numpy arrays, or Python scalars for numpy scalars; also inside lists and tuples. Others stay as they are.

    A stand-in that does not hold together stays a stand-in, and the reader of the value says what it expected instead.
    """
    if isinstance(value, StoredArray):
        array = value.numpy()
        if array is None:
            return value
        return array.item() if array.shape == () else array
    if isinstance(value, list | tuple) and nesting < _MAX_NESTING and len(value) <= 16:
        return [plain(item, nesting + 1) for item in value]
    return value


def _empty_array(*args: object) -> StoredArray:
    return StoredArray()


def _scalar(dtype: object = None, raw: object = b"", *rest: object) -> StoredArray:
    return StoredArray(dtype, (), False, raw)


def _from_buffer(raw: object = b"", dtype: object = None, shape: object = (), order: object = "C", *rest: object) -> StoredArray:
    return StoredArray(dtype, shape, order == "F", raw)


def _encoded(text: object = "", encoding: object = "latin1", *rest: object) -> bytes:
    """Python 3 writes bytes for protocols 0 to 2 as text with this call."""
    return text.encode("latin1", "replace") if isinstance(text, str) and encoding in ("latin1", "latin-1") else b""


def _no_bytes(*args: object) -> bytes:
    """Protocols 0 to 2 write empty bytes, as of an empty array, as a call without arguments; any other call is not honest."""
    return b""


_CONTAINERS: dict[str, type] = {"list": list, "tuple": tuple, "dict": dict, "set": set, "frozenset": frozenset}
_ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): StoredType,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    **{(module, name): kind for module in ("builtins", "__builtin__") for name, kind in _CONTAINERS.items()},
    **{(f"numpy.{inner}.multiarray", "_reconstruct"): _empty_array for inner in ("core", "_core")},
    **{(f"numpy.{inner}.multiarray", "scalar"): _scalar for inner in ("core", "_core")},
    **{(f"numpy.{inner}.numeric", "_frombuffer"): _from_buffer for inner in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes, source: Path) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self.source = source

    def find_class(self, module: str, name: str, /) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"  # only ever an argument of _reconstruct
        found = _ALLOWED.get((module, name))
        if found is None:
            raise FrameError(
                f"{self.source}: refused, it asks for {module}.{name}", expected="a pickle of plain data and numpy arrays",
                fix="write the file again with lists, dicts, texts, numbers and arrays only",
            )  # fmt: skip
        # A new wrapper each time: a pickle can set attributes on what it gets.
        return found if isinstance(found, type) and found.__module__ == "builtins" else partial(found)

    def persistent_load(self, pid: object, /) -> object:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def read_pickle(path: Path) -> object:
    """The content of a pickle file, with stand-ins for numpy's objects (see `plain`).

    Errors: FrameError for a file that cannot be read, is damaged, or names anything off the allow-list.
    """
    content = file_bytes(path)
    try:
        return _Reader(content, path).load()
    except (
        pickle.UnpicklingError, EOFError, AttributeError, LookupError, ValueError, TypeError, ImportError, ArithmeticError, MemoryError,
        RecursionError, struct.error,
    ) as error:  # fmt: skip
        # What the pickle machine raises on damaged files, beside its own error.
        raise FrameError(str(path), expected="a pickle file", got=f"a damaged or different one ({error})") from error
