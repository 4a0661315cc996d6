"""The reference kernels of `kernels/`, compiled once for each process and called through ctypes with numpy arrays.

A call checks for itself that every array has the shape that it tells the kernel, and that the kernel has written all of its outputs and
nothing around them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from ctypes import c_double, c_float, c_int, c_int64, c_size_t
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[1] / "kernels"
SOURCES = tuple(str(path) for path in sorted(FOLDER.glob("*.c")))
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
USUAL = (*STRICT, "-O2", "-ffp-contract=off")
_MARGIN = 64  # elements before and behind every output, which no kernel may touch
_BUILT = tempfile.TemporaryDirectory(prefix="occport-kernels-")

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class KernelError(Exception):
    """A kernel's status other than 0; `status` is its name, the text is what `occport_strerror` says."""

    def __init__(self, status: str, text: str) -> None:
        self.status = status
        super().__init__(text)


class MsdaSizes(ctypes.Structure):
    """`occport_msda_sizes`."""

    _fields_ = tuple((name, c_size_t) for name in "ASMDQLP")


class DcnSizes(ctypes.Structure):
    """`occport_dcn_sizes`."""

    _fields_ = (
        *((name, c_size_t) for name in ("A", "C", "H", "W", "O", "kh", "kw")),
        *((name, c_size_t * 2) for name in ("stride", "padding", "dilation")),
        ("groups", c_size_t),
        ("deform_groups", c_size_t),
    )


class TableSizes(ctypes.Structure):
    """`occport_table_sizes`."""

    _fields_ = (
        *((name, c_size_t) for name in ("num_cameras", "image_h", "image_w", "num_z", "num_h", "num_w")),
        ("pc_range", c_double * 6),
        ("slots", c_size_t),
        ("rows", c_size_t),
    )


class Image(ctypes.Structure):
    """`occport_image`."""

    _fields_ = (
        *((name, c_size_t) for name in ("height", "width", "row_bytes", "divisor")),
        ("swap", c_int),
        ("mean", c_float * 3),
        ("std", c_float * 3),
    )


class Table(NamedTuple):
    """What `occport_table` writes."""

    slots: Ints  # (N, K)
    ref_uv: Floats  # (N, K, 2)
    back: Ints  # (R, V)
    weight: Floats  # (V)
    dropped: int


def compiler() -> str:
    """The C compiler: $CC, or cc. Skips the test where there is none."""
    command = os.environ.get("CC", "cc")
    if shutil.which(command) is None:
        pytest.skip(f"no C compiler ({command}) on this machine: the kernels cannot be compiled")
    return command


def compiled(target: Path, *arguments: str) -> Path:
    """Runs the compiler with the arguments, -lm and an output file; AssertionError with its messages where it is not content."""
    done = subprocess.run([compiler(), *arguments, "-lm", "-o", str(target)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@cache
def library(flags: tuple[str, ...] = USUAL, folder: Path = FOLDER) -> ctypes.CDLL:
    """The kernels in a folder, compiled with the flags."""
    number = len(list(Path(_BUILT.name).iterdir()))
    sources = (str(path) for path in sorted(folder.glob("*.c")))
    loaded = ctypes.CDLL(str(compiled(Path(_BUILT.name) / f"kernels{number}.so", *flags, "-shared", "-fPIC", *sources)))
    loaded.occport_strerror.restype = ctypes.c_char_p
    return loaded


@cache
def statuses() -> tuple[str, ...]:
    """Names of `enum occport_status`, by number and without their prefix."""
    body = (FOLDER / "occport_kernels.h").read_text().split("enum occport_status {")[1].split("}")[0]
    return tuple(entry.split("=")[0].strip().removeprefix("OCCPORT_") for entry in body.split(","))


def check_status(number: int) -> None:
    """Raises the KernelError of a status that is not OCCPORT_OK."""
    if number:
        raise KernelError(statuses()[number], library().occport_strerror(number).decode())


def status_of(name: str, *arguments: Any) -> str:
    """The name of the status with which `occport_<name>` ends."""
    return statuses()[int(getattr(library(), f"occport_{name}")(*arguments))]


def pointer(array: NDArray[Any] | None) -> ctypes.c_void_p | None:
    """The address of a dense array."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


class Output:
    """An array for a kernel to fill, with margins that it must leave alone."""

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        size = int(np.prod(shape))
        self._whole = np.frombuffer(bytes([0xA5]) * (size + 2 * _MARGIN) * np.dtype(dtype).itemsize, dtype).copy()
        self._untouched = self._whole[:_MARGIN].tobytes()
        self.array = self._whole[_MARGIN : _MARGIN + size].reshape(shape)

    @property
    def pointer(self) -> ctypes.c_void_p:
        """Where the kernel writes to."""
        return ctypes.c_void_p(self.array.ctypes.data)

    def checked(self) -> NDArray[Any]:
        """The array, once the margins are found as they were."""
        assert self._whole[:_MARGIN].tobytes() == self._whole[len(self._whole) - _MARGIN :].tobytes() == self._untouched
        return self.array

    def untouched(self) -> bool:
        """Whether nothing was written."""
        return self._whole.tobytes() == self._whole[:1].tobytes() * len(self._whole)


def floats(array: Any) -> Floats:
    """Any array or tensor as dense float32."""
    return np.ascontiguousarray(array, np.float32)


def ints(array: Any) -> Ints:
    """Any integers as dense int64."""
    return np.ascontiguousarray(array, np.int64)


def starts_of(spatial_shapes: Any) -> Ints:
    """level_start_index (L) of levels that lie one after the other; spatial_shapes (L, 2) h, w."""
    sizes = ints(spatial_shapes).reshape(-1, 2).prod(1)
    return ints(np.cumsum(sizes) - sizes)


def run_msda(
    value: Any, spatial_shapes: Any, level_start_index: Any, sampling_locations: Any, attention_weights: Any,
    kernels: ctypes.CDLL | None = None,
) -> Floats:  # fmt: skip
    """`occport_msda`: (A, S, M, D), (L, 2), (L), (A, Q, M, L, P, 2), (A, Q, M, L, P) → (A, Q, M*D). Errors: KernelError.

    `kernels`: of `library`, here and below; None = as usual.
    """
    A, Q, M, L, P = attention_weights.shape
    assert sampling_locations.shape == (A, Q, M, L, P, 2)
    kernel = (kernels or library()).occport_msda
    return _msda(kernel, value, spatial_shapes, level_start_index, (sampling_locations, attention_weights), (Q, L, P))


def run_msda_wide(
    value: Any, spatial_shapes: Any, level_start_index: Any, reference_points: Any, sampling_offsets: Any, attention_logits: Any,
    kernels: ctypes.CDLL | None = None,
) -> Floats:  # fmt: skip
    """`occport_msda_wide`: as `run_msda`, with (A, Q, L, 2), (A, Q, M, L, P, 2), (A, Q, M, L, P) behind the third argument."""
    A, Q, M, L, P = attention_logits.shape
    assert reference_points.shape == (A, Q, L, 2) and sampling_offsets.shape == (A, Q, M, L, P, 2)
    points = (reference_points, sampling_offsets, attention_logits)
    return _msda((kernels or library()).occport_msda_wide, value, spatial_shapes, level_start_index, points, (Q, L, P))


def _msda(kernel: Any, value: Any, spatial_shapes: Any, starts: Any, points: tuple[Any, ...], sizes: tuple[int, int, int]) -> Floats:
    (A, S, M, D), (Q, L, P) = value.shape, sizes
    assert points[-1].shape == (A, Q, M, L, P)
    kept: list[NDArray[Any]] = [floats(value), ints(spatial_shapes).reshape(L, 2), ints(starts).reshape(L)]
    kept += [floats(array) for array in points]
    out = Output((A, Q, M * D), np.float32)
    status = kernel(*(pointer(array) for array in kept), ctypes.byref(MsdaSizes(A, S, M, D, Q, L, P)), out.pointer)
    assert not status or out.untouched()
    check_status(status)
    return out.checked()


def run_dcn(
    input: Any, offset: Any, mask: Any, weight: Any, bias: Any | None, stride: Any, padding: Any, dilation: Any,
    groups: int, deform_groups: int, kernels: ctypes.CDLL | None = None,
) -> Floats:  # fmt: skip
    """`occport_dcn`: (A, C, H, W), (A, G*2*T, Ho, Wo), (A, G*T, Ho, Wo), (O, C/groups, kh, kw), (O) or None → (A, O, Ho, Wo).

    stride, padding and dilation are pairs (y, x). Errors: KernelError.
    """
    (A, C, H, W), (num_out, _, kh, kw) = input.shape, weight.shape
    sizes = DcnSizes(
        A, C, H, W, num_out, kh, kw, *((c_size_t * 2)(*map(int, pair)) for pair in (stride, padding, dilation)), groups, deform_groups
    )
    height, width, room = c_size_t(), c_size_t(), c_size_t()
    check_status(library().occport_dcn_output(ctypes.byref(sizes), ctypes.byref(height), ctypes.byref(width)))
    check_status(library().occport_dcn_workspace(ctypes.byref(sizes), ctypes.byref(room)))
    Ho, Wo = height.value, width.value
    assert weight.shape[1] * groups == C and (bias is None or bias.shape == (num_out,))
    assert offset.shape == (A, deform_groups * 2 * kh * kw, Ho, Wo) and mask.shape == (A, deform_groups * kh * kw, Ho, Wo)
    kept = [*map(floats, (input, offset, mask, weight)), None if bias is None else floats(bias)]
    workspace, out = Output((room.value,), np.float32), Output((A, num_out, Ho, Wo), np.float32)
    status = (kernels or library()).occport_dcn(*(pointer(array) for array in kept), ctypes.byref(sizes), workspace.pointer, out.pointer)
    assert not status or out.untouched()
    check_status(status)
    workspace.checked()
    return out.checked()


def table_sizes(
    num_cameras: int, image_hw: tuple[int, int], volume_zhw: tuple[int, int, int], pc_range: Any, budget: tuple[int, int] = (0, 0)
) -> TableSizes:
    """`occport_table_sizes`; the budget is (slots, rows)."""
    return TableSizes(num_cameras, *image_hw, *volume_zhw, (c_double * 6)(*pc_range), *budget)


def run_table_needs(lidar2img: Any, sizes: TableSizes) -> tuple[int, int]:
    """`occport_table_needs`: lidar2img (N, 4, 4) → slots and rows that drop nothing. Errors: KernelError."""
    matrices = floats(lidar2img)
    assert matrices.shape == (sizes.num_cameras, 4, 4)
    workspace = Output((sizes.num_z * sizes.num_h * sizes.num_w,), np.int64)
    slots, rows = c_size_t(), c_size_t()
    arguments = (pointer(matrices), ctypes.byref(sizes), workspace.pointer, ctypes.byref(slots), ctypes.byref(rows))
    check_status(library().occport_table_needs(*arguments))
    workspace.checked()
    return slots.value, rows.value


def run_table(lidar2img: Any, sizes: TableSizes, flags: tuple[str, ...] = USUAL) -> Table:
    """`occport_table`, compiled with the flags: lidar2img (N, 4, 4) → a level's table. Errors: KernelError."""
    matrices = floats(lidar2img)
    N, K, R, V = sizes.num_cameras, sizes.slots, sizes.rows, sizes.num_z * sizes.num_h * sizes.num_w
    assert matrices.shape == (N, 4, 4)
    slots, ref_uv = Output((N, K), np.int64), Output((N, K, 2), np.float32)
    back, weight, dropped = Output((R, V), np.int64), Output((V,), np.float32), c_int64(-1)
    outputs = [output.pointer for output in (slots, ref_uv, back, weight)]
    check_status(library(flags).occport_table(pointer(matrices), ctypes.byref(sizes), *outputs, ctypes.byref(dropped)))
    return Table(slots.checked(), ref_uv.checked(), back.checked(), weight.checked(), dropped.value)


def run_preprocess(pixels: NDArray[np.uint8], mean: Any, std: Any, swap: bool, divisor: int) -> Floats:
    """`occport_preprocess`: (H, W, 3) uint8, rows may be further apart than W*3 bytes → (3, Hp, Wp). Errors: KernelError."""
    height, width, _ = pixels.shape
    assert pixels.strides[1:] == (3, 1)
    image = Image(height, width, pixels.strides[0], divisor, swap, (c_float * 3)(*mean), (c_float * 3)(*std))
    padded = c_size_t(), c_size_t()
    check_status(library().occport_padded(ctypes.byref(image), *map(ctypes.byref, padded)))
    out = Output((3, padded[0].value, padded[1].value), np.float32)
    status = library().occport_preprocess(ctypes.c_void_p(pixels.ctypes.data), ctypes.byref(image), out.pointer)
    assert not status or out.untouched()
    check_status(status)
    return out.checked()
