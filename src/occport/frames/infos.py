"""A frame from a dataset file of SurroundOcc, `nuscenes_infos_*.pkl`: {'infos': [{'token', 'cams': {NAME: {…}}}, …]}.

Of a camera are used: `data_path`, `cam_intrinsic` (3, 3) and either `sensor2lidar_rotation` (3, 3) with
`sensor2lidar_translation` (3,), as nuScenes' tools write them, or `lidar2cam` (4, 4) for own data. Frames count from 0 in the
file's order. A relative `data_path` is looked for under the folder of the pickle, then under each folder above it, the nearest
first (dataset files say './data/nuscenes/…', seen from the root of the original project), then under the current folder. The ground
truth, `occ_path`, is looked for in the same way.

The file read last is kept, so that going through a dataset frame by frame parses it once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from .frame import Frame, described_value, printable, upstream_order
from .images import read_images
from .rig import agree, check_rig, matrix_from, projection
from .safe_pickle import plain, read_pickle

_KEPT_KEYS = ("token", "occ_path", "cams")  # sweeps and boxes make up most of a file and are not needed
_SETTLED = 2_000_000_000  # nanoseconds; a younger file might be written again without a change of its time
_last: dict[tuple[str, int, int], list[object]] = {}  # (path, bytes, time of change) → 'infos'; the file read last, or nothing


def read_infos(path: Path, index: int) -> Frame:
    """Frame `index` of a dataset file, with its images.

    Errors: FrameError for a file that is not such a pickle, names anything but plain data and arrays, or whose frame lacks
    something; for an index that is not one of its frames; for images that cannot be found or read.
    """
    infos = _infos(path)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(infos):
        raise FrameError(f"frame {described_value(index)} of {path}", expected=f"0 to {len(infos) - 1}", got=described_value(index))
    what = f"{path}:{index}"
    info = infos[index]
    cams = info.get("cams") if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(cams, dict) or not cams:
        raise FrameError(f"{what}: cams", expected="a mapping from camera names to cameras", got=described_value(cams))
    names = upstream_order(printable(name, f"{what}: name of a camera") for name in cams)
    lidar2img = np.stack([_lidar2img(cams[name], f"{what}: cams.{name}") for name in names])
    check_rig(lidar2img, names, what)
    files = [_found(printable(plain(cams[name].get("data_path")), f"{what}: cams.{name}.data_path"), path) for name in names]
    token = printable(plain(info["token"]), f"{what}: token") if "token" in info else f"frame {index}"
    return Frame(token, names, read_images(files, names), lidar2img, f"{token}: {len(names)} images and calibration of {what}")


def count_infos(path: Path) -> int:
    """How many frames a dataset file holds. Errors: FrameError as in `read_infos`."""
    return len(_infos(path))


def names_in_infos(path: Path) -> list[tuple[str | None, str | None]]:
    """(token, occ_path as written) of every frame, in the file's order; None for what a frame lacks or what is no printable text.

    Errors: FrameError as in `count_infos`; what else is wrong with a frame is told when that frame is read.
    """
    return [(_text(info, "token"), _text(info, "occ_path")) for info in _infos(path)]


def ground_truth_file(occ_path: str, infos_path: Path) -> Path:
    """Where the ground truth of a frame is; the first place where it could be if it is nowhere."""
    places = _places(occ_path, infos_path)
    return next((place for place in places if _is_file(place)), places[0])


def _text(info: object, key: str) -> str | None:
    value = plain(info.get(key)) if isinstance(info, dict) else None
    return value if isinstance(value, str) and value and value.isprintable() else None


def _infos(path: Path) -> list[object]:
    stamp = _stamp(path)
    kept = _last.get(stamp) if stamp else None
    if kept is not None:
        return kept
    infos = _read(path)
    if stamp and stamp == _stamp(path) and abs(time.time_ns() - stamp[2]) > _SETTLED:
        _last.clear()
        _last[stamp] = infos
    return infos


def _stamp(path: Path) -> tuple[str, int, int] | None:
    try:
        status = path.stat()
        return str(path.resolve()), status.st_size, status.st_mtime_ns
    except (OSError, ValueError):  # the reader says what is wrong with it
        return None


def _read(path: Path) -> list[object]:
    content = read_pickle(path)
    infos = content.get("infos") if isinstance(content, dict) else None
    if not isinstance(infos, list):
        raise FrameError(
            str(path), expected="a mapping with a list 'infos', as SurroundOcc's nuscenes_infos_*.pkl",
            got=described_value(content) if infos is None else f"'infos' as {described_value(infos)}",
        )  # fmt: skip
    if not infos:
        raise FrameError(str(path), expected="at least one frame in 'infos'", got="none")
    return [{key: info[key] for key in _KEPT_KEYS if key in info} if isinstance(info, dict) else info for info in infos]


def _lidar2img(camera: object, what: str) -> NDArray[np.float64]:
    """(4, 4) float64 of one camera, composed in float64 as the original does."""
    if not isinstance(camera, dict):
        raise FrameError(what, expected="a mapping with data_path, cam_intrinsic and a pose", got=described_value(camera))
    intrinsic = _matrix(camera, "cam_intrinsic", ((3, 3), (4, 4)), what)
    from_sensor = _from_sensor2lidar(camera, what) if "sensor2lidar_rotation" in camera or "sensor2lidar_translation" in camera else None
    given = _matrix(camera, "lidar2cam", ((4, 4),), what) if "lidar2cam" in camera else None
    if from_sensor is not None and given is not None and not agree(from_sensor, given):
        raise FrameError(
            f"{what}: lidar2cam", expected="the inverse of sensor2lidar_*", got="another pose", fix="correct one, or leave one out"
        )
    lidar2cam = from_sensor if from_sensor is not None else given
    if lidar2cam is None:
        raise FrameError(what, expected="sensor2lidar_rotation and sensor2lidar_translation, or lidar2cam", got="neither")
    return projection(intrinsic, lidar2cam)


def _from_sensor2lidar(camera: Mapping[object, object], what: str) -> NDArray[np.float64]:
    rotation = _matrix(camera, "sensor2lidar_rotation", ((3, 3),), what)
    translation = _matrix(camera, "sensor2lidar_translation", ((3,),), what)
    lidar2cam = np.eye(4)
    try:
        lidar2cam[:3, :3] = np.linalg.inv(rotation)
    except np.linalg.LinAlgError as error:
        raise FrameError(f"{what}.sensor2lidar_rotation", expected="a rotation", got="a singular matrix") from error
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused by `check_rig`
        lidar2cam[:3, 3] = -(lidar2cam[:3, :3] @ translation)
    return lidar2cam


def _matrix(camera: Mapping[object, object], key: str, shapes: tuple[tuple[int, ...], ...], what: str) -> NDArray[np.float64]:
    if key not in camera:
        raise FrameError(f"{what}: the key {key!r} is missing", expected=" or ".join(map(str, shapes)) + " numbers")
    return matrix_from(plain(camera[key]), shapes, f"{what}.{key}")


def _places(relative: str, infos_path: Path) -> list[Path]:
    """Where a path of a dataset file may be, the preferred place first."""
    folder = infos_path.resolve().parent
    # A dict, since the current folder may be among the others. An absolute path overrides each folder in a join.
    return list(dict.fromkeys(place / relative for place in (folder, *folder.parents, Path.cwd())))


def _found(data_path: str, infos_path: Path) -> Path:
    places = _places(data_path, infos_path)
    for place in places:
        if _is_file(place):
            return place
    raise FrameError(
        f"image {data_path} of {infos_path}", expected="a file", got="nothing at " + ", ".join(map(str, places)),
        fix="run from the folder that data_path starts from, or move the images there",
    )  # fmt: skip


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long, or a folder that may not be entered
        return False
