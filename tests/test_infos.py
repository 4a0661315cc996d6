"""Dataset files: every protocol and numpy's names old and new, where images are found, and what each mistake is told."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from occport.errors import FrameError
from occport.frames.frame_json import read_frame_json
from occport.frames.infos import count_infos, read_infos
from occport.frames.rig import nuscenes_like_rig

SHARED = Path(__file__).resolve().parents[2] / "shared"
ROTATION = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # camera axes in the LiDAR frame
TRANSLATION = np.array([0.5, 2.0, -0.25])
K = np.array([[500.0, 0.0, 4.0], [0.0, 510.0, 3.0], [0.0, 0.0, 1.0]])
# K @ [inv(ROTATION) | -inv(ROTATION) @ TRANSLATION], by hand.
WHOLE = [[500.0, 4.0, 0.0, -258.0], [0.0, 3.0, -510.0, -133.5], [0.0, 1.0, 0.0, -2.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    for number, name in enumerate("ab"):
        Image.new("RGB", (8, 6), (1, 2, 100 + number)).save(folder / f"{name}.png")
    return folder


def camera(file="a.png"):
    return {"data_path": file, "cam_intrinsic": K, "sensor2lidar_rotation": ROTATION, "sensor2lidar_translation": TRANSLATION}


@pytest.fixture
def infos():
    """Two frames; the second has its cameras the other way round, and what else nuScenes' tools put into such files."""
    first = {"token": "first", "cams": {"LEFT": camera("a.png"), "RIGHT": camera("b.png")}}
    extras = {
        "gt_boxes": np.arange(14.0).reshape(2, 7), "gt_names": np.array(["car", "bus"]), "valid_flag": np.array([True, False]),
        "can_bus": np.zeros(18), "no_boxes": np.zeros((0, 7)),
        "timestamp": 1532402927612460, "num_lidar_pts": np.array([3, 4]), "names": np.array(["car", None], object),
        "sweeps": [{"data_path": "x", "sensor2lidar_rotation": ROTATION}], "velocity": np.float64(2.5), "prev": "",
    }  # fmt: skip
    second = {"token": "second", **extras, "cams": collections.OrderedDict(RIGHT=camera("b.png"), LEFT=camera("a.png"))}
    return {"infos": [first, second], "metadata": {"version": "v1.0-trainval"}}


def write(folder, content, protocol=4):
    path = folder / "infos.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def refused(path, index=0):
    with pytest.raises(FrameError) as caught:
        read_infos(path, index)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_the_real_dataset_file_equals_the_frame_file():
    folder = SHARED / "data" / "nuscenes_frame"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/nuscenes_frame beside this checkout: the real frame is there")
    one, other = read_infos(folder / "infos.pkl", 0), read_frame_json(folder / "frame.json")
    assert (one.name, one.camera_names) == (other.name, other.camera_names)
    np.testing.assert_array_equal(one.images, other.images)
    scale = np.abs(other.lidar2img).max(axis=-1, keepdims=True)
    assert (np.abs(one.lidar2img - other.lidar2img) / scale).max() < 1e-9
    assert one.described == f"{one.name}: 6 images and calibration of {folder / 'infos.pkl'}:0"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("old_names", [False, True])
def test_every_protocol(folder, infos, protocol, old_names):
    content = pickle.dumps(infos, protocol)
    if old_names:  # numpy before 2.0; the length of short names stands before them from protocol 4 on
        for inner in (b"multiarray", b"numeric"):
            new, old = b"numpy._core." + inner, b"numpy.core." + inner
            content = content.replace(bytes([len(new)]) + new, bytes([len(old)]) + old).replace(new, old)
        if protocol >= 4:
            content = without_frames(content)
        assert b"numpy._core" not in content
    path = write(folder, content)
    assert count_infos(path) == 2
    frame = read_infos(path, 1)
    assert (frame.name, frame.camera_names) == ("second", ("RIGHT", "LEFT"))
    assert frame.images[:, 0, 0, 0].tolist() == [101, 100]
    assert frame.lidar2img.dtype == np.float64
    np.testing.assert_array_equal(frame.lidar2img, [WHOLE, WHOLE])


def without_frames(content):
    """A pickle without its FRAME opcodes, whose lengths an edit has made wrong. Only one frame at the head is expected."""
    head, frame = content[:2], content[2:11]
    assert frame[:1] == b"\x95"
    return head + content[11:]


def test_a_pickle_of_python_2(folder):
    """As cPickle of Python 2 wrote protocol 2: byte texts, arrays whose bytes are a byte text."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def array(values, shape):
        dims = b"".join(b"K" + bytes([size]) for size in shape)
        raw = np.asarray(values, "<f8").tobytes()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
            + b"(K\x01(" + dims + b"tcnumpy\ndtype\n" + text(b"f8") + b"K\x00K\x01\x87R(K\x03" + text(b"<")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            + b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        )  # fmt: skip

    entries = text(b"data_path") + text(b"a.png") + text(b"cam_intrinsic") + array(K, (3, 3))
    entries += text(b"sensor2lidar_rotation") + array(ROTATION, (3, 3)) + text(b"sensor2lidar_translation") + array(TRANSLATION, (3,))
    content = b"\x80\x02}" + text(b"infos") + b"](}(" + text(b"token") + text(b"old") + text(b"cams") + b"}" + text(b"A")
    content += b"}(" + entries + b"u" + b"s" + b"ues."
    assert pickle.loads(content, encoding="latin1")["infos"][0]["cams"]["A"]["cam_intrinsic"].shape == (3, 3)
    frame = read_infos(write(folder, content), 0)
    assert frame.name == "old"
    np.testing.assert_array_equal(frame.lidar2img, [WHOLE])


def test_missing_file_and_folder(tmp_path):
    assert "expected a readable file, got No such file" in refused(tmp_path / "none.pkl")
    assert "expected a readable file, got Is a directory" in refused(tmp_path)


def test_every_truncation(folder, infos):
    content = pickle.dumps({"infos": infos["infos"][:1]}, 2)
    for length in range(0, len(content), 7):
        assert "infos.pkl" in refused(write(folder, content[:length]))


@pytest.mark.parametrize("index", [2, -1, True, 1.0, "1", None])
def test_an_index_that_is_none(folder, infos, index):
    assert "expected 0 to 1, got " in refused(write(folder, infos), index)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a mapping with a list 'infos', as SurroundOcc's nuscenes_infos_*.pkl, got a list of 2"),
        ({"data_list": []}, "got a mapping with 1 keys"), ({"infos": {}}, "got 'infos' as a mapping with 0 keys"),
        ({"infos": []}, "expected at least one frame in 'infos', got none"),
        ({"infos": [3]}, ":0: cams: expected a mapping from camera names to cameras, got nothing"),
        ({"infos": [{"cams": {}}]}, "cams: expected a mapping from camera names to cameras, got a mapping with 0 keys"),
        ({"infos": [{"cams": [1]}]}, "got a list of 1"),
        ({"infos": [{"cams": {3: camera()}}]}, "name of a camera: expected a non-empty text"),
        ({"infos": [{"cams": {"A": 3}}]}, "cams.A: expected a mapping with data_path, cam_intrinsic and a pose, got 3"),
        ({"infos": [{"token": 3, "cams": {"A": camera()}}]}, "token: expected a non-empty text of printable characters, got 3"),
    ],
)  # fmt: skip
def test_files_of_another_form(folder, content, message):
    assert message in refused(write(folder, content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cam_intrinsic": None}, "cams.A.cam_intrinsic: expected 3 x 3 or 4 x 4 numbers, got nothing"),
        ({"cam_intrinsic": np.eye(2)}, "cam_intrinsic: expected 3 x 3 or 4 x 4 numbers, got an array of shape (2, 2)"),
        ({"cam_intrinsic": np.full((3, 3), np.nan)}, "cam_intrinsic: expected finite numbers"),
        ({"cam_intrinsic": np.array([[None] * 3] * 3)}, "cam_intrinsic: expected 3 x 3 or 4 x 4 numbers, got a value of type StoredArray"),
        ({"sensor2lidar_rotation": np.zeros((3, 3))}, "cams.A.sensor2lidar_rotation: expected a rotation, got a singular matrix"),
        ({"sensor2lidar_rotation": [1, 0, 0, 0]}, "sensor2lidar_rotation: expected 3 x 3 numbers, got a list of 4"),
        ({"sensor2lidar_translation": [1, 2]}, "sensor2lidar_translation: expected 3 numbers, got a list of 2"),
        ({"sensor2lidar_translation": [1e300] * 3}, "lidar2img of A: expected finite float32 numbers"),
        ({"lidar2cam": np.eye(4)}, "cams.A: lidar2cam: expected the inverse of sensor2lidar_*, got another pose"),
        ({"data_path": 3}, "cams.A.data_path: expected a non-empty text of printable characters, got 3"),
        ({"data_path": "a\0.png"}, "cams.A.data_path: expected a non-empty text"),
    ],
)
def test_a_camera_that_is_wrong(folder, change, message):
    assert message in refused(write(folder, {"infos": [{"cams": {"A": camera() | change}}]}))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("cam_intrinsic", "cams.A: the key 'cam_intrinsic' is missing: expected (3, 3) or (4, 4) numbers"),
        ("sensor2lidar_rotation", "cams.A: the key 'sensor2lidar_rotation' is missing"),
        ("sensor2lidar_translation", "cams.A: the key 'sensor2lidar_translation' is missing"),
        ("data_path", "cams.A.data_path: expected a non-empty text of printable characters, got nothing"),
    ],
)
def test_a_key_that_is_missing(folder, key, message):
    entry = camera()
    del entry[key]
    assert message in refused(write(folder, {"infos": [{"cams": {"A": entry}}]}))


def test_own_data_with_lidar2cam(folder):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = ROTATION.T, -ROTATION.T @ TRANSLATION
    entry = {"data_path": "a.png", "cam_intrinsic": K.tolist(), "lidar2cam": pose}
    frame = read_infos(write(folder, {"infos": [{"cams": {"A": entry}}]}), 0)
    assert frame.name == "frame 0"
    np.testing.assert_array_equal(frame.lidar2img, [WHOLE])
    both = read_infos(write(folder, {"infos": [{"cams": {"A": camera() | {"lidar2cam": pose}}}]}), 0)
    np.testing.assert_array_equal(both.lidar2img, [WHOLE])
    assert "cams.A: expected sensor2lidar_rotation and sensor2lidar_translation, or lidar2cam, got neither" in refused(
        write(folder, {"infos": [{"cams": {"A": {"data_path": "a.png", "cam_intrinsic": K}}}]})
    )


def test_six_cameras_come_in_the_original_order(folder):
    names, rig = nuscenes_like_rig(6, 6, 8)
    cams = {name: {"data_path": "a.png", "cam_intrinsic": np.eye(3), "lidar2cam": matrix} for name, matrix in zip(names, rig, strict=True)}
    frame = read_infos(write(folder, {"infos": [{"cams": {name: cams[name] for name in sorted(names)}}]}), 0)
    assert frame.camera_names == names
    np.testing.assert_array_equal(frame.lidar2img, rig)


def image_at(path, blue):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (0, 0, blue)).save(path)


def test_where_images_are_looked_for(tmp_path, monkeypatch):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (project / "data").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    path = write(project / "data", {"infos": [{"cams": {"A": camera("./data/nuscenes/x.png")}}]})
    line = refused(path)
    tried = [project / "data", project, tmp_path]
    assert "image ./data/nuscenes/x.png" in line and "expected a file, got nothing at" in line and "run from the folder" in line
    places = [line.index(str(place / "data/nuscenes/x.png")) for place in [*tried, elsewhere]]
    assert places == sorted(places)
    # From the last place to the first: each one is preferred to those before.
    for blue, place in enumerate([elsewhere, *reversed(tried)], start=1):
        image_at(place / "data" / "nuscenes" / "x.png", blue)
        assert read_infos(path, 0).images[0, 0, 0, 0] == blue


def test_an_absolute_path(tmp_path):
    image_at(tmp_path / "images" / "x.png", 9)
    (tmp_path / "other").mkdir()
    path = write(tmp_path / "other", {"infos": [{"cams": {"A": camera(str(tmp_path / "images" / "x.png"))}}]})
    assert read_infos(path, 0).images[0, 0, 0, 0] == 9
    missing = write(tmp_path / "other", {"infos": [{"cams": {"A": camera("/nowhere/x.png")}}]})
    assert refused(missing).count("/nowhere/x.png") == 2  # the name, and the one place


def test_a_name_that_is_too_long(folder):
    assert "expected a file, got nothing at" in refused(write(folder, {"infos": [{"cams": {"A": camera("x" * 5000)}}]}))


WILD = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.binary(max_size=5)
    | st.sampled_from([K, ROTATION, TRANSLATION, np.float32(3), np.array("a"), np.array([None]), "a.png", {1, 2}]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data_path", "cams", 3]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([*camera(), "lidar2cam", "camera", "cams", "info", "infos", "whole"]), WILD, st.integers(0, 5))
def test_wild_files_end_in_one_line(folder, place, value, protocol):
    entry = camera()
    content: object = {"infos": [{"cams": {"A": entry}}]}
    if place in (*entry, "lidar2cam"):
        entry[place] = value
    elif place == "whole":
        content = value
    else:
        info = {"cams": value if place == "cams" else {"A": value}}
        content = {"infos": {"info": [value], "infos": value}.get(place, [info])}
    try:
        frame = read_infos(write(folder, content, protocol), 0)
    except FrameError as error:
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert frame.images.shape == (1, 6, 8, 3) and np.isfinite(frame.lidar2img).all()


def test_a_list_that_holds_itself(folder):
    loop: list = []
    loop.append(loop)
    content = {"infos": [{"cams": {"A": camera() | {"cam_intrinsic": loop}}}]}
    assert "cam_intrinsic: expected 3 x 3 or 4 x 4 numbers" in refused(write(folder, content))
