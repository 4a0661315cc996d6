"""The brute force that tables are checked against, itself checked against a naive loop and the reference rigs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from occport.frames.rig import nuscenes_like_rig, turned
from occport.frames.visibility import budget_for, hits, needs, overflow, unseen_report, voxel_centres

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
PC_RANGE = (-50, -50, -5, 50, 50, 3)
FULL = ((100, 100, 8), (50, 50, 4), (25, 25, 2))
MICRO = ((20, 16, 4), (10, 8, 2), (5, 4, 1))


def reference_rig(name):
    if not REFERENCE.is_dir():
        pytest.skip("no ../shared/reference beside this checkout: the reference rigs are there")
    with np.load(REFERENCE / f"{name}.npz") as case:
        return case["lidar2img"], tuple(int(size) for size in case["img_shape"])


def test_voxel_centres_in_flat_order():
    centres = voxel_centres((3, 4, 2), (-8, -3, 0, 8, 6, 10))
    assert centres.shape == (24, 3) and centres.dtype == np.float32
    for z in range(2):
        for h in range(3):
            for w in range(4):
                expected = (-8 + (w + 0.5) * 4, -3 + (h + 0.5) * 3, (z + 0.5) * 5)
                assert tuple(centres[(z * 3 + h) * 4 + w]) == expected


def test_voxel_centres_are_rounded_once():
    centres = voxel_centres((7, 3, 11), PC_RANGE)
    assert centres[0, 0] == np.float32(-50 + 0.5 / 3 * 100)
    assert centres[-1, 1] == np.float32(-50 + 6.5 / 7 * 100)
    assert centres[-1, 2] == np.float32(-5 + 10.5 / 11 * 8)


def naive_hit(matrix, image_hw, point):
    column, row, depth, _ = (float(value) for value in matrix @ np.array([*map(float, point), 1.0]))
    if depth <= 1e-5:
        return False
    return 0 < column / depth / image_hw[1] < 1 and 0 < row / depth / image_hw[0] < 1


@settings(deadline=None, max_examples=10)
@given(st.floats(0, 360), st.integers(1, 8))
def test_hits_against_a_loop(degrees, cameras):
    rig = turned(nuscenes_like_rig(cameras, 90, 160)[1], degrees)
    points = voxel_centres((5, 6, 2), PC_RANGE)
    hit = hits(rig, (96, 160), points)
    assert hit.shape == (cameras, 60) and hit.dtype == np.bool_
    expected = [[naive_hit(matrix, (96, 160), point) for point in points] for matrix in rig]
    np.testing.assert_array_equal(hit, expected)


def test_hits_at_the_borders():
    camera = np.eye(4)[None]  # column and row are x / z and y / z
    inside = [(1, 1, 1), (3.999, 1, 1), (1e-9, 1, 1), (1, 1.999, 1), (2e-5, 2e-5, 2e-5)]
    outside = [(0, 1, 1), (4, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (-1, -1, -1), (1e-5, 1e-5, 1e-5), (1e-6, 1e-6, 0)]
    hit = hits(camera, (2, 4), np.array(inside + outside))
    assert hit[0].tolist() == [True] * len(inside) + [False] * len(outside)


def test_the_padded_rows_count():
    camera = np.eye(4)[None]
    point = np.array([[100.0, 910.0, 1.0]])
    assert hits(camera, (928, 1600), point).tolist() == [[True]]
    assert hits(camera, (900, 1600), point).tolist() == [[False]]


def test_hits_in_float32_differ_at_the_border_only():
    rig = nuscenes_like_rig(6, 900, 1600)[1]
    points = voxel_centres((50, 50, 4), PC_RANGE)
    double, single = hits(rig, (928, 1600), points), hits(rig, (928, 1600), points, dtype=np.float32)
    assert np.count_nonzero(double != single) <= 3


def test_what_a_nuscenes_frame_needs():
    rig, image_hw = reference_rig("nuscenes_frame_full")
    found = [needs(hits(rig[0], image_hw, voxel_centres(volume, PC_RANGE))) for volume in FULL]
    assert found == [(18875, 2), (2338, 2), (287, 2)]


def test_the_made_up_rig_needs_about_the_same():
    rig = nuscenes_like_rig(6, 900, 1600)[1]
    found = [needs(hits(rig, (928, 1600), voxel_centres(volume, PC_RANGE)))[0] for volume in FULL]
    np.testing.assert_allclose(found, [18875, 2338, 287], rtol=0.03)


@pytest.mark.parametrize(("name", "blind"), [("micro_sem", ()), ("micro_blind", ("D",)), ("micro_batch2", ()), ("tiny_sem", ())])
def test_blind_cameras_of_the_reference_rigs(name, blind):
    rigs, image_hw = reference_rig(name)
    for rig in rigs:
        hit = np.concatenate([hits(rig, image_hw, voxel_centres(volume, PC_RANGE)) for volume in MICRO], axis=1)
        assert unseen_report(hit, tuple("ABCDEF")) == blind


def test_needs():
    hit = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]], bool)
    assert needs(hit) == (3, 3)
    assert needs(np.zeros((2, 5), bool)) == (0, 0)
    assert needs(np.zeros((2, 0), bool)) == (0, 0)


@pytest.mark.parametrize("cameras", [1, 4, 6])
def test_budget_is_the_largest_need_and_a_tenth(cameras):
    rig, image_hw = nuscenes_like_rig(cameras, 126, 224)[1], (128, 224)
    for volume in ((50, 40, 4), *MICRO):
        points = voxel_centres(volume, PC_RANGE)
        each = [needs(hits(turned(rig, degrees), image_hw, points)) for degrees in range(0, 360, 5)]
        most, most_cameras = (max(numbers) for numbers in zip(*each, strict=True))
        expected = min(math.ceil(most * 1.1 / 64) * 64, len(points))
        assert budget_for(rig, image_hw, points) == (expected, min(most_cameras + 1, cameras))


def test_budget_at_full_size():
    rig, image_hw = reference_rig("nuscenes_frame_full")
    budgets = [budget_for(rig[0], image_hw, voxel_centres(volume, PC_RANGE)) for volume in FULL]
    assert budgets == [(21120, 3), (2688, 3), (384, 3)]
    points = voxel_centres(FULL[0], PC_RANGE)
    assert all(overflow(hits(turned(rig[0], degrees), image_hw, points), *budgets[0]) == 0 for degrees in (1, 2.5, 43))  # between steps


def test_budget_steps():
    points = voxel_centres((10, 50, 1), (-50, -10, -5, 50, 10, 3))  # a strip from left to right
    camera = nuscenes_like_rig(1, 900, 1600)[1]  # looks across it
    coarse, fine = budget_for(camera, (928, 1600), points, 360)[0], budget_for(camera, (928, 1600), points, 5)[0]
    assert coarse == math.ceil(needs(hits(camera, (928, 1600), points))[0] * 1.1 / 64) * 64
    assert (coarse, fine) == (64, 256)  # turned, it looks along the strip


def test_budget_is_at_least_one():
    up = np.eye(4)[None]
    up[0, 2, 3] = -1000.0  # everything is behind it
    assert budget_for(up, (90, 160), voxel_centres((5, 4, 1), PC_RANGE)) == (1, 1)


def naive_overflow(hit, slots, cameras):
    kept = []
    for camera in range(hit.shape[0]):
        seen = [voxel for voxel in range(hit.shape[1]) if hit[camera, voxel]]
        kept.append(set(seen[:slots]))
    total = sum(int(row.sum()) for row in hit)
    for voxel in range(hit.shape[1]):
        total -= min(sum(voxel in mine for mine in kept), cameras)
    return total


@settings(deadline=None, max_examples=60)
@given(arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 12))), st.integers(1, 12), st.integers(1, 6))
def test_overflow_against_a_loop(hit, slots, cameras):
    assert overflow(hit, slots, cameras) == naive_overflow(hit, slots, cameras)
    most, most_cameras = needs(hit)
    assert overflow(hit, max(most, 1), max(most_cameras, 1)) == 0


def test_overflow_by_hand():
    hit = np.array([[1, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 0]], bool)
    assert overflow(hit, 3, 3) == 0
    assert overflow(hit, 2, 3) == 2  # camera 0 loses voxel 2, camera 1 voxel 3
    assert overflow(hit, 3, 2) == 2  # camera 2 comes third at voxels 1 and 2
    assert overflow(hit, 2, 2) == 3  # at voxel 2 camera 0 has gone before, so that camera 2 has room there
    assert overflow(hit, 1, 1) == 6  # voxel 0 of camera 0, voxel 1 of camera 1


def test_unseen_report():
    hit = np.array([[0, 1], [0, 0], [1, 1], [0, 0]], bool)
    assert unseen_report(hit, ("A", "B", "C", "D")) == ("B", "D")
