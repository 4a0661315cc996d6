"""The synthetic city as a dataset in SurroundOcc's format.

    DIR/infos.pkl                      {'infos': [{'token', 'scene_token', 'timestamp', 'lidar_path', 'occ_path', 'cams'}, …], 'metadata'}
    DIR/samples/CAM_FRONT/TOKEN.png    …, one folder for each camera
    DIR/occ/TOKEN.npy                  (n, 4) int32: x, y, z and class of every voxel that is not empty

Paths in the file are relative to DIR. There is no LiDAR sweep: `lidar_path` is empty.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportError
from ..frames.images import write_image
from ..frames.pinhole import pinhole_of
from ..staging import Staging
from ..voxels.classes import EMPTY
from ..voxels.grid import Grid
from .frame import city_frame
from .layout import FRAMES

_MICROSECONDS = 500_000  # between two frames, as between nuScenes' key frames
_PROTOCOL = 4


def write_dataset(
    folder: Path, *, frames: int, seed: int, num_cameras: int, image_size: tuple[int, int], grid: Grid, step: Callable[[], None]
) -> list[Path]:
    """Renders frames of the city and writes them; all or nothing.

    Args:
        folder: is made; it must be new or empty.
        frames: how many, at least 1.
        seed: of the city.
        num_cameras, image_size, grid: see `city_frame`.
        step: called after every frame.
    Returns:
        The files, sorted.
    Errors: ExportError for a folder that holds something, or cannot be written to; FrameError as `city_frame`.
    """
    _refuse_contents(folder)
    with Staging(folder) as stage:
        infos = []
        for number in range(frames):
            infos.append(_write_frame(stage.path, seed, number, num_cameras, image_size, grid))
            step()
        metadata = {"version": "occport-city", "seed": seed, "occ_size": list(grid.size), "point_cloud_range": list(grid.pc_range)}
        (stage.path / "infos.pkl").write_bytes(pickle.dumps({"infos": infos, "metadata": metadata}, protocol=_PROTOCOL))
        return stage.commit()


def _write_frame(
    folder: Path, seed: int, number: int, num_cameras: int, image_size: tuple[int, int], grid: Grid
) -> dict[str, object]:
    """Writes the images and the ground truth of a frame; returns its entry."""
    frame, scene = city_frame(seed, number, num_cameras, image_size, grid)
    token = frame.name
    cams = {}
    for name, image, matrix in zip(frame.camera_names, frame.images, frame.lidar2img, strict=True):
        place = Path("samples") / name / f"{token}.png"
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / place, image)
        camera = pinhole_of(matrix)
        assert camera is not None, "the made-up rig has no skew"
        cams[name] = {
            "data_path": place.as_posix(), "type": name, "cam_intrinsic": camera.intrinsic,
            "sensor2lidar_rotation": camera.rotation, "sensor2lidar_translation": camera.place,
        }  # fmt: skip
    truth = Path("occ") / f"{token}.npy"
    (folder / truth).parent.mkdir(exist_ok=True)
    (folder / truth).write_bytes(_ground_truth(scene.labels))
    return {
        "token": token, "scene_token": f"city_{seed}_scene_{number // FRAMES}", "timestamp": number * _MICROSECONDS, "lidar_path": "",
        "occ_path": truth.as_posix(), "cams": cams,
    }  # fmt: skip


def _ground_truth(labels: NDArray[np.uint8]) -> bytes:
    """(X, Y, Z) → a .npy file: (n, 4) int32, index and class of every voxel that is not empty.

    As bytes: into a real file numpy writes past Python, and then a full disk has no errno.
    """
    index = np.argwhere(labels != EMPTY)
    content = io.BytesIO()
    np.save(content, np.concatenate([index, labels[tuple(index.T)][:, None]], axis=1).astype(np.int32))
    return content.getvalue()


def _refuse_contents(folder: Path) -> None:
    """A dataset does not mix with other files, hidden ones of a run that was killed included: the error names one of them."""
    what, fix = f"output folder {folder}", "choose another folder"
    try:
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ExportError(what, expected="a folder that can be read", got=error.strerror or str(error), fix=fix) from error
    if found:
        others = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise ExportError(what, expected="a new or an empty one", got=f"one that holds {found[0]}{others}", fix=fix)
