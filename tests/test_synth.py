"""`occport synth`: the dataset reads back as it was made, in SurroundOcc's format, and nothing is left half-written."""

from __future__ import annotations

import pickle
import resource
import signal

import numpy as np
import pytest

from exporting import MICRO, assert_refused, run_cli
from occport.city.dataset import write_dataset
from occport.city.frame import city_frame
from occport.errors import ExportError
from occport.frames.listing import list_frames
from occport.frames.source import load_frame
from occport.voxels.grid import Grid
from occport.voxels.ground_truth import read_ground_truth

GRID, HW = Grid((32, 40, 8)), (126, 224)


def test_it_reads_back(tmp_path):
    folder = tmp_path / "city"
    ran = run_cli("synth", "-o", str(folder), "--frames", "3", "--seed", "4", "--config", str(MICRO))
    assert ran.status == 0, ran.err
    assert f"{folder / 'infos.pkl'}: 3 frames, 22 files" in ran.out
    entries = list_frames(str(folder / "infos.pkl"))
    assert [entry.name for entry in entries] == ["city_4_000000", "city_4_000001", "city_4_000002"]
    for number, entry in enumerate(entries):
        frame = load_frame(entry.spec, num_cameras=6)
        made, scene = city_frame(4, number, 6, HW, GRID)
        assert frame.camera_names == made.camera_names
        np.testing.assert_array_equal(frame.images, made.images)
        np.testing.assert_allclose(frame.lidar2img, made.lidar2img, atol=1e-9)
        assert entry.ground_truth is not None
        np.testing.assert_array_equal(read_ground_truth(entry.ground_truth, GRID, semantic=True), scene.labels)


def test_the_format_is_surroundoccs(tmp_path):
    assert run_cli("synth", "-o", str(tmp_path / "city"), "--frames", "1", "--config", str(MICRO)).status == 0
    (info,) = pickle.loads((tmp_path / "city/infos.pkl").read_bytes())["infos"]
    assert set(info) == {"token", "scene_token", "timestamp", "lidar_path", "occ_path", "cams"}
    camera = info["cams"]["CAM_BACK"]
    shapes = {key: value.shape for key, value in camera.items() if isinstance(value, np.ndarray)}
    assert shapes == {"cam_intrinsic": (3, 3), "sensor2lidar_rotation": (3, 3), "sensor2lidar_translation": (3,)}
    assert camera["data_path"] == "samples/CAM_BACK/city_0_000000.png" and info["occ_path"] == "occ/city_0_000000.npy"
    truth = np.load(tmp_path / "city/occ/city_0_000000.npy")
    assert truth.shape[1] == 4 and truth.dtype == np.int32 and (truth[:, 3] > 0).all()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        assert run_cli("synth", "-o", str(tmp_path / name), "--frames", "2", "--config", str(MICRO), "--image-size", "20,30").status == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 2 * 7 + 1
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_its_own_sizes_without_a_config(tmp_path):
    assert run_cli("synth", "-o", str(tmp_path / "c"), "--frames", "1", "--image-size", "45x80").status == 0
    frame = load_frame(str(tmp_path / "c/infos.pkl:0"), num_cameras=6)
    assert frame.images.shape == (6, 45, 80, 3)
    assert np.load(tmp_path / "c/occ/city_0_000000.npy")[:, :3].max(axis=0).tolist() == [199, 199, 15]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--frames", "0"), "--frames: expected a whole number from 1 on, got 0"),
        (("--seed", "-1"), "--seed: expected a whole number from 0 on, got -1"),
        (("--image-size", "900"), "--image-size: expected height,width in pixels, as 900,1600, got 900"),
        (("--image-size", "0,5"), "--image-size: expected height,width in pixels, as 900,1600, got 0,5"),
        (("--cfg-options", "a=1"), "--cfg-options: expected together with --config, got no config"),
        (("--config", "nothing.py"), "nothing.py"),
    ],
)
def test_wrong_flags(tmp_path, words, message):
    ran = run_cli("synth", "-o", str(tmp_path / "out"), *words)
    assert_refused(ran, message)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    ran = run_cli("synth", "-o", str(tmp_path), "--frames", "1")
    assert_refused(ran, f"output folder {tmp_path}: expected a new or an empty one, got one that holds mine.txt; choose another folder")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / ".occport-staging-abc").mkdir()  # of a run that was killed
    assert_refused(run_cli("synth", "-o", str(tmp_path), "--frames", "1"), "got one that holds .occport-staging-abc and 1 more; choose")


def test_a_place_that_is_no_folder_or_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    ran = run_cli("synth", "-o", str(tmp_path / "file"), "--frames", "1", "--image-size", "8,8")
    assert ran.status == 2 and "expected a folder that can be written to, got Not a directory; choose another folder" in ran.err
    assert "Traceback" not in ran.err

    def locked(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", locked)
    with pytest.raises(ExportError, match="expected a folder that can be read, got Permission denied; choose another folder"):
        write_dataset(tmp_path, frames=1, seed=0, num_cameras=1, image_size=(8, 8), grid=GRID, step=lambda: None)


def test_an_interruption_leaves_nothing(tmp_path):
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "city", frames=2, seed=0, num_cameras=2, image_size=(8, 8), grid=GRID, step=stop)
    assert not (tmp_path / "city").exists()


@pytest.mark.parametrize("limit", (3_000, 6_000))
def test_a_full_disk_leaves_nothing(tmp_path, limit):
    """Files may have so many bytes: less than an image, or more than any image and less than the ground truth."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ExportError, match="File too large; nothing was changed there; free some space or choose another folder"):
            write_dataset(tmp_path / "city", frames=1, seed=0, num_cameras=1, image_size=(126, 224), grid=GRID, step=lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)
    assert not (tmp_path / "city").exists()
