"""Projection matrices taken apart and put together again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from occport.frames.pinhole import pinhole_of, place_of
from occport.frames.rig import nuscenes_like_rig

FRAME = Path(__file__).resolve().parents[2] / "shared" / "data" / "nuscenes_frame" / "frame.json"


def again(camera) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = camera.intrinsic @ camera.rotation.T
    matrix[:3, 3] = -matrix[:3, :3] @ camera.place
    return matrix


@pytest.mark.parametrize("num_cameras", [1, 4, 6, 8])
def test_a_rig_comes_back(num_cameras):
    _, rig = nuscenes_like_rig(num_cameras, 900, 1600)
    for matrix in rig:
        camera = pinhole_of(matrix)
        np.testing.assert_allclose(again(camera), matrix, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.rotation) > 0 and camera.intrinsic[0, 0] > 0 and camera.intrinsic[1, 1] > 0
        np.testing.assert_array_equal(camera.intrinsic[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1])


def test_the_first_camera_of_the_made_up_rig_is_where_it_was_put():
    _, rig = nuscenes_like_rig(6, 900, 1600)
    camera = pinhole_of(rig[0])
    np.testing.assert_allclose(camera.place, [-0.01, 0.72, -0.33], atol=1e-9)
    np.testing.assert_allclose(camera.intrinsic[[0, 1, 0, 1], [0, 1, 2, 2]], [1264, 1264, 815, 491], atol=1e-9)
    assert camera.rotation[1, 2] > 0.99  # looks forward, along y


def test_the_scale_of_a_projection_does_not_matter():
    _, rig = nuscenes_like_rig(6, 90, 160)
    np.testing.assert_allclose(pinhole_of(rig[2] * 7.5).intrinsic, pinhole_of(rig[2]).intrinsic, rtol=1e-9, atol=1e-9)


def test_mirrored_and_skewed_cameras_are_no_pinholes_but_are_somewhere():
    _, rig = nuscenes_like_rig(6, 900, 1600)
    mirrored = np.diag([-1.0, 1, 1, 1]) @ rig[0]
    mirrored[0] += 1600 * rig[0][2]
    skewed = np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ rig[0]
    for matrix in (mirrored, skewed):
        assert pinhole_of(matrix) is None
        np.testing.assert_allclose(place_of(matrix), [-0.01, 0.72, -0.33], atol=1e-9)


@pytest.mark.skipif(not FRAME.exists(), reason="the nuScenes frame is not there")
def test_real_cameras_are_pinholes_with_their_own_lens():
    for camera in json.loads(FRAME.read_text())["cameras"].values():
        found = pinhole_of(np.array(camera["lidar2img"]))
        np.testing.assert_allclose(found.intrinsic, camera["intrinsic"], rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(found.rotation, np.array(camera["lidar2cam"])[:3, :3].T, atol=1e-5)
