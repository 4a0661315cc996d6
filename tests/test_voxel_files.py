"""Files of a volume: what is written can be read by strangers, what strangers wrote is read with care."""

from __future__ import annotations

import errno
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from occport.errors import ExportError, FrameError
from occport.voxels.classes import CLASS_NAMES, IGNORE, OCCUPIED, SURROUNDOCC
from occport.voxels.files import fit_name, is_leftover, is_whole, read_array, read_prediction, save_occupancy
from occport.voxels.grid import Grid
from occport.voxels.occupancy import Occupancy

GRID = Grid((4, 3, 2), (-4.0, -3.0, -1.0, 4.0, 3.0, 1.0))


def small(name: str = "frame") -> Occupancy:
    labels = np.zeros(GRID.size, np.uint8)
    labels[0, 0, 0], labels[3, 2, 1], labels[1, 1, 0], labels[2, 2, 0] = 4, 16, 11, IGNORE
    return Occupancy(name, labels, CLASS_NAMES, GRID)


def with_probabilities() -> Occupancy:
    probabilities = np.linspace(0, 1, 24, dtype=np.float32).reshape(GRID.size)
    return Occupancy("frame", (probabilities > 0.5).astype(np.uint8), OCCUPIED, GRID, probabilities)


def read_ply(path: Path) -> np.ndarray:
    """An independent reader: the properties as the header lists them."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    kinds = {"float": "<f4", "uchar": "u1"}
    properties = [line.split()[1:] for line in lines if line.startswith("property")]
    (count,) = (int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    rows = np.frombuffer(body, [(name, kinds[kind]) for kind, name in properties])
    assert len(rows) == count
    return rows


def test_the_three_files_of_a_frame(tmp_path):
    paths = small().save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["frame.npz", "frame.npy", "frame.ply"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["frame.npy", "frame.npz", "frame.ply"]
    points = np.load(paths[1])
    # voxel (0, 0, 0) has its centre at -3, -2, -0.5; voxels are 2 x 2 x 1 m; the ignored one is not a point
    expected = [[-3, -2, -0.5, 4], [-1, 0, -0.5, 11], [3, 2, 0.5, 16]]
    assert points.dtype == np.float32
    assert points.tolist() == expected
    vertices = read_ply(paths[2])
    assert [list(map(float, row)) for row in vertices[["x", "y", "z", "label"]].tolist()] == expected
    colours = [SURROUNDOCC[name] for name in ("car", "driveable_surface", "vegetation")]
    assert [tuple(row) for row in vertices[["red", "green", "blue"]].tolist()] == colours


def test_a_volume_comes_back(tmp_path):
    path, _, _ = save_occupancy(small(), tmp_path)
    back = read_prediction(path)
    assert back.name == "frame"
    assert back.labels is not None
    assert back.labels.dtype == np.uint8
    assert np.array_equal(back.labels, small().labels)
    assert back.probabilities is None
    assert (back.class_names, back.pc_range, back.size) == (CLASS_NAMES, GRID.pc_range, GRID.size)
    assert is_whole(path) and is_whole(path, GRID.size) and not is_whole(path, (4, 3, 3))


def test_probabilities_come_back_to_the_bit(tmp_path):
    occupancy = with_probabilities()
    back = read_prediction(save_occupancy(occupancy, tmp_path)[0])
    assert back.probabilities is not None
    assert back.probabilities.dtype == np.float32
    assert np.array_equal(back.probabilities, occupancy.probabilities)
    assert back.class_names == OCCUPIED


def test_an_empty_volume(tmp_path):
    paths = save_occupancy(Occupancy("nothing", np.zeros(GRID.size, np.uint8), CLASS_NAMES, GRID), tmp_path)
    assert np.load(paths[1]).shape == (0, 4)
    assert len(read_ply(paths[2])) == 0
    assert is_whole(paths[0], GRID.size)


def test_equal_volumes_make_equal_files(tmp_path):
    for first, second in zip(save_occupancy(small(), tmp_path / "a"), save_occupancy(small(), tmp_path / "b"), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_names_with_dots_stay_whole(tmp_path):
    """nuScenes' names end in .pcd.bin."""
    name = "n015-2018+0800__LIDAR_TOP__1532402927647951.pcd.bin"
    path, points, _ = save_occupancy(small(name), tmp_path)
    assert (path.name, points.name) == (f"{name}.npz", f"{name}.npy")
    assert read_prediction(path).name == name


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\\b", "a\nb", "a\0b", "x" * 201, "é" * 101])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(FrameError, match="expected a name that a file can have") as caught:
        save_occupancy(small(name), tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_longest_name(tmp_path):
    assert fit_name("é" * 100) == "é" * 100
    assert is_whole(save_occupancy(small("x" * 200), tmp_path)[0])


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, failing):
    """The disk is full at the first, second or third file: older files stay as they are."""
    before = {path: path.read_bytes() for path in save_occupancy(with_probabilities(), tmp_path)}
    opened = []
    real = Path.open

    def full(self, mode="r"):
        opened.append(self)
        if len(opened) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, mode)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ExportError, match=r"writing frame into .*: got No space left on device; free some space") as caught:
        save_occupancy(small(), tmp_path)
    assert isinstance(caught.value.__cause__, OSError)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_volume_is_put_in_place_last(tmp_path, monkeypatch):
    """Killed between two moves: there is no NAME.npz, not even the old one, and what is left can be told by its name."""
    save_occupancy(with_probabilities(), tmp_path)
    real = Path.replace

    class Killed(BaseException):
        pass

    def move(self, target):
        if str(target).endswith(".npz"):
            raise Killed
        return real(self, target)

    monkeypatch.setattr(Path, "replace", move)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None if is_leftover(self) else os.unlink(self))  # noqa: PTH108
    with pytest.raises(Killed):
        save_occupancy(small(), tmp_path)
    left = sorted(tmp_path.iterdir())
    assert [path.name for path in left if not is_leftover(path)] == ["frame.npy", "frame.ply"]
    assert len(left) == 3


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="writing frame into"):
        save_occupancy(small(), tmp_path / "file" / "sub")
    (tmp_path / "frame.ply").mkdir()
    with pytest.raises(ExportError, match=r"a folder has the name frame\.ply"):
        save_occupancy(small(), tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["file", "frame.ply"]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, ">i4"])
def test_labels_of_any_integer_type(tmp_path, dtype):
    labels = small().labels % 17
    np.savez(tmp_path / "a.npz", labels=labels.astype(dtype))
    np.savez(tmp_path / "b.npz", labels=np.asfortranarray(labels[None].astype(dtype)), logits=np.zeros(3))
    for path in (tmp_path / "a.npz", tmp_path / "b.npz"):
        back = read_prediction(path)
        assert back.labels is not None
        assert back.labels.dtype == np.uint8
        assert np.array_equal(back.labels, labels)
        assert (back.class_names, back.pc_range) == (None, None)


V = np.zeros((2, 3, 4), np.int64)
P = np.full((2, 3, 4), 0.5, np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"expected an array 'labels' or 'probabilities' \(X, Y, Z\) in it, got none"),
        ({"logits": V}, "got logits"),
        ({"labels": P}, "labels: expected integers, a class for each voxel, got float32; write the argmax"),
        ({"labels": V > 0}, "labels: expected integers, a class for each voxel, got bool"),
        ({"labels": V[0]}, r"labels: expected \(X, Y, Z\), or \(1, X, Y, Z\), got \(3, 4\)"),
        ({"labels": np.stack([V, V])}, r"got \(2, 2, 3, 4\)"),
        ({"labels": V[:0]}, r"got \(0, 3, 4\)"),
        ({"labels": V - 1}, "labels: expected values 0 to 255, got -1 to -1"),
        ({"labels": V + 256}, "got 256 to 256"),
        ({"labels": np.array([[["car"]]])}, "got <U3"),
        ({"labels": np.array([[[None]]])}, "it holds Python objects"),
        ({"probabilities": V}, "probabilities: expected floating-point numbers, got int64"),
        ({"probabilities": P * np.nan}, "probabilities: expected numbers, got NaN or infinity at 24 of 24 voxels"),
        ({"probabilities": P * np.inf}, "NaN or infinity"),
        ({"probabilities": P * 3}, "expected 0 to 1, got 1.5 to 1.5; logits must go through the sigmoid first"),
        ({"probabilities": P - 1}, "got -0.5 to -0.5"),
        ({"probabilities": P, "labels": V[:1]}, r"probabilities: expected \(1, 3, 4\) as the labels, got \(2, 3, 4\)"),
        ({"labels": V, "class_names": np.arange(3)}, "class_names: expected a list of texts"),
        ({"labels": V, "pc_range": np.arange(5)}, "pc_range: expected six numbers"),
        ({"labels": V, "pc_range": np.full(6, np.nan)}, "pc_range: expected six numbers"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FrameError, match=message) as caught:
        read_prediction(tmp_path / "a.npz")
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / "a.npz") in str(caught.value)
    assert not is_whole(tmp_path / "a.npz")


def test_rounding_of_a_sigmoid_is_let_through(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=np.array([[[1.0005, -0.0004]]], np.float16))
    back = read_prediction(tmp_path / "a.npz")
    assert back.probabilities is not None
    assert back.probabilities.dtype == np.float16
    assert back.labels is None


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("evil",)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", labels=np.array([[[Evil()]]], object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Evil()))
    for path in (tmp_path / "a.npz", tmp_path / "b.npz"):
        with pytest.raises(FrameError, match=r"expected a whole \.npz file, got a damaged or other one"):
            read_prediction(path)
    with pytest.raises(FrameError, match=r"expected a whole \.npy file of numbers"):
        read_array(tmp_path / "c.npy")
    assert not (tmp_path / "evil").exists()


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FrameError, match="expected a readable file, got"):
            read_prediction(path)
        with pytest.raises(FrameError, match="expected a readable file, got"):
            read_array(path)
        assert not is_whole(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_off_or_flipped_files_are_never_whole(tmp_path, data):
    """Every cut and every flipped bit is either found, or changes nothing of what is read."""
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        save_occupancy(small("whole"), tmp_path)
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    spoilt = tmp_path / "spoilt.npz"
    spoilt.write_bytes(content)
    try:
        back = read_prediction(spoilt)
    except FrameError:
        return
    assert back.labels is not None
    assert np.array_equal(back.labels, small().labels)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.binary(max_size=80), version=st.sampled_from([b"\1\0", b"\2\0", b"\3\0", b"\7\7"]), body=st.binary(max_size=8))
def test_wild_headers(tmp_path, head, version, body):
    path = tmp_path / "wild.npy"
    path.write_bytes(b"\x93NUMPY" + version + len(head).to_bytes(2 if version == b"\1\0" else 4, "little") + head + body)
    with pytest.raises(FrameError, match=r"expected a whole \.npy file of numbers"):
        read_array(path)


@pytest.mark.parametrize("shape", ["(1000000, 1000000, 1000000)", "(2, -3)", "(3,)", "(1,)", "(True,)"])
def test_a_header_is_not_believed(tmp_path, shape):
    """It speaks of an exabyte, of a negative axis, of more or of less than there is."""
    head = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head + bytes(16)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(FrameError, match=r"expected a whole \.npy file"):
        read_array(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("labels.npy", content)
    with pytest.raises(FrameError, match=r"expected a whole \.npz file"):
        read_prediction(tmp_path / "a.npz")
