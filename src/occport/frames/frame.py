"""A frame: the images of all cameras at one moment, and where each camera is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError

# The order in which the original network's camera embeddings were trained.
NUSCENES_CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment, N cameras.

    Attributes:
        name: the frame's token, or "synthetic".
        camera_names: N names, in the order of the other fields.
        images: (N, H, W, 3) uint8, channels B, G, R, as read: neither normalised nor padded.
        lidar2img: (N, 4, 4) float64, homogeneous LiDAR metres (x right, y forward, z up) → pixels times depth. Padding at the
            bottom and right moves no pixel, so it holds for the padded image too.
        described: one line for the manifest: where the frame comes from.
    """

    name: str
    camera_names: tuple[str, ...]
    images: NDArray[np.uint8]
    lidar2img: NDArray[np.float64]
    described: str


def upstream_order(names: Iterable[str]) -> tuple[str, ...]:
    """`names` as given; where all six nuScenes names are among them, those come first, in the original's order."""
    given = tuple(names)
    if not set(NUSCENES_CAMERAS) <= set(given):
        return given
    return NUSCENES_CAMERAS + tuple(name for name in given if name not in NUSCENES_CAMERAS)


def printable(value: object, what: str) -> str:
    """`value` if it is text that can stand in a path and in a one-line message.

    Errors: FrameError about `what` for anything but a non-empty text without control characters.
    """
    if not isinstance(value, str) or not value or not value.isprintable():
        raise FrameError(what, expected="a non-empty text of printable characters", got=described_value(value))
    return value


def described_value(value: object) -> str:
    """A few words on a wrong value, for the "got" of a message; never long, never more than one line."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, list | tuple):
        inner = {len(item) for item in value if isinstance(item, list | tuple)}
        return f"{len(value)} x {inner.pop()} values" if len(inner) == 1 else f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"a mapping with {len(value)} keys"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "…")
    if isinstance(value, int | float) and abs(value) < 1e15:  # a longer integer might have too many digits to be printed
        return repr(value)
    return f"a value of type {type(value).__name__}"


def file_bytes(path: Path) -> bytes:
    """The content of a file. Errors: FrameError with the path where it is missing, a folder, or unreadable."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path that no file system can hold
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FrameError(str(path), expected="a readable file", got=reason) from error
