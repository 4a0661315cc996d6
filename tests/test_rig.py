"""The made-up rig looks where nuScenes' looks; turning, checking and reading of matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.errors import FrameError
from occport.frames.frame import NUSCENES_CAMERAS, upstream_order
from occport.frames.rig import agree, check_rig, matrix_from, nuscenes_like_rig, projection, turned

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
HW = (900, 1600)


def seen_at(lidar2img, point):
    """(N, 3) column, row, depth of one LiDAR point."""
    p = lidar2img @ np.array([*point, 1.0])
    return np.stack([p[:, 0] / p[:, 2], p[:, 1] / p[:, 2], p[:, 2]], axis=1)


def looking_at(lidar2img, point, hw=HW):
    """Indices of the cameras in whose image a LiDAR point lies."""
    column, row, depth = seen_at(lidar2img, point).T
    return np.flatnonzero((depth > 0) & (column > 0) & (column < hw[1]) & (row > 0) & (row < hw[0])).tolist()


@pytest.mark.parametrize(
    ("point", "camera"),
    [
        ((0, 20, 0), "CAM_FRONT"), ((17, 10, 0), "CAM_FRONT_RIGHT"), ((-17, 10, 0), "CAM_FRONT_LEFT"),
        ((0, -20, 0), "CAM_BACK"), ((-19, -6, 0), "CAM_BACK_LEFT"), ((19, -6, 0), "CAM_BACK_RIGHT"),
    ],
)  # fmt: skip
def test_six_cameras_look_where_their_names_say(point, camera):
    names, rig = nuscenes_like_rig(6, *HW)
    assert names == NUSCENES_CAMERAS
    assert rig.shape == (6, 4, 4) and rig.dtype == np.float64
    assert looking_at(rig, point) == [names.index(camera)]


def test_axes_of_the_image():
    rig = nuscenes_like_rig(6, *HW)[1]
    ahead, right, above, far = (seen_at(rig, point)[0] for point in ((0, 20, -0.3), (2, 20, -0.3), (0, 20, 1.7), (0, 40, -0.3)))
    assert ahead[:2] == pytest.approx([815, 491], abs=25)
    assert ahead[2] == pytest.approx(20 - 0.72, abs=0.01)  # the lever arm
    assert right[0] - ahead[0] == pytest.approx(1264 * 2 / 19.28, rel=0.02)
    assert above[1] - ahead[1] == pytest.approx(-1264 * 2 / 19.28, rel=0.02)
    assert far[2] - ahead[2] == pytest.approx(20, abs=0.01)


def test_lenses_are_near_to_those_of_nuscenes():
    if not REFERENCE.is_dir():
        pytest.skip("no ../shared/reference beside this checkout: the real calibration is there")
    with np.load(REFERENCE / "nuscenes_frame_full.npz") as case:
        real = case["lidar2img"][0]
    own = nuscenes_like_rig(6, *HW)[1]
    for mine, theirs in zip(own, real, strict=True):
        # Length of row 0 against row 2: the focal length and the principal column; the depth rows: the directions of view.
        assert np.linalg.norm(mine[0, :3]) == pytest.approx(np.linalg.norm(theirs[0, :3]), rel=0.02)
        assert np.linalg.norm(mine[1, :3]) == pytest.approx(np.linalg.norm(theirs[1, :3]), rel=0.02)
        assert mine[2, :3] @ theirs[2, :3] > np.cos(np.deg2rad(3))
    assert np.abs(own - real).max() > 1  # near to it, not it


def test_the_rig_scales_with_the_image():
    large, small = nuscenes_like_rig(6, 900, 1600)[1], nuscenes_like_rig(6, 126, 224)[1]
    np.testing.assert_allclose(small[:, :2], large[:, :2] * 0.14, rtol=1e-12)
    np.testing.assert_array_equal(small[:, 2:], large[:, 2:])


def test_another_aspect_ratio_keeps_the_principal_point_inside():
    for camera in nuscenes_like_rig(6, 512, 512)[1]:
        column, row = camera[:2, :3] @ camera[2, :3]  # the third row is the unit direction of view
        assert 0.4 * 512 < column < 0.6 * 512 and 0.4 * 512 < row < 0.6 * 512


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8])
def test_other_counts_spread_round(count):
    names, rig = nuscenes_like_rig(count, *HW)
    assert names == tuple(f"CAM_{number}" for number in range(count))
    check_rig(rig, names, "rig")
    for number in range(count):
        angle = 2 * np.pi * number / count  # counter-clockwise: forward, left, back, right
        assert number in looking_at(rig, (-20 * np.sin(angle), 20 * np.cos(angle), 0))
    if count >= 4:  # nothing on the horizon is overlooked
        angles = np.linspace(0, 2 * np.pi, 200)
        assert all(looking_at(rig, (-40 * np.sin(a), 40 * np.cos(a), 0)) for a in angles)
    assert len({camera.tobytes() for camera in rig}) == count


@pytest.mark.parametrize("count", [0, -1, 9])
def test_counts_that_are_refused(count):
    with pytest.raises(FrameError, match=f"expected 1 to 8, got {count}; give a frame of your own"):
        nuscenes_like_rig(count, *HW)


def test_an_image_without_pixels():
    with pytest.raises(FrameError, match="expected height and width of at least 1, got 0 x 1600"):
        nuscenes_like_rig(6, 0, 1600)


@settings(deadline=None, max_examples=30)
@given(st.floats(-720, 720), st.tuples(*[st.floats(-50, 50)] * 3))
def test_a_turned_rig_sees_the_turned_point_as_before(degrees, point):
    rig = nuscenes_like_rig(6, *HW)[1]
    a = np.deg2rad(degrees)
    x, y, z = point
    moved = (np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y, z)  # counter-clockwise seen from above
    before, after = rig @ np.array([*point, 1.0]), turned(rig, degrees) @ np.array([*moved, 1.0])
    np.testing.assert_allclose(after, before, atol=1e-8)


def test_turning_by_a_quarter_brings_the_front_camera_to_the_left():
    rig = turned(nuscenes_like_rig(6, *HW)[1], 90)
    assert looking_at(rig, (-20, 0, 0)) == [0]


@pytest.fixture
def rig():
    return nuscenes_like_rig(2, *HW)[1]


NAMES = ("LEFT", "RIGHT")


def test_check_rig_accepts_what_is_right(rig):
    check_rig(rig, NAMES, "here")
    check_rig(rig * 2, NAMES, "here")  # homogeneous: the last row is [0, 0, 0, 2]
    check_rig(turned(rig, 33), NAMES, "here")


def test_check_rig_shape(rig):
    with pytest.raises(FrameError, match=r"here: lidar2img: expected shape \(2, 4, 4\), got shape \(2, 3, 4\)"):
        check_rig(rig[:, :3], NAMES, "here")
    with pytest.raises(FrameError, match=r"expected shape \(1, 4, 4\), got shape \(2, 4, 4\)"):
        check_rig(rig, NAMES[:1], "here")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_check_rig_values(rig, value):
    rig[1, 0, 3] = value
    with pytest.raises(FrameError, match=r"here: lidar2img of RIGHT: expected finite float32 numbers, got .* in row 0, column 3"):
        check_rig(rig, NAMES, "here")


def test_check_rig_transposed(rig):
    rig[1] = rig[1].T
    with pytest.raises(FrameError, match=r"lidar2img of RIGHT: expected the last row \[0, 0, 0, 1\].*transposed"):
        check_rig(rig, NAMES, "here")


@pytest.mark.parametrize("corner", [0.0, -1.0])
def test_check_rig_last_row(rig, corner):
    rig[0, 3, 3] = corner
    with pytest.raises(FrameError, match="lidar2img of LEFT: expected the last row"):
        check_rig(rig, NAMES, "here")


def test_check_rig_singular(rig):
    broken = rig.copy()
    broken[1, 1, :3] = 3 * broken[1, 0, :3]
    with pytest.raises(FrameError, match="lidar2img of RIGHT: expected a 3x3 block of full rank, got a singular one"):
        check_rig(broken, NAMES, "here")
    broken = rig.copy()
    broken[0, 2, :3] = 0
    with pytest.raises(FrameError, match="lidar2img of LEFT: expected a 3x3 block of full rank"):
        check_rig(broken, NAMES, "here")


def test_projection_pads_the_intrinsic():
    intrinsic = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, 3] = (1, 2, 3)
    whole = projection(intrinsic, pose)
    np.testing.assert_array_equal(whole @ [0, 0, 7, 1], [500 * 1 + 320 * 10, 510 * 2 + 240 * 10, 10, 1])
    padded = np.eye(4)
    padded[:3, :3] = intrinsic
    np.testing.assert_array_equal(projection(padded, pose), whole)


def test_agree_is_relative_to_each_row(rig):
    assert agree(rig, rig * (1 + 5e-5))
    moved = rig.copy()
    moved[0, 2, 0] += 0.01  # nothing beside the pixels of rows 0 and 1, much in the row of the depth
    assert not agree(rig, moved)


@settings(deadline=None, max_examples=60)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4)))
def test_matrix_from_never_fails_otherwise(value):
    try:
        result = matrix_from(value, ((2, 2), (3,)), "here")
    except FrameError as error:
        assert str(error).startswith("here: expected ") and "\n" not in str(error)
    else:
        assert result.dtype == np.float64 and result.shape in ((2, 2), (3,)) and np.isfinite(result).all()


def test_matrix_from_values():
    np.testing.assert_array_equal(matrix_from([[1, 2.5], (3, 4)], ((2, 2),), "here"), [[1, 2.5], [3, 4]])
    np.testing.assert_array_equal(matrix_from(np.float32([1, 2, 3]), ((2, 2), (3,)), "here"), [1, 2, 3])


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (None, "nothing"), ([[1, 2]], "1 x 2 values"), ([[1], [1, 2]], "a list of 2"), ([[1, 2], [3, "4"]], "2 x 2 values"),
        ("1 2", "'1 2'"), ("x" * 50, f"'{'x' * 40}…'"),
        ({"a": 1}, "a mapping with 1 keys"), (np.zeros((2, 3)), r"an array of shape \(2, 3\) and type float64"),
        (np.array([["a", "b"], ["c", "d"]]), r"an array of shape \(2, 2\)"), ([[True, 1], [2, 3]], "2 x 2 values"),
        (10**400, "a value of type int"),
    ],
)  # fmt: skip
def test_matrix_from_says_what_it_got(value, got):
    with pytest.raises(FrameError, match=f"^here: expected 2 x 2 numbers, got {got}"):
        matrix_from(value, ((2, 2),), "here")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400])
def test_matrix_from_wants_finite_numbers(number):
    with pytest.raises(FrameError, match="here: expected finite numbers, got nan, infinity or a number beyond float64"):
        matrix_from([[1, 2], [3, number]], ((2, 2),), "here")


def test_upstream_order():
    assert upstream_order(reversed(NUSCENES_CAMERAS)) == NUSCENES_CAMERAS
    assert upstream_order(("ROOF", *sorted(NUSCENES_CAMERAS))) == (*NUSCENES_CAMERAS, "ROOF")
    assert upstream_order(("CAM_BACK", "CAM_FRONT")) == ("CAM_BACK", "CAM_FRONT")
