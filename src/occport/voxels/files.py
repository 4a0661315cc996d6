"""The files of one frame's occupancy: NAME.npz (the volume), NAME.npy (points, as upstream writes them), NAME.ply (coloured points).

| file | content |
|---|---|
| NAME.npz | `labels` (X, Y, Z) uint8, `class_names` (C,), `pc_range` (6,); without semantics also `probabilities` (X, Y, Z) float32 |
| NAME.npy | (n, 4) float32: x, y, z in LiDAR metres and the class of every occupied voxel |
| NAME.ply | the same points, binary little-endian: x, y, z float32, red, green, blue uchar, label uchar |

They are written under hidden names first; NAME.npz is put in place last, so that a frame whose NAME.npz is there is whole. The same volume
gives the same bytes. What is read may come from any runtime: it is data from strangers, and nothing in it is ever executed.
"""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportError, FrameError
from .classes import colours

if TYPE_CHECKING:
    from .occupancy import Occupancy

_TEMPORARY = ".occport-part-"
_LONGEST_NAME = 200  # bytes; file systems take 255, and the hidden names are longer
_MOST_NUMBERS = 2**30  # a header that speaks of more is damaged or hostile
_ROUNDING = 1e-3  # how far a chip's sigmoid may leave 0..1
# What numpy and zipfile raise on damaged files.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, MemoryError,
    RecursionError, RuntimeError, SyntaxError, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a NAME.npz holds.

    Attributes:
        name: the file's, without .npz.
        labels: (X, Y, Z) uint8, or None where there are only probabilities.
        probabilities: (X, Y, Z) floating, 0..1, of being occupied; None of a network with semantics.
        class_names: of labels 1, 2, …; None where the file does not say.
        pc_range: x, y, z from, then to, LiDAR metres; None where the file does not say.
    """

    name: str
    labels: NDArray[np.uint8] | None
    probabilities: NDArray[np.floating] | None
    class_names: tuple[str, ...] | None
    pc_range: tuple[float, float, float, float, float, float] | None

    @property
    def size(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""
        volume = self.labels if self.labels is not None else self.probabilities
        assert volume is not None
        x, y, z = volume.shape
        return x, y, z


def save_occupancy(occupancy: Occupancy, folder: Path) -> list[Path]:
    """Writes the three files of a frame, replacing older ones of its name.

    Returns: the paths of NAME.npz, NAME.npy and NAME.ply.
    Errors: FrameError for a name that no file can have; ExportError where the folder cannot be made or written to, or the disk is full:
        then no file was changed (should a move itself fail, there is no NAME.npz). The OSError is its `__cause__`.
    """
    name = fit_name(occupancy.name)
    targets = {kind: folder / f"{name}.{kind}" for kind in ("npy", "ply", "npz")}  # in the order of their moves
    parts = {kind: folder / f"{_TEMPORARY}{os.getpid()}-{target.name}" for kind, target in targets.items()}
    points = occupancy.points()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target in targets.values():
            if target.is_dir():
                raise IsADirectoryError(0, f"a folder has the name {target.name}")
        with parts["npy"].open("wb") as file:
            file.write(_npy_bytes(points))
        with parts["ply"].open("wb") as file:
            _write_ply(file, points, occupancy.class_names)
        with parts["npz"].open("wb") as file:
            _write_npz(file, occupancy)
        # Until all three are new there must be no NAME.npz, or old and new would count as one whole frame.
        targets["npz"].unlink(missing_ok=True)
        for kind, target in targets.items():
            parts[kind].replace(target)
    except OSError as error:
        raise ExportError(
            f"writing {name} into {folder}", got=error.strerror or str(error), fix="free some space or choose another folder"
        ) from error
    finally:
        for part in parts.values():
            with suppress(OSError):  # such as a folder that was never made
                part.unlink()
    return [targets[kind] for kind in ("npz", "npy", "ply")]


def is_leftover(path: Path) -> bool:
    """Whether a file is a half-written one of `save_occupancy` in a process that was killed, to go by its name."""
    return path.name.startswith(_TEMPORARY)


def fit_name(name: str) -> str:
    """`name`, if files can be called that. Errors: FrameError for an empty, too long or hidden name, and for one with a separator."""
    unfit = not name or name.startswith(".") or not name.isprintable() or any(each in name for each in "/\\")
    if unfit or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        shown = repr(name if len(name) <= 60 else name[:60] + "…")
        rule = f"1 to {_LONGEST_NAME} printable bytes without / or \\, and no dot in front"
        raise FrameError(f"frame name {shown}", expected=f"a name that a file can have: {rule}", fix="rename the frame")
    return name


def read_prediction(path: Path) -> Prediction:
    """What any runtime wrote: `labels` of any integer type with values 0..255, or `probabilities`, or both; (X, Y, Z) or (1, X, Y, Z).

    Errors: FrameError, one line, for a file that is missing or damaged, lacks both, or holds something else in them.
    """
    members = _read_members(path)
    labels = _labels(members["labels"], f"{path}: labels") if "labels" in members else None
    probabilities = _probabilities(members["probabilities"], f"{path}: probabilities") if "probabilities" in members else None
    if labels is None and probabilities is None:
        raise FrameError(
            str(path), expected="an array 'labels' or 'probabilities' (X, Y, Z) in it", got=", ".join(sorted(members)[:8]) or "none"
        )
    if labels is not None and probabilities is not None and labels.shape != probabilities.shape:
        raise FrameError(f"{path}: probabilities", expected=f"{labels.shape} as the labels", got=str(probabilities.shape))
    names = _class_names(members["class_names"], f"{path}: class_names") if "class_names" in members else None
    pc_range = _pc_range(members["pc_range"], f"{path}: pc_range") if "pc_range" in members else None
    return Prediction(path.name.removesuffix(".npz"), labels, probabilities, names, pc_range)


def is_whole(path: Path, size: tuple[int, int, int] | None = None) -> bool:
    """Whether `path` is a NAME.npz that can be read to its end, checksums included, with volumes of `size` (X, Y, Z) where one is given."""
    try:
        prediction = read_prediction(path)
    except FrameError:
        return False
    return size is None or prediction.size == size


def read_array(path: Path) -> NDArray[np.generic]:
    """The array of a .npy file. Errors: FrameError for a file that is missing, damaged, or holds Python objects."""
    try:
        with path.open("rb") as file:
            return _read_npy(file)
    except OSError as error:
        raise FrameError(str(path), expected="a readable file", got=error.strerror or str(error)) from error
    except _DAMAGE as error:
        raise FrameError(str(path), expected="a whole .npy file of numbers", got=f"a damaged or other one ({error})") from error


def _read_members(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays that we know by name, each read to its end, where zipfile compares its checksum; of others only the names."""
    members: dict[str, NDArray[np.generic]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name not in ("labels", "probabilities", "class_names", "pc_range"):
                    members.setdefault(name, np.zeros(0))
                    continue
                with archive.open(info) as file:
                    members[name] = _read_npy(file)
    except OSError as error:
        raise FrameError(str(path), expected="a readable file", got=error.strerror or str(error)) from error
    except _DAMAGE as error:
        raise FrameError(str(path), expected="a whole .npz file", got=f"a damaged or other one ({error})", fix="write it again") from error
    return members


def _read_npy(file: IO[bytes]) -> NDArray[np.generic]:
    """One array, whose header is believed only as far as there are bytes. Errors: anything of _DAMAGE."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version[0]}.{version[1]} of .npy")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count > _MOST_NUMBERS or dtype.itemsize == 0:
        raise ValueError(f"an array {shape} of {dtype}")
    data = file.read(count * dtype.itemsize + 1)
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"{'more' if len(data) > count * dtype.itemsize else 'fewer'} bytes than an array {shape} of {dtype} has")
    array = np.frombuffer(data, dtype, count) if count else np.zeros(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _volume(array: NDArray[np.generic], what: str) -> NDArray[np.generic]:
    """(X, Y, Z), without a leading axis of one sample."""
    volume = array[0] if array.ndim == 4 and len(array) == 1 else array
    if volume.ndim != 3 or volume.size == 0:
        raise FrameError(what, expected="(X, Y, Z), or (1, X, Y, Z)", got=str(array.shape))
    return volume


def _labels(array: NDArray[np.generic], what: str) -> NDArray[np.uint8]:
    if array.dtype.kind not in "iu":
        raise FrameError(what, expected="integers, a class for each voxel", got=str(array.dtype), fix="write the argmax over the classes")
    volume = _volume(array, what).astype(np.int64, copy=False) if array.dtype != np.uint8 else _volume(array, what)
    if array.dtype != np.uint8 and not 0 <= volume.min() <= volume.max() < 256:
        raise FrameError(what, expected="values 0 to 255", got=f"{volume.min()} to {volume.max()}")
    return np.ascontiguousarray(volume, np.uint8)


def _probabilities(array: NDArray[np.generic], what: str) -> NDArray[np.floating]:
    if array.dtype.kind != "f":
        raise FrameError(what, expected="floating-point numbers", got=str(array.dtype))
    volume: NDArray[np.floating] = np.ascontiguousarray(_volume(array, what))
    if not np.isfinite(volume).all():
        raise FrameError(what, expected="numbers", got=f"NaN or infinity at {int((~np.isfinite(volume)).sum())} of {volume.size} voxels")
    if volume.min() < -_ROUNDING or volume.max() > 1 + _ROUNDING:
        got = f"{volume.min():.4g} to {volume.max():.4g}"
        raise FrameError(what, expected="0 to 1", got=got, fix="logits must go through the sigmoid first")
    return volume


def _class_names(array: NDArray[np.generic], what: str) -> tuple[str, ...]:
    if array.dtype.kind != "U" or array.ndim != 1 or not 0 < len(array) < 255:
        raise FrameError(what, expected="a list of texts, the names of labels 1, 2, …", got=f"{array.dtype} {array.shape}")
    return tuple(str(name) for name in array)


def _pc_range(array: NDArray[np.generic], what: str) -> tuple[float, float, float, float, float, float]:
    if array.dtype.kind not in "iuf" or array.shape != (6,) or not np.isfinite(array.astype(np.float64)).all():
        raise FrameError(what, expected="six numbers: x, y, z from, then to, metres", got=f"{array.dtype} {array.shape}")
    x0, y0, z0, x1, y1, z1 = (float(value) for value in array.astype(np.float64))
    return x0, y0, z0, x1, y1, z1


def _npy_bytes(array: NDArray[np.float32]) -> bytes:
    """A .npy file. numpy writes into a real file past Python, and then a full disk has no errno."""
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=False)
    return content.getvalue()


def _write_npz(file: IO[bytes], occupancy: Occupancy) -> None:
    """numpy gives each member the same date, so that equal volumes make equal files."""
    labels = np.ascontiguousarray(occupancy.labels, np.uint8)
    names, pc_range = np.array(occupancy.class_names), np.array(occupancy.grid.pc_range, np.float64)
    if occupancy.probabilities is None:
        np.savez_compressed(file, labels=labels, class_names=names, pc_range=pc_range)
    else:
        probabilities = np.ascontiguousarray(occupancy.probabilities, np.float32)
        np.savez_compressed(file, labels=labels, class_names=names, pc_range=pc_range, probabilities=probabilities)


def _write_ply(file: IO[bytes], points: NDArray[np.float32], class_names: tuple[str, ...]) -> None:
    """points: (n, 4) float32, x, y, z and the class."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("label", "u1")]
    rows = np.empty(len(points), fields)
    for column, axis in enumerate("xyz"):
        rows[axis] = points[:, column]
    labels = points[:, 3].astype(np.uint8)
    rows["red"], rows["green"], rows["blue"] = colours(class_names)[labels].T
    rows["label"] = labels
    kinds = {"<f4": "float", "u1": "uchar"}
    properties = "".join(f"property {kinds[kind]} {name}\n" for name, kind in fields)
    file.write(f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n".encode("ascii"))
    file.write(rows.tobytes())
