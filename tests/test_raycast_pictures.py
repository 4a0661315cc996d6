"""Rays through pixels: from a camera's matrix to the colours of an image."""

from __future__ import annotations

import numpy as np
import pytest

from occport.frames.rig import nuscenes_like_rig
from occport.voxels.grid import Grid
from occport.voxels.raycast import FACE_LIGHT, MISS, Caster, Hits, camera_rays, render


def test_points_of_a_rig_lie_on_the_faces_that_were_met():
    dice = np.random.default_rng(3)
    grid = Grid((100, 100, 16))
    solid = dice.random(grid.size) < 0.01
    solid[:, :, 2] = True
    _, rig = nuscenes_like_rig(6, 45, 80)
    caster, met = Caster(solid, grid), 0
    for matrix in rig:
        origin, directions = camera_rays(matrix, 45, 80)
        hits = caster.cast(origin, directions)
        hit = np.flatnonzero((hits.voxel >= 0) & (hits.distance > 0))
        met += len(hit)
        assert solid.reshape(-1)[hits.voxel[hit]].all()
        place = (origin + directions[hit] * hits.distance[hit, None] - grid.low) / grid.voxel_size
        within = place - np.stack(np.unravel_index(hits.voxel[hit], grid.size), axis=1)
        assert within.min() > -1e-4 and within.max() < 1 + 1e-4
        axis, upper = hits.face[hit] // 2, hits.face[hit] % 2
        np.testing.assert_allclose(within[np.arange(len(hit)), axis], upper, atol=1e-4)
        assert np.array_equal(directions[hit, axis] < 0, upper == 1)
    assert met > 10_000


@pytest.mark.parametrize("num_cameras", [1, 6])
def test_camera_rays_project_to_the_centres_of_their_pixels(num_cameras):
    height, width = 9, 16
    _, rig = nuscenes_like_rig(num_cameras, height, width)
    for matrix in rig:
        origin, directions = camera_rays(matrix, height, width)
        assert directions.shape == (height * width, 3) and directions.flags.c_contiguous
        np.testing.assert_allclose(matrix[:3] @ [*origin, 1], 0, atol=1e-9)  # the one point without a pixel
        for depth in (0.5, 40.0):
            points = origin + depth * directions
            column, row, away = matrix[:3, :3] @ points.T + matrix[:3, 3:]
            np.testing.assert_allclose(away, depth, rtol=1e-12)
            np.testing.assert_allclose((column / away).reshape(height, width), np.tile(np.arange(width) + 0.5, (height, 1)), atol=1e-9)
            np.testing.assert_allclose((row / away).reshape(height, width), np.arange(height)[:, None] + np.full(width, 0.5), atol=1e-9)


@pytest.mark.parametrize("shape", [(60, 3), (4, 3, 5, 3)])
def test_colours_are_those_of_the_voxels_times_the_light_of_the_face(shape):
    colours = np.arange(180, dtype=np.uint8).reshape(shape)
    hits = Hits(np.array([0, 59, MISS, 20]), np.array([5, 4, MISS, 0], np.int8), np.zeros(4, np.float32))
    background = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], np.uint8)
    image = render(hits, colours, background)
    assert image.dtype == np.uint8
    assert image.tolist() == [[0, 1, 2], [97, 98, 98], [7, 8, 9], [48, 49, 50]]  # 177..179 * 0.55 and 60..62 * 0.80, rounded
    assert len(FACE_LIGHT) == 6 and max(FACE_LIGHT) == FACE_LIGHT[5] == 1.0
    assert render(hits, colours, background[2])[2].tolist() == [7, 8, 9]
    assert background.tolist()[0] == [1, 2, 3]  # left alone
