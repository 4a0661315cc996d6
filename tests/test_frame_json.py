"""Hand-written frame files: what is taken, in which order, and what each mistake is told."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from occport.errors import FrameError
from occport.frames.frame import NUSCENES_CAMERAS
from occport.frames.frame_json import names_in_frame_json, read_frame_json
from occport.frames.rig import nuscenes_like_rig

SHARED = Path(__file__).resolve().parents[2] / "shared"
K = [[500.0, 0.0, 4.0], [0.0, 510.0, 3.0], [0.0, 0.0, 1.0]]
POSE = [[1.0, 0.0, 0.0, 0.5], [0.0, 0.0, -1.0, 0.25], [0.0, 1.0, 0.0, -2.0], [0.0, 0.0, 0.0, 1.0]]
# K @ POSE, by hand.
WHOLE = [[500.0, 4.0, 0.0, 242.0], [0.0, 3.0, -510.0, 121.5], [0.0, 1.0, 0.0, -2.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small images, 6 x 8, told apart by their blue."""
    folder = tmp_path_factory.mktemp("frame_of_a_test")
    for number, name in enumerate("ab"):
        Image.new("RGB", (8, 6), (1, 2, 100 + number)).save(folder / f"{name}.png")
    Image.new("RGB", (8, 7)).save(folder / "odd.png")
    return folder


@pytest.fixture
def table():
    return {
        "token": "a-frame",
        "cameras": {"LEFT": {"file": "a.png", "intrinsic": K, "lidar2cam": POSE}, "RIGHT": {"file": "b.png", "lidar2img": WHOLE}},
    }


def read(folder, table):
    path = folder / "frame.json"
    path.write_text(table if isinstance(table, str) else json.dumps(table))
    return read_frame_json(path)


def refused(folder, table):
    with pytest.raises(FrameError) as caught:
        read(folder, table)
    line = str(caught.value)
    assert "\n" not in line and str(folder) in line
    return line


def test_the_real_frame():
    folder = SHARED / "data" / "nuscenes_frame"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/nuscenes_frame beside this checkout: the real frame is there")
    frame = read_frame_json(folder / "frame.json")
    assert frame.name == "ca9a282c9e77460f8360f564131a8af5"
    assert frame.camera_names == NUSCENES_CAMERAS
    assert frame.images.shape == (6, 900, 1600, 3) and frame.images.dtype == np.uint8
    with np.load(SHARED / "reference" / "nuscenes_frame_full.npz") as case:
        np.testing.assert_array_equal(frame.lidar2img, case["lidar2img"][0])
    assert frame.described == f"{frame.name}: 6 images and calibration of {folder / 'frame.json'}"


def test_both_ways_of_calibrating(folder, table):
    frame = read(folder, table)
    assert (frame.name, frame.camera_names) == ("a-frame", ("LEFT", "RIGHT"))
    assert frame.lidar2img.dtype == np.float64
    np.testing.assert_array_equal(frame.lidar2img, [WHOLE, WHOLE])
    assert frame.images.shape == (2, 6, 8, 3) and frame.images[:, 0, 0].tolist() == [[100, 2, 1], [101, 2, 1]]


def test_an_intrinsic_of_four_rows(folder, table):
    padded = np.eye(4)
    padded[:3, :3] = K
    table["cameras"]["LEFT"]["intrinsic"] = padded.tolist()
    np.testing.assert_array_equal(read(folder, table).lidar2img[0], WHOLE)


def test_all_three_that_agree(folder, table):
    left = table["cameras"]["LEFT"]
    left["lidar2img"] = (np.array(WHOLE) * (1 + 3e-6)).round(3).tolist()  # as somebody would write it down
    np.testing.assert_array_equal(read(folder, table).lidar2img[0], left["lidar2img"])


def test_all_three_that_disagree(folder, table):
    wrong = copy.deepcopy(WHOLE)
    wrong[0][3] += 1.0
    table["cameras"]["LEFT"]["lidar2img"] = wrong
    assert "cameras.LEFT: expected lidar2img = intrinsic @ lidar2cam, got matrices that disagree" in refused(folder, table)


def test_order_of_cameras(folder, table):
    camera = table["cameras"]["RIGHT"]
    rig = nuscenes_like_rig(6, 6, 8)[1]
    named = dict(zip(NUSCENES_CAMERAS, rig, strict=True))
    table["cameras"] = {name: {**camera, "lidar2img": named[name].tolist()} for name in sorted(NUSCENES_CAMERAS)}
    table["cameras"]["CAM_BACK"]["file"] = "a.png"
    frame = read(folder, table)
    assert frame.camera_names == NUSCENES_CAMERAS
    np.testing.assert_array_equal(frame.lidar2img, rig)
    assert frame.images[:, 0, 0, 0].tolist() == [101, 101, 101, 100, 101, 101]
    table["cameras"] = {"Z": camera, "CAM_FRONT": camera, "A": camera}
    assert read(folder, table).camera_names == ("Z", "CAM_FRONT", "A")


def test_a_file_elsewhere(folder, table, tmp_path):
    for camera in table["cameras"].values():
        camera["file"] = str(folder / camera["file"])
    assert read(tmp_path, table).images.shape == (2, 6, 8, 3)


def test_name_without_a_token(folder, table):
    del table["token"]
    assert read(folder, table).name == folder.name


def test_further_keys_and_a_byte_order_mark(folder, table):
    table["lidar2ego"] = POSE
    assert read(folder, "\ufeff" + json.dumps(table)).name == "a-frame"


def test_sizes_that_are_declared(folder, table):
    table["cameras"]["LEFT"] |= {"width": 8, "height": 6.0}
    assert read(folder, table).images.shape == (2, 6, 8, 3)
    table["cameras"]["LEFT"]["width"] = 1600
    assert "cameras.LEFT.width: expected 8, as the image has, got 1600; is the calibration of another image size?" in refused(folder, table)
    table["cameras"]["LEFT"]["width"] = "8"
    assert "cameras.LEFT.width: expected a number of pixels, got '8'" in refused(folder, table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a JSON file"), ("{", "expected a JSON file"), ("\x00", "expected a JSON file"),
        ("[" * 100_000, "expected a JSON file"), ('{"cameras": ' + "9" * 5000 + "}", "expected a JSON file"),
        ("[1, 2]", 'expected a mapping with the key "cameras", got a list of 2'),
        ("{}", "cameras: expected a mapping from camera names to cameras, got nothing"), ('{"cameras": {}}', "got a mapping with 0 keys"),
        ('{"cameras": [1]}', "got a list of 1"), ('{"cameras": {"A": 1}}', "cameras.A: expected a mapping with file, intrinsic"),
        ('{"cameras": {"A": {}, "A": {}}}', "the key 'A' stands twice in one mapping"),
        ('{"cameras": {"": {}}}', "name of a camera: expected a non-empty text"),
        ('{"cameras": {"A\\n": {}}}', "printable characters, got 'A\\n'"),
        ('{"cameras": {"\\ud800": {}}}', "name of a camera"),
    ],
)  # fmt: skip
def test_files_of_another_form(folder, text, message):
    assert message in refused(folder, text)


def test_binary_and_missing_files(tmp_path):
    (tmp_path / "frame.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FrameError, match=r"frame\.json: expected a JSON file"):
        read_frame_json(tmp_path / "frame.json")
    with pytest.raises(FrameError, match=r"none\.json: expected a readable file, got No such file"):
        read_frame_json(tmp_path / "none.json")
    with pytest.raises(FrameError, match="expected a readable file, got Is a directory"):
        read_frame_json(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intrinsics": K}, "cameras.RIGHT: unknown key 'intrinsics': expected one of file, intrinsic, lidar2cam, lidar2img"),
        ({"lidar2img": None}, "cameras.RIGHT.lidar2img: expected 4 x 4 numbers, got nothing"),
        ({"lidar2img": K}, "cameras.RIGHT.lidar2img: expected 4 x 4 numbers, got 3 x 3 values"),
        ({"intrinsic": [[1, 2], [3, 4]]}, "cameras.RIGHT.intrinsic: expected 3 x 3 or 4 x 4 numbers, got 2 x 2 values"),
        ({"lidar2img": [*WHOLE[:3], [0, 0, 0, float("nan")]]}, "cameras.RIGHT.lidar2img: expected finite numbers"),
        ({"lidar2img": np.transpose(WHOLE).tolist()}, "lidar2img of RIGHT: expected the last row [0, 0, 0, 1]"),
        ({"lidar2img": np.diag([1, 1, 0, 1]).tolist()}, "lidar2img of RIGHT: expected a 3x3 block of full rank"),
        ({"file": 3}, "cameras.RIGHT.file: expected a non-empty text of printable characters, got 3"),
        ({"file": ""}, "cameras.RIGHT.file: expected a non-empty text of printable characters, got ''"),
        ({"file": "a\0b"}, "cameras.RIGHT.file: expected a non-empty text of printable characters, got 'a\\x00b'"),
        ({"file": "none.png"}, "none.png: expected a readable image, got No such file"),
        ({"file": "frame.json"}, "expected one of JPEG, PNG"),
        ({"file": "odd.png"}, "expected 6 x 8 (height x width) like the others, got 7 x 8"),
    ],
)
def test_a_camera_that_is_wrong(folder, table, change, message):
    table["cameras"]["RIGHT"].update(change)
    assert message in refused(folder, table)


def test_a_camera_without_calibration_or_file(folder, table):
    del table["cameras"]["LEFT"]["lidar2cam"]
    assert "cameras.LEFT: expected lidar2img, or intrinsic and lidar2cam, got intrinsic" in refused(folder, table)
    del table["cameras"]["LEFT"]["intrinsic"]
    assert "cameras.LEFT: expected lidar2img, or intrinsic and lidar2cam, got neither" in refused(folder, table)
    del table["cameras"]["RIGHT"]["file"]
    table["cameras"]["LEFT"]["lidar2img"] = WHOLE
    assert "cameras.RIGHT.file: expected a non-empty text of printable characters, got nothing" in refused(folder, table)


@pytest.mark.parametrize("token", [3, "", "a\nb", None])
def test_a_token_that_is_wrong(folder, table, token):
    table["token"] = token
    assert "token: expected a non-empty text of printable characters" in refused(folder, table)


def test_numbers_that_overflow_when_multiplied(folder, table):
    table["cameras"]["LEFT"] |= {"intrinsic": (np.array(K) * 1e300).tolist(), "lidar2cam": (np.array(POSE) * 1e300).tolist()}
    assert "lidar2img of LEFT: expected finite float32 numbers" in refused(folder, table)


WILD = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.sampled_from([K, POSE, WHOLE, "a.png", "b.png"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["file", "lidar2img", "A"]), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["file", "intrinsic", "lidar2cam", "lidar2img", "width", "camera", "cameras", "token", "whole"]), WILD)
def test_wild_files_end_in_one_line(folder, place, value):
    camera = {"file": "a.png", "intrinsic": K, "lidar2cam": POSE, "lidar2img": WHOLE, "width": 8}
    wild: object = {"token": "t", "cameras": {"A": camera}}
    if place in camera:
        camera[place] = value
    elif place == "camera":
        wild = {"cameras": {"A": value}}
    elif place == "whole":
        wild = value
    else:
        wild = {"token": "t", "cameras": {"A": camera}, place: value}
    try:
        frame = read(folder, wild)
    except FrameError as error:
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert frame.images.shape[1:] == (6, 8, 3) and np.isfinite(frame.lidar2img).all()


def test_names_without_images(folder, table, tmp_path):
    path = tmp_path / "frame.json"
    path.write_text(json.dumps(table))
    assert names_in_frame_json(path) == ("a-frame", None)  # the images are elsewhere
    path.write_text(json.dumps({"occ_path": "truth/occ.npy"}))
    assert names_in_frame_json(path) == (None, tmp_path / "truth/occ.npy")
    path.write_text(json.dumps({"occ_path": None, "cameras": 3}))
    assert names_in_frame_json(path) == (None, None)
    for content, message in [
        ("[", "expected a JSON file"), ("[]", 'a mapping with the key "cameras"'), ('{"token": 3}', "token: expected a non-empty text"),
        ('{"occ_path": 3}', "occ_path: expected a non-empty text of printable characters, got 3"),
    ]:  # fmt: skip
        path.write_text(content)
        with pytest.raises(FrameError) as caught:
            names_in_frame_json(path)
        assert message in str(caught.value) and str(path) in str(caught.value)


def test_the_ground_truth_does_not_disturb_the_frame(folder, table):
    assert read(folder, table | {"occ_path": "nowhere.npy"}).name == "a-frame"
