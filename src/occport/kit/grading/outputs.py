"""The outputs of somebody's kernel: finding the file of a case and reading it, whatever it was written with.

For a case NAME, the first of these in the folder counts: NAME.npy, NAME.pb, NAME.bin, NAME/output.npy, NAME/output_0.pb,
NAME/test_data_set_0/output_0.pb, NAME/output.bin. A .bin holds bare little-endian numbers in C order.

The folder may be that of the vectors, filled in place; what stands under test_data_set_0 there is the right output, and nobody's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from onnx import numpy_helper

from ..cases.folder import CASE
from ..cases.precision import from_bfloat16_bits

_RIGHT_OUTPUT = "{}/test_data_set_0/output_0.pb"
PLACES = ("{}.npy", "{}.pb", "{}.bin", "{}/output.npy", "{}/output_0.pb", _RIGHT_OUTPUT, "{}/output.bin")


@dataclass(frozen=True)
class Output:
    """What was found for a case.

    Attributes:
        path: the file; None where there is none.
        array: float64 in the file's shape (of a .bin: in the shape wanted); None where it cannot be read.
        dtype: "float32", "float16" or "bfloat16": what the file holds (float64 counts as float32).
        problem: why there is no array.
    """

    path: Path | None
    array: np.ndarray | None = None
    dtype: str = ""
    problem: str = ""


def read_output(folder: Path, name: str, shape: tuple[int, ...], dtype: str | None) -> Output:
    """The output of the case `name`.

    Args:
        folder: where the outputs are.
        shape: of the output, for files that do not say it.
        dtype: what the kernel computed in; None: not known. "bfloat16" makes the 2-byte numbers of a .bin bfloat16.
    """
    ours = (folder / name / CASE).is_file()
    places = [place for place in PLACES if not (ours and place == _RIGHT_OUTPUT)]
    path = next((found for place in places if (found := folder / place.format(name)).is_file()), None)
    if path is None:
        return Output(None, problem=f"no {PLACES[0].format(name)} or any other of its places")
    try:
        array = _bin(path, shape, dtype) if path.suffix == ".bin" else _pb(path) if path.suffix == ".pb" else _npy(path)
    except (OSError, ValueError, EOFError, DecodeError, TypeError) as error:
        return Output(path, problem=f"cannot be read: {' '.join(str(error).split())}")
    if array.dtype.name == "void16":  # what numpy makes of bfloat16 when it saves it
        array = array.view(np.uint16)
    if array.dtype == np.uint16:
        return Output(path, from_bfloat16_bits(array).astype(np.float64), "bfloat16")
    if array.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        return Output(path, problem=f"expected floats, got {array.dtype.name}")
    return Output(path, array.astype(np.float64), "float32" if array.dtype.name == "float64" else array.dtype.name)


def _npy(path: Path) -> np.ndarray:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("an npz archive, where a single array is expected")
    return array


def _pb(path: Path) -> np.ndarray:
    tensor = onnx.TensorProto.FromString(path.read_bytes())
    if not tensor.data_type:
        raise ValueError("no ONNX tensor")
    return np.asarray(numpy_helper.to_array(tensor))


def _bin(path: Path, shape: tuple[int, ...], dtype: str | None) -> np.ndarray:
    content, count = path.read_bytes(), math.prod(shape)
    for form in ("<f4", "<u2" if dtype == "bfloat16" else "<f2", "<f8"):
        if len(content) == count * np.dtype(form).itemsize:
            return np.frombuffer(content, form).astype(np.dtype(form).newbyteorder("=")).reshape(shape)
    raise ValueError(f"expected {count} numbers of 2, 4 or 8 bytes, got {len(content)} bytes")
