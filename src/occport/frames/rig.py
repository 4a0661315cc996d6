"""A rig: the projection matrices of all cameras. A made-up one that is near to nuScenes', and checks on any.

LiDAR frame: x right, y forward, z up, metres. Camera frame: x right, y down, z along the view. A camera's `lidar2img` is its
4x4-padded intrinsic matrix times the rigid motion from the LiDAR frame to the camera frame; it takes (x, y, z, 1) to
(column * depth, row * depth, depth, 1), in pixels and metres.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from .frame import NUSCENES_CAMERAS, described_value

MAX_CAMERAS = 8  # of the made-up rig
_SINGULAR = 1e-9  # smallest singular value of a camera's row-normalised 3x3 block; real cameras have about 1e-1
_AGREE = 1e-4  # two calibrations of one camera, relative to the largest entry of a row


class _Mount(NamedTuple):
    """A camera in the LiDAR frame: yaw (degrees, left of forward), place (metres), lens for a 1600 x 900 image (pixels)."""

    yaw: float
    x: float
    y: float
    z: float
    focal: float
    column: float
    row: float
    pitch: float  # degrees, downwards
    roll: float  # degrees, clockwise in the image


# Not one vehicle's calibration, but within what nuScenes vehicles show: lever arms of decimetres, tilts below a degree.
_NUSCENES_LIKE = (
    _Mount(yaw=0.2, x=-0.01, y=0.72, z=-0.33, focal=1264.0, column=815.0, row=491.0, pitch=0.5, roll=-0.3),
    _Mount(yaw=-55.4, x=0.48, y=0.60, z=-0.34, focal=1259.0, column=807.0, row=496.0, pitch=-0.4, roll=0.6),
    _Mount(yaw=55.6, x=-0.50, y=0.58, z=-0.32, focal=1271.0, column=825.0, row=480.0, pitch=0.7, roll=0.2),
    _Mount(yaw=179.8, x=0.01, y=-0.93, z=-0.27, focal=809.0, column=828.0, row=482.0, pitch=-0.2, roll=0.2),
    _Mount(yaw=108.7, x=-0.49, y=0.10, z=-0.25, focal=1256.0, column=793.0, row=492.0, pitch=0.3, roll=-0.5),
    _Mount(yaw=-110.5, x=0.47, y=0.08, z=-0.28, focal=1260.0, column=806.0, row=500.0, pitch=0.4, roll=0.5),
)


def nuscenes_like_rig(num_cameras: int, height: int, width: int) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """A made-up rig: with six cameras arranged and named as in nuScenes, otherwise evenly spread over the horizon.

    Args:
        num_cameras: N, 1 to 8.
        height, width: of the image before padding, pixels. Lenses scale with the width, the centre row with the height.
    Returns:
        N names (with six in the original's order) and lidar2img (N, 4, 4) float64, LiDAR metres → pixels.
    Errors: FrameError for another number of cameras or an image without pixels.
    """
    if not 1 <= num_cameras <= MAX_CAMERAS:
        raise FrameError(
            "cameras of the synthetic frame", expected=f"1 to {MAX_CAMERAS}", got=str(num_cameras),
            fix="give a frame of your own (frame.json) for a larger rig",
        )
    if height < 1 or width < 1:
        raise FrameError("image size of the synthetic frame", expected="height and width of at least 1", got=f"{height} x {width}")
    names: tuple[str, ...] = NUSCENES_CAMERAS
    mounts: tuple[_Mount, ...] = _NUSCENES_LIKE
    if num_cameras != len(names):
        names, mounts = tuple(f"CAM_{number}" for number in range(num_cameras)), _evenly_round(num_cameras)
    return names, np.stack([_lidar2img(mount, height, width) for mount in mounts])


def _evenly_round(num_cameras: int) -> tuple[_Mount, ...]:
    """Mounts at equal angles, the first one forward; neighbours overlap by 15 % where a lens of at most 110 degrees allows it."""
    view = min(360.0 / num_cameras * 1.15, 110.0)
    focal = 800.0 / math.tan(math.radians(view / 2))
    mounts = []
    for number in range(num_cameras):
        yaw = 360.0 * number / num_cameras
        # Each camera differs a little from a copy of its neighbour, so that two swapped ones show.
        own = ((number * 3) % 5 - 2) / 5
        mounts.append(
            _Mount(
                yaw=yaw, x=-0.6 * math.sin(math.radians(yaw)), y=0.6 * math.cos(math.radians(yaw)), z=-0.3 + 0.05 * own,
                focal=focal * (1 + 0.01 * own), column=800.0 + 20.0 * own, row=490.0 - 10.0 * own, pitch=own, roll=-own,
            )
        )  # fmt: skip
    return tuple(mounts)


def _lidar2img(mount: _Mount, height: int, width: int) -> NDArray[np.float64]:
    yaw, pitch, roll = (math.radians(angle) for angle in (mount.yaw, mount.pitch, mount.roll))
    # Columns: the level camera's right, down and forward in the LiDAR frame.
    level = np.array([[math.cos(yaw), 0.0, -math.sin(yaw)], [math.sin(yaw), 0.0, math.cos(yaw)], [0.0, -1.0, 0.0]])
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, math.cos(pitch), math.sin(pitch)], [0.0, -math.sin(pitch), math.cos(pitch)]])
    spin = np.array([[math.cos(roll), -math.sin(roll), 0.0], [math.sin(roll), math.cos(roll), 0.0], [0.0, 0.0, 1.0]])
    rotation = (level @ tilt @ spin).T
    lidar2cam = np.eye(4)
    lidar2cam[:3, :3] = rotation
    lidar2cam[:3, 3] = -rotation @ np.array([mount.x, mount.y, mount.z])
    scale = width / 1600.0
    intrinsic = np.array(
        [[mount.focal * scale, 0.0, mount.column * scale], [0.0, mount.focal * scale, mount.row * height / 900.0], [0.0, 0.0, 1.0]]
    )
    return projection(intrinsic, lidar2cam)


def projection(intrinsic: NDArray[np.float64], lidar2cam: NDArray[np.float64]) -> NDArray[np.float64]:
    """lidar2img of one camera: (3, 3) or (4, 4) float64 intrinsic (padded to 4x4) times (4, 4) lidar2cam, in float64."""
    padded = np.eye(4)
    padded[: intrinsic.shape[0], : intrinsic.shape[1]] = intrinsic
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused by `check_rig`
        product: NDArray[np.float64] = padded @ lidar2cam
    return product


def turned(lidar2img: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """The rig turned about the LiDAR's z axis, counter-clockwise seen from above. (..., 4, 4) float64 → the same shape.

    A turned camera sees at angle a + degrees what it saw at angle a.
    """
    angle = math.radians(degrees)
    back = np.eye(4)
    back[:2, :2] = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    return lidar2img @ back


def check_rig(lidar2img: NDArray[np.float64], camera_names: tuple[str, ...], source: str) -> None:
    """Refuses matrices that cannot be cameras.

    Args:
        lidar2img: (N, 4, 4) float64, N = len(camera_names).
        source: where it comes from, for the message.
    Errors: FrameError naming the camera and what is wrong: shape, a value that is not finite (in float32, as the network takes
    it), a last row that is not [0, 0, 0, 1] times a positive number, or a singular 3x3 block.
    """
    expected = (len(camera_names), 4, 4)
    if lidar2img.shape != expected:
        raise FrameError(f"{source}: lidar2img", expected=f"shape {expected}", got=f"shape {lidar2img.shape}")
    for name, matrix in zip(camera_names, lidar2img, strict=True):
        what = f"{source}: lidar2img of {name}"
        sound = np.abs(matrix) <= np.finfo(np.float32).max  # False for nan too
        if not sound.all():
            row, column = (int(index[0]) for index in np.nonzero(~sound))
            raise FrameError(what, expected="finite float32 numbers", got=f"{matrix[row, column]} in row {row}, column {column}")
        last = matrix[3]
        if not (last[3] > 0 and np.all(np.abs(last[:3]) <= 1e-6 * last[3])):
            raise FrameError(
                what, expected="the last row [0, 0, 0, 1]", got=str(last.tolist()),
                fix="is the matrix transposed? it multiplies columns (x, y, z, 1)",
            )  # fmt: skip
        lengths = np.linalg.norm(matrix[:3, :3], axis=1, keepdims=True)
        if lengths.min() == 0 or np.linalg.svd(matrix[:3, :3] / lengths, compute_uv=False)[-1] < _SINGULAR:
            raise FrameError(
                what, expected="a 3x3 block of full rank", got="a singular one",
                fix="a camera maps three independent directions to column, row and depth",
            )  # fmt: skip


def agree(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether two (..., 4, 4) matrices of one camera are the same up to the rounding of written-down numbers.

    Differences count relative to the largest entry of their row, since rows 0 and 1 are in pixels and row 2 is not: at most 1e-4.
    """
    size = np.maximum(np.abs(first), np.abs(second)).max(axis=-1, keepdims=True)
    return bool(np.all(np.abs(first - second) <= _AGREE * size))


def matrix_from(value: object, shapes: tuple[tuple[int, ...], ...], what: str) -> NDArray[np.float64]:
    """Untrusted nested lists or an array → float64 of one of `shapes` (each with at most 2 dimensions).

    Errors: FrameError about `what` for another shape, anything but numbers, or numbers that are not finite.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.shape in shapes:
        numbers: object = value.tolist()
    else:
        numbers = value
    for shape in shapes:
        flat = _flat_numbers(numbers, shape)
        if flat is None:
            continue
        result = np.array(flat, np.float64).reshape(shape)
        if not np.isfinite(result).all():
            raise FrameError(what, expected="finite numbers", got="nan, infinity or a number beyond float64")
        return result
    wanted = " or ".join(" x ".join(map(str, shape)) for shape in shapes)
    raise FrameError(what, expected=f"{wanted} numbers", got=described_value(value))


def _flat_numbers(value: object, shape: tuple[int, ...]) -> list[float] | None:
    if not shape:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            return [float(value)]
        except OverflowError:
            return [math.inf]
    if not isinstance(value, list | tuple) or len(value) != shape[0]:
        return None
    flat: list[float] = []
    for item in value:
        part = _flat_numbers(item, shape[1:])
        if part is None:
            return None
        flat += part
    return flat
