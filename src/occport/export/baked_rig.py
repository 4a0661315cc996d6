"""The rig that a file of calibration `fixed` was made for. Everything about it is a constant in the file: no other gives right labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError, ModelFileError
from ..frames.frame import Frame, described_value
from ..frames.rig import agree, check_rig, matrix_from
from .spec import Spec


def baked_rig(table: Mapping[str, Any], spec: Spec, model: Path) -> NDArray[np.float64] | None:
    """The baked calibration, from a manifest.

    Args:
        table: the manifest.
        spec: the manifest's.
        model: the exported file, for messages.

    Returns: (N, 4, 4) float64, LiDAR metres → pixels; None for a file that takes its calibration as an input.
    Errors: ModelFileError where the manifest has none, as older ones, or none that can be cameras.
    """
    if spec.calibration != "fixed":
        return None
    what, matrices = f"manifest of {model}: frame.lidar2img", table["frame"].get("lidar2img")
    count = spec.config.num_cameras
    expected = f"the rig that is baked into the file, {count} x 4 x 4 numbers"
    if not isinstance(matrices, list) or len(matrices) != count:
        raise ModelFileError(what, expected=expected, got=described_value(matrices), fix="export again")
    try:
        rig = np.stack([matrix_from(matrix, ((4, 4),), what) for matrix in matrices])
        check_rig(rig, tuple(f"camera {number}" for number in range(count)), what)
    except FrameError as error:
        raise ModelFileError(error.what, expected=error.expected, got=error.got, fix="export again") from error
    return rig


def check_baked(frame: Frame, rig: NDArray[np.float64], model: Path) -> None:
    """Refuses a frame of another calibration than the baked one.

    Args:
        frame: of as many cameras.
        rig: (N, 4, 4) float64, as `baked_rig` gives it.
        model: the exported file, for the message.

    Errors: FrameError that names the cameras that differ.
    """
    apart = [name for name, own, baked in zip(frame.camera_names, frame.lidar2img, rig, strict=True) if not agree(own, baked)]
    if apart:
        raise FrameError(
            f"calibration of {frame.name}", expected=f"the one that is baked into {model.name} (calibration fixed)",
            got="another for every camera" if len(apart) == len(rig) else f"another for {', '.join(apart)}",
            fix="export with --calibration runtime or tables for a rig that may change",
        )  # fmt: skip
