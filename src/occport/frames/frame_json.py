"""A frame from images and a JSON file: the way for own data, without any dataset.

    {
      "token": "my-first-frame",                       optional: the frame's name; else the folder's name
      "occ_path": "occ.npy",                           optional: its ground truth, relative to this file, or absolute
      "cameras": {                                     required: one entry for each camera; their order is the network's
        "CAM_FRONT": {
          "file": "samples/CAM_FRONT.jpg",             required: relative to this file, or absolute
          "intrinsic": [[1266.4, 0.0, 816.3],          3x3 (or 4x4), pixels of the image as it is in the file:
                        [0.0, 1266.4, 491.5],          [[focal x, 0, centre column], [0, focal y, centre row], [0, 0, 1]]
                        [0.0, 0.0, 1.0]],
          "lidar2cam": [[1, 0, 0, 0], …],              4x4: (x, y, z, 1) in the LiDAR frame → camera frame, metres
          "lidar2img": [[…], …],                       4x4: intrinsic (padded to 4x4) @ lidar2cam
          "width": 1600, "height": 900                 optional: checked against the image
        },
        …
      }
    }

- Give `lidar2img`, or `intrinsic` and `lidar2cam`. Where all are given they must agree, and `lidar2img` is taken.
- LiDAR frame: x right, y forward, z up, with the origin at the sensor. Camera frame: x right, y down, z along the view. Matrices
  are lists of rows and multiply columns; the last row of a 4x4 is [0, 0, 0, 1].
- No lens distortion: undistort images first. Images are neither resized nor cropped, and all have one size.
- Six cameras with nuScenes' names (CAM_FRONT, CAM_FRONT_RIGHT, CAM_FRONT_LEFT, CAM_BACK, CAM_BACK_LEFT, CAM_BACK_RIGHT) are put into
  that order, whatever the file's; the trained network knows its cameras by their place. Any other cameras keep the file's order.
- Unknown keys of a camera are refused, so that a misspelt one is not overlooked; further keys beside "cameras" are left alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from .frame import Frame, described_value, file_bytes, printable, upstream_order
from .images import read_images
from .rig import agree, check_rig, matrix_from, projection

_CAMERA_KEYS = ("file", "intrinsic", "lidar2cam", "lidar2img", "width", "height")


def read_frame_json(path: Path) -> Frame:
    """Reads a frame file of the form above, and its images.

    Errors: FrameError with the dotted key for anything missing, misspelt, of a wrong form, or in disagreement with the images.
    """
    content = _parsed(path)
    cameras = content.get("cameras")
    if not isinstance(cameras, dict) or not cameras:
        raise FrameError(f"{path}: cameras", expected="a mapping from camera names to cameras", got=described_value(cameras))
    names = upstream_order(printable(name, f"{path}: name of a camera") for name in cameras)
    lidar2img = np.stack([_lidar2img(cameras[name], f"{path}: cameras.{name}") for name in names])
    check_rig(lidar2img, names, str(path))
    files = [path.parent / printable(cameras[name].get("file"), f"{path}: cameras.{name}.file") for name in names]
    images = read_images(files, names)
    for name in names:
        _check_size(cameras[name], images.shape[1:3], f"{path}: cameras.{name}")
    token = printable(content["token"], f"{path}: token") if "token" in content else path.resolve().parent.name or "frame"
    return Frame(token, names, images, lidar2img, f"{token}: {len(names)} images and calibration of {path}")


def names_in_frame_json(path: Path) -> tuple[str | None, Path | None]:
    """Token and ground truth file of a frame, None where the file names none; neither images nor cameras are looked at.

    Errors: FrameError for a file that is no JSON mapping, and for a token or an occ_path that is no printable text.
    """
    content = _parsed(path)
    token = printable(content["token"], f"{path}: token") if "token" in content else None
    truth = path.parent / printable(content["occ_path"], f"{path}: occ_path") if content.get("occ_path") is not None else None
    return token, truth


def _parsed(path: Path) -> dict[str, object]:
    try:
        content = json.loads(file_bytes(path).decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise FrameError(str(path), expected="a JSON file", got=f"something else ({error})") from error
    if not isinstance(content, dict):
        raise FrameError(str(path), expected='a mapping with the key "cameras"', got=described_value(content))
    return content


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON allows a key twice and keeps the last: a camera that was copied and not renamed would vanish."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one mapping")
    return mapping


def _lidar2img(camera: object, what: str) -> NDArray[np.float64]:
    """(4, 4) float64 of one camera entry."""
    if not isinstance(camera, dict):
        raise FrameError(what, expected="a mapping with " + ", ".join(_CAMERA_KEYS), got=described_value(camera))
    for key in camera:
        if key not in _CAMERA_KEYS:
            raise FrameError(f"{what}: unknown key {key!r}", expected="one of " + ", ".join(_CAMERA_KEYS))
    given = {
        key: matrix_from(camera[key], shapes, f"{what}.{key}")
        for key, shapes in (("intrinsic", ((3, 3), (4, 4))), ("lidar2cam", ((4, 4),)), ("lidar2img", ((4, 4),)))
        if key in camera
    }
    parts = projection(given["intrinsic"], given["lidar2cam"]) if "intrinsic" in given and "lidar2cam" in given else None
    whole = given.get("lidar2img")
    if whole is None and parts is None:
        raise FrameError(what, expected="lidar2img, or intrinsic and lidar2cam", got=", ".join(given) or "neither")
    if whole is None or parts is None:
        return parts if whole is None and parts is not None else given["lidar2img"]
    if not agree(whole, parts):
        raise FrameError(
            what, expected="lidar2img = intrinsic @ lidar2cam", got="matrices that disagree by more than 1e-4 of a row's largest entry",
            fix="correct one, or leave one out",
        )  # fmt: skip
    return whole


def _check_size(camera: dict[str, object], image_hw: tuple[int, ...], what: str) -> None:
    for key, pixels in zip(("height", "width"), image_hw, strict=True):
        if key not in camera:
            continue
        declared = camera[key]
        if isinstance(declared, bool) or not isinstance(declared, int | float):
            raise FrameError(f"{what}.{key}", expected="a number of pixels", got=described_value(declared))
        if declared != pixels:
            raise FrameError(
                f"{what}.{key}", expected=f"{pixels}, as the image has", got=described_value(declared),
                fix="is the calibration of another image size? scale its intrinsic matrix",
            )  # fmt: skip
