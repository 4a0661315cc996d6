"""Arrays in files: NumPy's own, ONNX's, bare numbers, and Polygraphy's JSON; written for others to read, and read back.

bfloat16, which NumPy has no file format for, stands in .npy and .bin as the 16 bits of each number, and in Polygraphy's JSON widened to
float32; the index tells. A .pb says so itself.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from onnx import numpy_helper

from ...errors import UserError
from .index import Entry, Index
from .polygraphy import ALL, spans_of, values_at

SUFFIXES = {"npy": ".npy", "pb": ".pb", "raw": ".bin"}
FORMATS = (*SUFFIXES, "polygraphy")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_MAKE_ANEW = "make the folder anew with `occport golden`"


def dtype_of(name: str) -> np.dtype:
    """NumPy's name of a dtype, or "bfloat16". Errors: TypeError for an unknown name."""
    return BFLOAT16 if name == BFLOAT16.name else np.dtype(name)


def write_array(path: Path, array: np.ndarray, name: str, form: str) -> None:
    """Writes one array, little-endian, in C order.

    Args:
        path: the file.
        name: of the tensor; a .pb holds it.
        form: "npy", "pb" or "raw".
    """
    if form == "pb":
        path.write_bytes(numpy_helper.from_array(np.asarray(array, order="C"), name).SerializeToString())
        return
    plain = _little(array)
    if form == "npy":
        np.save(path, plain, allow_pickle=False)
    else:
        plain.tofile(path)


def read_array(path: Path, form: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads what `write_array` wrote; .npy and .bin are mapped, not copied.

    Args:
        dtype, shape: as the index says.

    Errors: ValueError or OSError for a file that is not there, damaged, or of another dtype or shape.
    """
    kind = dtype_of(dtype)
    if form == "pb":
        try:
            array = np.asarray(numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())))
        except (DecodeError, TypeError) as error:
            raise ValueError(f"no ONNX tensor ({error})") from error
    elif form == "npy":
        array = read_npy(path)
    else:
        needed, found = math.prod(shape) * kind.itemsize, path.stat().st_size
        if needed != found:
            raise ValueError(f"expected {needed:,} bytes, got {found:,}")
        array = np.memmap(path, kind.newbyteorder("<"), "r", shape=shape) if needed else np.empty(shape, kind)
    if kind == BFLOAT16 and array.dtype == np.uint16:
        array = array.view(BFLOAT16)
    if array.dtype != kind or array.shape != shape:
        raise ValueError(f"expected {dtype} {list(shape)}, got {array.dtype.name} {list(array.shape)}")
    return array


def read_npy(path: Path) -> np.ndarray:
    """A .npy file, mapped where it can be.

    Errors: ValueError, EOFError or OSError for a file that is not there or damaged; NumPy tells more of it when it reads than when it maps.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:
        return np.asarray(np.load(path, allow_pickle=False))


def load(folder: Path, index: Index, entry: Entry) -> np.ndarray:
    """The array of an entry.

    Errors: UserError where its file is missing or damaged.
    """
    path = folder / entry.file
    try:
        if index.format != ALL:
            return read_array(path, index.format, entry.dtype, entry.shape)
        array = values_at(path, spans_of(path)[entry.name])
        kind = dtype_of(entry.dtype)
        return array.astype(kind) if kind == BFLOAT16 else array
    except KeyError as error:
        raise UserError(f"golden tensor {entry.name}", expected=f"it in {path}", got="none", fix=_MAKE_ANEW) from error
    except (OSError, ValueError, EOFError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise UserError(f"golden tensor {path}", expected=f"{entry.dtype} {list(entry.shape)}", got=got, fix=_MAKE_ANEW) from error


def sha256_of_array(array: np.ndarray) -> str:
    """Of its bytes, little-endian, in C order, in hexadecimal."""
    return hashlib.sha256(_little(array).reshape(-1).view(np.uint8).data if array.size else b"").hexdigest()


def plain_bits(array: np.ndarray) -> np.ndarray:
    """What NumPy's formats can hold: bfloat16 as the bits of each number, everything else as it is."""
    return array.view(np.uint16) if array.dtype == BFLOAT16 else array


def _little(array: np.ndarray) -> NDArray[np.generic]:
    plain = np.ascontiguousarray(plain_bits(np.asarray(array)))
    return plain.astype(plain.dtype.newbyteorder("<"), copy=False).reshape(array.shape)
