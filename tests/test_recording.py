"""The interactive recording, read back from its file."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest

from occport.errors import ExportError, UserError
from occport.frames.frame import Frame
from occport.frames.images import synthetic_images
from occport.frames.rig import nuscenes_like_rig
from occport.view import recording
from occport.view.recording import write_recording
from occport.view.scene import Scene
from occport.voxels.grid import Grid
from occport.voxels.occupancy import Occupancy

GRID = Grid((10, 10, 4))
CLASSES = ("car", "odd name/with a slash", "manmade")


def frame(name: str = "a", num_cameras: int = 6) -> Frame:
    names, lidar2img = nuscenes_like_rig(num_cameras, 18, 32)
    return Frame(name, names, synthetic_images(num_cameras, 18, 32, 0), lidar2img, f"made up {name}")


def occupancy(**voxels: tuple[int, int, int]) -> Occupancy:
    """One voxel for each class that is named like `label1=(x, y, z)`."""
    labels = np.zeros(GRID.size, np.uint8)
    for name, place in voxels.items():
        labels[place] = int(name.removeprefix("label"))
    return Occupancy("a", labels, CLASSES, GRID)


def read(path, kind: str = "recordings") -> dict[str, list[dict]]:
    """Entity → its rows {column: value}, by frame; column "frame" is None for what is always there."""
    reader = pytest.importorskip("rerun.chunk").RrdReader(path)
    rows: dict[str, list[dict]] = {}
    for chunk in (chunk for store in getattr(reader, kind)() for chunk in reader.stream(store=store)):
        rows.setdefault(str(chunk.entity_path), []).extend(chunk.to_record_batch().to_pylist())
    for of_entity in rows.values():  # the order of a file's chunks is nobody's promise
        of_entity.sort(key=lambda row: row.get("frame") or 0)
    return rows


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
pytest.importorskip("rerun", reason="rerun-sdk is not installed")


def test_a_class_is_a_mesh_in_its_colour(tmp_path):
    path = tmp_path / "one.rrd"
    assert write_recording([Scene(frame(), occupancy(label1=(5, 5, 0), label2=(1, 1, 1)), occupancy(label3=(2, 2, 2)))], path) == []
    rows = read(path)
    (car,) = rows["/prediction/car"]
    corners = np.array(car["Mesh3D:vertex_positions"])
    assert car["frame"] == 0 and corners.shape == (24, 3) and len(car["Mesh3D:triangle_indices"]) == 12
    np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], [[0, 0, -5], [10, 10, -3]])
    colours = {(value >> 24, value >> 16 & 255, value >> 8 & 255) for value in car["Mesh3D:vertex_colors"]}
    assert (0, 150, 245) in colours and len(colours) == 4  # the top is the table's; the sides are darker
    assert r"/prediction/odd\ name\/with\ a\ slash" in rows and "/truth/manmade" in rows
    assert "/truth/car" not in rows and "/prediction/manmade" not in rows
    assert np.array(rows["/counts/truth/manmade"][0]["BarChart:values"][0]["buffer"]).size
    assert "made up a" in rows["/frame"][0]["TextDocument:text"][0]


def test_cameras_have_their_lens_place_and_image(tmp_path):
    write_recording([Scene(frame(), occupancy(label1=(0, 0, 0)), None)], tmp_path / "one.rrd")
    rows = read(tmp_path / "one.rrd")
    (place,) = rows["/cameras/CAM_FRONT"]
    np.testing.assert_allclose(place["Transform3D:translation"][0], [-0.01, 0.72, -0.33], atol=1e-6)
    lens = next(row for row in rows["/cameras/CAM_FRONT/image"] if row.get("Pinhole:image_from_camera"))
    np.testing.assert_allclose(lens["Pinhole:image_from_camera"][0][0], 1264 * 32 / 1600, rtol=1e-6)
    np.testing.assert_allclose(lens["Pinhole:resolution"][0], [32, 18])
    assert {name for name in rows if name.endswith("/image")} == {f"/cameras/{name}/image" for name in frame().camera_names}


def test_the_time_line_clears_what_is_gone_and_keeps_a_still_camera(tmp_path):
    with_car, without = occupancy(label1=(5, 5, 0), label3=(1, 1, 1)), occupancy(label3=(1, 1, 1))
    volumes = [with_car, without, without, with_car]
    write_recording((Scene(frame(f"f{number}"), volume, None) for number, volume in enumerate(volumes)), tmp_path / "some.rrd")
    rows = read(tmp_path / "some.rrd")
    shown = [(row["frame"], bool(row.get("Mesh3D:vertex_positions"))) for row in rows["/prediction/car"]]
    assert shown == [(0, True), (1, False), (3, True)]
    cleared = [row["frame"] for row in rows["/prediction/car"] if row.get("Clear:is_recursive")]
    assert cleared == [1]
    assert [row["frame"] for row in rows["/prediction/manmade"]] == [0, 1, 2, 3]
    assert [row["frame"] for row in rows["/counts/prediction/car"] if row.get("Clear:is_recursive")] == [1]
    assert [row["frame"] for row in rows["/cameras/CAM_BACK"]] == [0]
    images = [row["frame"] for row in rows["/cameras/CAM_BACK/image"] if row.get("EncodedImage:blob")]
    assert images == [0, 1, 2, 3]
    assert [row["TextDocument:text"][0].split("**")[1] for row in rows["/frame"]] == ["f0", "f1", "f2", "f3"]


def test_a_mirrored_camera_is_a_point_and_is_said(tmp_path):
    odd = frame()
    odd.lidar2img[1] = np.diag([-1.0, 1, 1, 1]) @ odd.lidar2img[1]
    notes = write_recording([Scene(odd, occupancy(label1=(0, 0, 0)), None)] * 2, tmp_path / "odd.rrd")
    assert notes == ["CAM_FRONT_RIGHT: its lidar2img is mirrored or skewed, no plain pinhole camera; shown as a point"]
    rows = read(tmp_path / "odd.rrd")
    np.testing.assert_allclose(rows["/cameras/CAM_FRONT_RIGHT"][0]["Points3D:positions"][0], [0.48, 0.60, -0.34], atol=1e-6)
    assert not any("Pinhole:image_from_camera" in row for row in rows["/cameras/CAM_FRONT_RIGHT/image"])


def test_too_many_faces_are_said_and_only_the_outer_ones_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "MAX_FACES", 11)
    notes = write_recording([Scene(frame(), occupancy(label1=(0, 0, 0), label3=(1, 0, 0)), None)], tmp_path / "many.rrd")
    assert notes == ["prediction of a: 12 faces, more than 11; those between two classes are left out, so that hiding a class shows holes"]
    assert len(read(tmp_path / "many.rrd")["/prediction/car"][0]["Mesh3D:vertex_positions"]) == 20


def test_the_layout_names_what_is_shown(tmp_path):
    untrained = Scene(frame(num_cameras=2), occupancy(label1=(0, 0, 0)), occupancy(label1=(0, 0, 0)), trained=False)
    write_recording([untrained], tmp_path / "one.rrd")
    text = str(read(tmp_path / "one.rrd", "blueprints"))
    assert all(name in text for name in ("Prediction (UNTRAINED weights)", "Ground truth", "CAM_0", "CAM_1", "/cameras/CAM_1/image"))
    assert "untrained weights" in read(tmp_path / "one.rrd")["/frame"][0]["TextDocument:text"][0]


def test_an_empty_prediction_and_a_truth_alone_can_be_written(tmp_path):
    write_recording([Scene(frame(), occupancy(), None), Scene(frame(), None, occupancy(label1=(0, 0, 0)))], tmp_path / "both.rrd")
    rows = read(tmp_path / "both.rrd")
    assert not any(name.startswith("/prediction") for name in rows) and [row["frame"] for row in rows["/truth/car"]] == [1]


def test_no_frames_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(UserError) as refused:
        write_recording([], tmp_path / "none.rrd")
    assert str(refused.value) == f"recording {tmp_path / 'none.rrd'}: expected at least one frame, got none"
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path):
    def scenes():
        yield Scene(frame(), occupancy(label1=(0, 0, 0)), None)
        raise UserError("second frame")

    (tmp_path / "kept.rrd").write_bytes(b"old")
    with pytest.raises(UserError, match="second frame"):
        write_recording(scenes(), tmp_path / "kept.rrd")
    assert (tmp_path / "kept.rrd").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(self, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError, match="No space left on device; nothing was changed there"):
        write_recording([Scene(frame(), occupancy(label1=(0, 0, 0)), None)], tmp_path / "full.rrd")
    assert list(tmp_path.iterdir()) == []


def test_without_rerun_the_extra_is_named(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "rerun"]:
        monkeypatch.delitem(sys.modules, name)
    usual = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.partition(".")[0] == "rerun":
            raise ModuleNotFoundError("no", name="rerun")
        return usual(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError) as refused:
        write_recording([], tmp_path / "none.rrd")
    assert str(refused.value) == "the interactive view: expected the package rerun-sdk, got none; pip install 'occport[view]'"


def test_rerun_switched_off_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("rerun.is_enabled", lambda stream: False)
    with pytest.raises(UserError, match="environment variable RERUN: expected nothing, or on, got off; a recording would be empty"):
        write_recording([Scene(frame(), occupancy(), None)], tmp_path / "off.rrd")
