"""`load_frame`: every form of a frame, and the checks that a command makes on it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occport.errors import FrameError
from occport.frames.frame import Frame
from occport.frames.rig import nuscenes_like_rig
from occport.frames.source import load_frame, seen_or_refuse
from occport.frames.visibility import voxel_centres

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
PC_RANGE = (-50, -50, -5, 50, 50, 3)
LEVELS = [voxel_centres(volume, PC_RANGE) for volume in ((20, 16, 4), (10, 8, 2), (5, 4, 1))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder `own` with frame.json and infos.pkl of the same two cameras, below the current one."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    names, rig = nuscenes_like_rig(2, 6, 8)
    cameras, cams = {}, {}
    for name, matrix in zip(names, rig, strict=True):
        Image.new("RGB", (8, 6), (1, 2, 3)).save(folder / f"{name}.png")
        cameras[name] = {"file": f"{name}.png", "lidar2img": matrix.tolist()}
        cams[name] = {"data_path": f"{name}.png", "cam_intrinsic": np.eye(3), "lidar2cam": matrix}
    (folder / "frame.json").write_text(json.dumps({"token": "json", "cameras": cameras}))
    (folder / "infos.pkl").write_bytes(pickle.dumps({"infos": [{"token": f"pkl{number}", "cams": cams} for number in range(3)]}))
    return folder


def load(spec, num_cameras=2):
    return load_frame(spec, num_cameras=num_cameras)


def test_every_form_of_a_frame(folder):
    rig = nuscenes_like_rig(2, 6, 8)[1]
    names = {"own/frame.json": "json", "own": "json", str(folder): "json", "own/infos.pkl:0": "pkl0", "own/infos.pkl:2": "pkl2"}
    for spec, name in names.items():
        frame = load(spec)
        assert frame.name == name
        np.testing.assert_array_equal(frame.lidar2img, rig)
    assert load("own/infos.pkl:2").described == "pkl2: 2 images and calibration of own/infos.pkl:2"
    (folder / "a:b.json").write_text((folder / "frame.json").read_text())
    assert load("own/a:b.json").name == "json"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own/infos.pkl", "own/infos.pkl: expected the number of a frame, got none; it holds 3: add :INDEX, from own/infos.pkl:0 to"),
        ("own/infos.pkl:", "expected a number from 0 after the colon, got ''"),
        ("own/infos.pkl:-1", "frame own/infos.pkl:-1: expected a number from 0 after the colon, got '-1'"),
        ("own/infos.pkl:one", "got 'one'"), ("own/infos.pkl:1.0", "got '1.0'"), ("own/infos.pkl:²", "got '²'"),
        ("own/infos.pkl:3", "frame 3 of own/infos.pkl: expected 0 to 2, got 3"),
        ("none.pkl:0", "none.pkl: expected a readable file, got No such file"),
        ("none.json", "frame 'none.json': expected a frame.json, a folder that holds one, or infos.pkl:INDEX, got no such file or folder"),
        ("", "frame: expected a frame.json, a folder that holds one, or infos.pkl:INDEX, got an empty text"), (" ", "got an empty text"),
        (".", "folder .: expected a frame.json in it, got none; give a frame.json"),
        ("own/CAM_0.png", "own/CAM_0.png: expected a JSON file"),
        ("a\0b", "frame 'a\\x00b': expected a frame.json"), ("x" * 5000, "File name too long"),
    ],
)  # fmt: skip
def test_what_is_refused(folder, spec, message):
    with pytest.raises(FrameError) as caught:
        load(spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_another_number_of_cameras(folder):
    with pytest.raises(FrameError) as caught:
        load("own", num_cameras=6)
    assert str(caught.value) == (
        "cameras of own: expected 6, got 2 (CAM_0, CAM_1); for a network of 2 cameras add "
        "--cfg-options model.pts_bbox_head.transformer_template.num_cams=2"
    )


def frame_of(rig):
    names = tuple(f"CAM_{number}" for number in range(len(rig)))
    return Frame("a-token", names, np.zeros((len(rig), 6, 8, 3), np.uint8), rig, "made up")


def looking_away(camera):
    """The camera a kilometre further, looking on from there. `camera`: (4, 4), one that looks forward."""
    away = np.eye(4)
    away[1, 3] = -1000.0
    return camera @ away


def test_all_cameras_see():
    rig = nuscenes_like_rig(6, 126, 224)[1]
    assert seen_or_refuse(frame_of(rig), LEVELS, (128, 224)) == ()


def test_blind_cameras_are_named():
    rig = nuscenes_like_rig(6, 126, 224)[1]
    rig[2] = rig[5] = looking_away(rig[0])
    assert seen_or_refuse(frame_of(rig), LEVELS, (128, 224)) == ("CAM_2", "CAM_5")


def test_a_camera_that_sees_at_one_level_is_not_blind():
    points = voxel_centres((1, 1, 1), (-1, 9, -1, 1, 11, 1))
    rig = nuscenes_like_rig(4, 126, 224)[1]  # forward, left, back, right
    left = voxel_centres((1, 1, 1), (-11, -1, -1, -9, 1, 1))
    assert seen_or_refuse(frame_of(rig), [points, left], (128, 224)) == ("CAM_2", "CAM_3")


def test_the_blind_camera_of_the_reference():
    if not REFERENCE.is_dir():
        pytest.skip("no ../shared/reference beside this checkout: the reference rigs are there")
    with np.load(REFERENCE / "micro_blind.npz") as case:
        rig = case["lidar2img"][0]
    assert seen_or_refuse(frame_of(rig), LEVELS, (128, 224)) == ("CAM_3",)


def test_a_rig_that_sees_nothing():
    rig = nuscenes_like_rig(2, 126, 224)[1]
    rig[:] = looking_away(rig[0])
    with pytest.raises(FrameError, match=r"calibration of a-token: expected cameras that see voxels of .*, got none that sees any; check"):
        seen_or_refuse(frame_of(rig), LEVELS, (128, 224))
