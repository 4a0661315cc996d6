"""Where a command's frame comes from: a frame file or a dataset. Where none is named, the synthetic city has one (`city/frame.py`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from .frame import Frame
from .frame_json import read_frame_json
from .infos import count_infos, read_infos
from .visibility import hits, unseen_report

_FORMS = "a frame.json, a folder that holds one, or infos.pkl:INDEX"
_PICKLES = (".pkl", ".pickle")


def load_frame(spec: str, *, num_cameras: int) -> Frame:
    """The frame that a user asks for.

    Args:
        spec: "path/frame.json"; a folder that holds frame.json; "path/infos.pkl:INDEX".
        num_cameras: N, what the network takes.
    Errors: FrameError for a spec of another form, everything the readers refuse, and another number of cameras.
    """
    frame = read_frame(spec)
    if len(frame.camera_names) != num_cameras:
        count = len(frame.camera_names)
        raise FrameError(
            f"cameras of {spec}", expected=str(num_cameras), got=f"{count} ({', '.join(frame.camera_names)})",
            fix=f"for a network of {count} cameras add --cfg-options model.pts_bbox_head.transformer_template.num_cams={count}",
        )  # fmt: skip
    return frame


def read_frame(spec: str) -> Frame:
    """A frame of any number of cameras: "path/frame.json", a folder that holds one, or "path/infos.pkl:INDEX". Errors as `load_frame`."""
    path = Path(spec)
    if not spec.strip():
        raise FrameError("frame", expected=_FORMS, got="an empty text")
    try:
        is_folder, exists = path.is_dir(), path.exists()
        holds_frame = is_folder and (path / "frame.json").is_file()
    except (OSError, ValueError) as error:
        raise FrameError(f"frame {spec!r}", expected=_FORMS, got=str(error)) from error
    if is_folder:
        if not holds_frame:
            raise FrameError(f"folder {spec}", expected="a frame.json in it", got="none", fix=f"give {_FORMS}")
        return read_frame_json(path / "frame.json")
    if exists and path.suffix in _PICKLES:
        count = count_infos(path)
        raise FrameError(
            f"dataset file {spec}", expected="the number of a frame", got="none",
            fix=f"it holds {count}: add :INDEX, from {spec}:0 to {spec}:{count - 1}",
        )  # fmt: skip
    file, colon, index = spec.rpartition(":")
    if not exists and colon and Path(file).suffix in _PICKLES:
        if not re.fullmatch(r"[0-9]{1,9}", index):
            raise FrameError(f"frame {spec}", expected="a number from 0 after the colon", got=repr(index))
        return read_infos(Path(file), int(index))
    if not exists:
        raise FrameError(f"frame {spec!r}", expected=_FORMS, got="no such file or folder")
    return read_frame_json(path)


def seen_or_refuse(frame: Frame, points_per_level: Sequence[NDArray[np.float32]], padded_hw: tuple[int, int]) -> tuple[str, ...]:
    """Names of the cameras that see no voxel of any level, to warn about; a rig that sees nothing at all is refused.

    Args:
        frame: its rig counts, not its images.
        points_per_level: for each level (V, 3) float32 voxel centres, metres.
        padded_hw: (H, W) of the padded image.
    Errors: FrameError where no camera sees any voxel: the output would not depend on the images.
    """
    hit = np.concatenate([hits(frame.lidar2img, padded_hw, points) for points in points_per_level], axis=1)  # (N, sum of V)
    blind = unseen_report(hit, frame.camera_names)
    if len(blind) == len(frame.camera_names):
        raise FrameError(
            f"calibration of {frame.name}", expected="cameras that see voxels of point_cloud_range", got="none that sees any",
            fix="check that lidar2img takes metres in the LiDAR frame (x right, y forward, z up) to pixels",
        )  # fmt: skip
    return blind
