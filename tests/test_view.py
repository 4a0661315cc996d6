"""`occport view`: what it reads, what it writes, and every line of refusal."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from exporting import MICRO, assert_refused, run_cli
from occport.city.dataset import write_dataset
from occport.commands import view
from occport.errors import FrameError
from occport.frames.listing import list_frames
from occport.view.reading import dataset_meaning, read_scene
from occport.view.scene import Scene
from occport.voxels.classes import CLASS_NAMES, OCCUPIED
from occport.voxels.grid import NUSCENES_RANGE, Grid
from occport.voxels.occupancy import Occupancy

GRID = Grid((20, 24, 8))
NAMES = ["city_0_000000", "city_0_000001", "city_0_000002"]


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> Path:
    """A dataset of three small frames; not to be changed."""
    folder = tmp_path_factory.mktemp("city")
    write_dataset(folder, frames=3, seed=0, num_cameras=6, image_size=(18, 32), grid=GRID, step=lambda: None)
    return folder


@pytest.fixture
def infos(city) -> Path:
    return city / "infos.pkl"


@pytest.fixture
def predictions(tmp_path) -> Path:
    """Of every frame: one car."""
    labels = np.zeros(GRID.size, np.uint8)
    labels[1, 2, 3] = 4
    for name in NAMES:
        Occupancy(name, labels, CLASS_NAMES, GRID).save(tmp_path / "predictions")
    (tmp_path / "predictions/predictions.json").write_text('{"trained": false}')
    return tmp_path / "predictions"


@pytest.fixture
def drawn(monkeypatch) -> list[Scene]:
    """Scenes that would have been drawn; their pictures are empty files."""
    scenes: list[Scene] = []

    def write(scene: Scene, path: Path) -> None:
        scenes.append(scene)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    monkeypatch.setattr("occport.view.picture.write_picture", write)
    return scenes


def test_a_picture_of_the_ground_truth(infos, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr("occport.view.perspective.SAMPLES", 1)
    ran = run_cli("view", f"{infos}:1", "-o", tmp_path / "one.PNG")
    assert (ran.status, ran.out, ran.err) == (0, f"{tmp_path / 'one.PNG'}\n", "")
    assert (tmp_path / "one.PNG").read_bytes().startswith(b"\x89PNG")


def test_the_grid_is_the_datasets(infos, tmp_path, drawn):
    assert run_cli("view", f"{infos}:1", "-o", tmp_path / "one.png").status == 0
    (scene,) = drawn
    assert scene.prediction is None and scene.trained and scene.truth is not None
    assert scene.truth.grid == GRID and scene.truth.name == NAMES[1] and scene.truth.class_names == CLASS_NAMES
    assert len(scene.frame.camera_names) == 6 and scene.truth.labels.any()


def test_predictions_beside_the_ground_truth(infos, predictions, tmp_path, drawn):
    ran = run_cli("view", infos, "--predictions", predictions, "-o", tmp_path / "pictures")
    assert ran.status == 0 and ran.lines == []
    assert ran.out.splitlines() == [str(tmp_path / "pictures" / f"{name}.png") for name in NAMES]
    assert [scene.prediction.name for scene in drawn] == NAMES and not any(scene.trained for scene in drawn)
    for scene in drawn:
        assert np.argwhere(scene.prediction.labels == 4).tolist() == [[1, 2, 3]] and scene.truth.labels.any()
        assert scene.prediction.grid == scene.truth.grid == GRID


def test_what_any_runtime_wrote(infos, tmp_path, drawn):
    """Probabilities alone, with a leading axis and without a word about classes or range."""
    probabilities = np.zeros((1, *GRID.size), np.float32)
    probabilities[0, 3, 3, 3] = 0.51
    probabilities[0, 4, 4, 4] = 0.5
    np.savez(tmp_path / f"{NAMES[0]}.npz", probabilities=probabilities)
    assert run_cli("view", f"{infos}:0", "--predictions", tmp_path, "-o", tmp_path / "one.png").status == 0
    (scene,) = drawn
    assert np.argwhere(scene.prediction.labels).tolist() == [[3, 3, 3]] and scene.prediction.class_names == OCCUPIED
    assert scene.prediction.grid == Grid(GRID.size, NUSCENES_RANGE) and scene.trained
    assert set(np.unique(scene.truth.labels)) == {0, 1}


def test_named_ground_truth_and_config(infos, tmp_path, drawn):
    for number, name in enumerate(NAMES):
        np.save(tmp_path / f"{name}.npy", np.array([[number, 0, 0, 5]]))
    for given in (tmp_path, tmp_path / f"{NAMES[2]}.npy"):
        ran = run_cli("view", f"{infos}:2", "--ground-truth", given, "--config", MICRO, "-o", tmp_path / "one.png")
        assert ran.status == 0, ran.err
        scene = drawn.pop()
        assert scene.truth.grid.size == (32, 40, 8) and np.argwhere(scene.truth.labels == 5).tolist() == [[2, 0, 0]]


def test_without_a_dataset_file_the_grid_is_surroundoccs(city):
    (entry, *_) = list_frames(str(city / "infos.pkl"))
    assert dataset_meaning(entry).grid == GRID
    alone = type(entry)("name", "some/frame.json")
    assert dataset_meaning(alone).grid == Grid((200, 200, 16)) and dataset_meaning(alone).class_names == CLASS_NAMES


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["INFOS:0", "-o", "x.jpg"], "output x.jpg: expected NAME.png, NAME.rrd, or a folder, got the ending .jpg"),
        (["INFOS", "-o", "x.png"], "output x.png: expected a folder, or NAME.rrd, for 3 frames, got the name of one picture; give"),
        (["INFOS:0", "-o", "x.png", "--serve"], "--serve: expected an output NAME.rrd to show, got x.png"),
        (["INFOS:0", "-o", "x", "--serve", "8000"], "--serve: expected an output NAME.rrd to show, got x"),
        (["INFOS:0", "--predictions", "nowhere", "-o", "x.png"], "--predictions nowhere: expected a file or folder that exists, got none"),
        (["INFOS:0", "--predictions", "INFOS", "-o", "x.png"], "expected a folder of NAME.npz, got a file; give its folder"),
        (["INFOS:0", "--ground-truth", "nowhere", "-o", "x.png"], "--ground-truth nowhere: expected a file or folder that exists"),
        (["INFOS", "--ground-truth", "INFOS", "-o", "x"], "expected a folder for 3 frames, got one file; give a folder of NAME.npy"),
        (["INFOS", "--predictions", ".", "-o", "x"], f"got no {NAMES[0]}.npz and 2 more; run `occport predict` for these frames"),
        (["INFOS:1", "--predictions", ".", "-o", "x.rrd"], f"--predictions .: expected a file for every frame, got no {NAMES[1]}.npz; run"),
        (["INFOS:1", "--ground-truth", ".", "-o", "x"], f"--ground-truth .: expected a file for every frame, got no {NAMES[1]}.npy"),
        (["INFOS:9", "-o", "x.png"], "expected 0 to 2, got 9"),
        (["nowhere.pkl", "-o", "x.png"], "no such file or folder"),
        (["INFOS:0"], "the following arguments are required: -o/--output"),
    ],
)  # fmt: skip
def test_refusals(infos, tmp_path, monkeypatch, arguments, fragment):
    monkeypatch.chdir(tmp_path)
    assert_refused(run_cli("view", *[text.replace("INFOS", str(infos)) for text in arguments]), fragment)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(infos, tmp_path):
    (tmp_path / "notes").write_text("mine")
    assert_refused(run_cli("view", infos, "-o", tmp_path / "notes"), "NAME.png, NAME.rrd, or a folder, got a file without an ending")
    assert (tmp_path / "notes").read_text() == "mine"


def test_another_grid(infos, predictions, tmp_path):
    output = ("-o", tmp_path / "one.png")
    fragment = f"prediction {NAMES[0]}.npz: expected 32 x 40 x 8 voxels, as the config says, got 20 x 24 x 8; give the config"
    assert_refused(run_cli("view", f"{infos}:0", "--predictions", predictions, "--config", MICRO, *output), fragment)
    np.save(tmp_path / "truth.npy", np.array([[19, 24, 0, 5]]))
    refused = run_cli("view", f"{infos}:0", "--predictions", predictions, "--ground-truth", tmp_path / "truth.npy", *output)
    assert_refused(refused, "ground truth of another size: expected voxel indices in a grid of 20 x 24 x 8, got index [19, 24, 0]")
    np.save(tmp_path / "truth.npy", np.array([[1, 1, 1, 17]]))
    refused = run_cli("view", f"{infos}:0", "--ground-truth", tmp_path / "truth.npy", *output)
    assert_refused(refused, "truth.npy: expected 0 to 16, or 255 for unknown, got 17; give the --config whose class_names they are")
    assert not (tmp_path / "one.png").exists()


def test_a_damaged_record_of_the_predictions(infos, predictions, tmp_path):
    (predictions / "predictions.json").write_text("{")
    ran = run_cli("view", f"{infos}:0", "--predictions", predictions, "-o", tmp_path / "one.png")
    assert_refused(ran, "predictions.json: expected JSON, as `occport predict` writes it, got something else")
    (predictions / "predictions.json").write_text(json.dumps(["trained", False]))
    (entry, *_) = list_frames(str(infos))
    assert read_scene(entry, predictions, None).trained


def test_nothing_to_show(infos):
    entry = list_frames(str(infos))[0]
    with pytest.raises(FrameError, match="expected something to show, got neither predictions nor ground truth; give --predictions or"):
        read_scene(type(entry)(entry.name, entry.spec), None, None)


def test_a_ground_truth_that_is_not_there_is_said(infos, predictions, tmp_path, capsys):
    entry = list_frames(str(infos))[0]
    lost = type(entry)(entry.name, entry.spec, tmp_path / "lost.npy")
    options = Namespace(predictions=predictions, ground_truth=None)
    assert view._scene(lost, options, None).truth is None
    assert capsys.readouterr().err == f"occport: note: {NAMES[0]} without its ground truth: no file {tmp_path / 'lost.npy'}\n"


def test_a_frame_that_fails_does_not_stop_the_others(infos, predictions, tmp_path, drawn):
    (predictions / f"{NAMES[1]}.npz").write_bytes(b"PK damaged")
    ran = run_cli("view", infos, "--predictions", predictions, "-o", tmp_path / "pictures")
    assert ran.status == 1 and len(drawn) == 2
    (line,) = ran.lines
    assert f"{NAMES[1]}.npz: expected a whole .npz file" in line
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [f"{NAMES[0]}.png", f"{NAMES[2]}.png"]
    for name in (NAMES[0], NAMES[2]):
        (predictions / f"{name}.npz").write_bytes(b"")
    ran = run_cli("view", infos, "--predictions", predictions, "-o", tmp_path / "none")
    assert ran.status == 2 and ran.lines[-1].endswith("expected a frame that can be shown, got none of those above")


def test_an_interruption_says_what_is_there(infos, predictions, tmp_path, drawn, monkeypatch):
    from occport.view import reading

    real, calls = reading.read_scene, []

    def interrupted(*arguments: object) -> Scene:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(reading, "read_scene", interrupted)
    ran = run_cli("view", infos, "--predictions", predictions, "-o", tmp_path / "pictures")
    assert ran.status == 130 and ran.lines == [f"occport: interrupted; 1 of 3 pictures are in {tmp_path / 'pictures'}"]


def test_a_recording_of_several_frames(infos, predictions, tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    ran = run_cli("view", infos, "--predictions", predictions, "-o", tmp_path / "all.rrd")
    assert ran.status == 0 and ran.out == f"{tmp_path / 'all.rrd'}\n"
    assert (tmp_path / "all.rrd").stat().st_size > 10_000


def test_the_port_is_the_servers():
    from occport.view.serve import DEFAULT_PORT

    assert view.PORT == DEFAULT_PORT
