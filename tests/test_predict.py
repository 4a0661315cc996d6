"""`occport predict` around a network that needs no time: what is written and said, and what bad input does to one frame and to others."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporting import MICRO, Ran, assert_refused, run_cli
from occport.config import Config, read_config, resolved
from occport.errors import ConfigError, FrameError
from occport.frames.frame import NUSCENES_CAMERAS, Frame
from occport.frames.listing import Entry
from occport.frames.rig import nuscenes_like_rig, turned
from occport.use.predict import PredictPlan, made_up, order_note
from occport.use.work import Task
from occport.voxels.files import read_prediction
from occport.voxels.grid import Grid
from occport.voxels.occupancy import Occupancy

SIZE = (6, 5, 3)


class FakePredictor:
    """Labels that follow from the images."""

    def __init__(self, choice: FakeChoice) -> None:
        self.config: Config = read_config(MICRO)
        self.grid = Grid(SIZE)
        self.class_names = self.config.class_names
        self.identity, self.trained = {"kind": "fake", "weights": choice.weights}, choice.weights != "seeded"
        self.described, self.precision, self.hints = "a fake", "", ()
        self._choice = choice
        self._seen = 0

    def predict(self, frame: Frame) -> Occupancy:
        """The real one's contract."""
        self._seen += 1
        if self._seen == self._choice.stop_at:
            raise self._choice.stop
        labels = np.random.default_rng(int(frame.images.sum())).integers(0, 17, SIZE, np.uint8)
        return Occupancy(frame.name, labels, self.class_names, self.grid, notes=self._choice.notes)


@dataclass(frozen=True)
class FakeChoice:
    """What the flags would have chosen."""

    weights: str = "abc"
    seed: int = 0
    precision: str = "fp32"
    notes: tuple[str, ...] = ()
    stop_at: int = 0  # the frame, counted from 1, at which `stop` is raised
    stop: BaseException = field(default_factory=KeyboardInterrupt, compare=False)

    def open(self) -> FakePredictor:
        """The real one's contract."""
        if self.weights == "missing":
            raise ConfigError("weights", got="none")
        return FakePredictor(self)


class Chosen:
    """Puts a choice in the place of the one that the flags make."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self(FakeChoice())

    def __call__(self, choice: FakeChoice) -> None:
        self._patch.setattr("occport.commands.predict.choice_of", lambda options: replace(choice, seed=options.seed))


@pytest.fixture
def chosen(monkeypatch) -> Chosen:
    """The fake network, to be called for another one."""
    return Chosen(monkeypatch)


def make_frames(folder: Path, count: int, height: int = 6, width: int = 8) -> Path:
    """A folder of frames with grey images, f00, f01, …; their tokens are their folders' names."""
    names, rig = nuscenes_like_rig(6, height, width)
    for number in range(count):
        place = folder / f"f{number:02d}"
        place.mkdir(parents=True)
        cameras = {}
        for camera, (name, matrix) in enumerate(zip(names, rig, strict=True)):
            pixels = np.random.default_rng([number, camera]).integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(place / f"{name}.png")
            cameras[name] = {"file": f"{name}.png", "lidar2img": matrix.tolist()}
        (place / "frame.json").write_text(json.dumps({"cameras": cameras}))
    return folder


def predict(frames: object, out: Path, *flags: object) -> Ran:
    """The command line."""
    return run_cli("predict", *([frames] if frames is not None else []), "-o", out, *flags)


def record(out: Path) -> dict:
    """The folder's predictions.json."""
    return json.loads((out / "predictions.json").read_text())


def names_in(out: Path) -> list[str]:
    """Everything in the folder."""
    return sorted(path.name for path in out.iterdir())


def files_of(*frames: str) -> list[str]:
    """What a folder holds after these frames."""
    return sorted(["predictions.json", *(f"{name}.{kind}" for name in frames for kind in ("npz", "npy", "ply"))])


def test_one_frame(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 1), tmp_path / "deep" / "out"
    ran = predict(frames / "f00", out)
    assert ran.status == 0 and ran.lines == []
    assert names_in(out) == files_of("f00")
    labels = read_prediction(out / "f00.npz").labels
    occupied = int((labels > 0).sum())
    assert np.load(out / "f00.npy").shape == (occupied, 4)
    lines = ran.out.splitlines()
    counts = np.bincount(labels.reshape(-1), minlength=17)
    assert [line.split() for line in lines[:17]] == [
        [name, str(count), "voxels"] for name, count in zip(("empty", *read_config(MICRO).class_names), counts, strict=True)
    ]
    assert lines[17].startswith("one worker: reading ") and "inference" in lines[17] and lines[17].endswith(" limits")
    assert lines[18:] == [f"{out}: 1 of 1 frames"]
    told = record(out)
    assert (told["state"], told["frames"], told["failures"]) == ("finished", ["f00"], {})
    assert told["network"] == {"kind": "fake", "weights": "abc"} and told["trained"] is True and told["described"] == "a fake"
    assert told["class_names"] == list(read_config(MICRO).class_names) and told["config"] == resolved(read_config(MICRO))
    assert told["grid"] == {"size": [6, 5, 3], "pc_range": [-50, -50, -5, 50, 50, 3]}
    assert set(told["seconds"]) == {"reading", "inference", "writing"}


def test_without_frames_the_city_is_predicted(tmp_path, chosen):
    chosen(FakeChoice(weights="seeded"))
    ran = predict(None, tmp_path / "out")
    assert ran.status == 0 and names_in(tmp_path / "out") == files_of("synthetic")
    assert ran.out.startswith("UNTRAINED: these weights are seeded") and "UNTRAINED" in ran.err
    assert record(tmp_path / "out")["trained"] is False
    assert predict(None, tmp_path / "out", "--seed", 7, "--resume").status == 0  # another frame, so another name
    assert names_in(tmp_path / "out") == files_of("synthetic", "synthetic_7")


def test_frames_that_fail_do_not_stop_the_others(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 6), tmp_path / "out"
    (frames / "f01" / "CAM_BACK.png").unlink()
    (frames / "f03" / "CAM_FRONT.png").write_bytes((frames / "f03" / "CAM_FRONT.png").read_bytes()[:60])
    (frames / "f04" / "frame.json").write_text("{")
    content = json.loads((frames / "f05" / "frame.json").read_text())
    del content["cameras"]["CAM_BACK_LEFT"]
    (frames / "f05" / "frame.json").write_text(json.dumps(content))
    ran = predict(frames, out)
    assert ran.status == 1 and names_in(out) == files_of("f00", "f02")
    assert [line.split(": ", 2)[:2] for line in ran.lines] == [["occport", f"frame {name}"] for name in ("f01", "f03", "f04", "f05")]
    missing, damaged, broken, five = ran.lines
    assert f"{frames / 'f01/CAM_BACK.png'}: expected a readable image, got No such file" in missing
    assert str(frames / "f03/CAM_FRONT.png") in damaged and "expected a JSON file" in broken
    assert "expected 6, got 5 (CAM_FRONT, CAM_FRONT_RIGHT, CAM_FRONT_LEFT, CAM_BACK, CAM_BACK_RIGHT); for a network of 5 cameras" in five
    assert ran.out.splitlines()[-1] == f"{out}: 2 of 6 frames (4 failed)"
    assert list(record(out)["failures"]) == ["f01", "f03", "f04", "f05"] and record(out)["frames"] == ["f00", "f02"]
    assert "[6/6] frames, 4 failed in" in ran.err


@pytest.mark.parametrize("count", [1, 3])
def test_when_nothing_could_be_done(tmp_path, chosen, count):
    frames = make_frames(tmp_path / "in", count)
    for image in frames.glob("*/CAM_BACK.png"):
        image.unlink()
    ran = predict(frames if count > 1 else frames / "f00", tmp_path / "deep" / "out")
    assert (ran.status, len(ran.lines), ran.out) == (2, count, "")
    assert not (tmp_path / "deep").exists()


def test_a_dataset_file(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 3), tmp_path / "out"
    infos = []
    for number in range(3):
        cameras = json.loads((frames / f"f{number:02d}" / "frame.json").read_text())["cameras"]
        cams = {
            name: {"data_path": f"f{number:02d}/{one['file']}", "cam_intrinsic": np.eye(3), "lidar2cam": np.array(one["lidar2img"])}
            for name, one in cameras.items()
        }
        infos.append({"token": f"t{number}", "occ_path": f"occ/x{number}.npy", "cams": cams})
    infos[1]["cams"]["CAM_BACK"]["data_path"] = "nowhere.png"
    (frames / "infos.pkl").write_bytes(pickle.dumps({"infos": infos}))
    assert predict(f"{frames}/infos.pkl:0", out).status == 0
    ran = predict(f"{frames}/infos.pkl:1:", out)
    assert ran.status == 1 and "image nowhere.png of" in ran.lines[0] and len(ran.lines) == 1
    assert names_in(out) == files_of("x0", "x2") and record(out)["frames"] == ["x0", "x2"]
    assert "got 3:9" in assert_refused(predict(f"{frames}/infos.pkl:3:9", out), "range of")


def test_a_dataset_file_with_code_in_it(tmp_path, chosen):
    path, marker = tmp_path / "infos.pkl", tmp_path / "marker"
    path.write_bytes(f"cos\nmkdir\n(S'{marker}'\ntR.".encode())
    assert_refused(predict(path, tmp_path / "out"), "refused, it asks for os.mkdir")
    assert not marker.exists() and not (tmp_path / "out").exists()


def test_a_network_that_cannot_be_opened(tmp_path, chosen):
    chosen(FakeChoice("missing"))
    assert_refused(predict(make_frames(tmp_path / "in", 1), tmp_path / "out"), "weights: got none")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"form": "something else"}'])
def test_a_record_of_something_else(tmp_path, chosen, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.json").write_text(content)
    assert_refused(predict(make_frames(tmp_path / "in", 1), out), "expected the record of `occport predict`")
    assert names_in(out) == ["predictions.json"]


def test_files_of_another_origin_are_not_overwritten(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    (out / "f00.npy").write_text("mine")
    line = assert_refused(predict(frames, out), f"output file {out / 'f00.npy'}: expected a new file")
    assert "got another one; choose another folder" in line and (out / "f00.npy").read_text() == "mine" and names_in(out) == ["f00.npy"]


def test_ground_truth_is_not_overwritten(tmp_path, chosen):
    """The real frame's is occ.npy, and so is the name of its points."""
    frames = make_frames(tmp_path / "in", 2)
    content = json.loads((frames / "f00" / "frame.json").read_text())
    (frames / "f00" / "frame.json").write_text(json.dumps(content | {"occ_path": "occ.npy"}))
    (frames / "f00" / "occ.npy").write_text("the truth")
    assert predict(frames / "f01", frames / "f00").status == 0  # it now has a record
    assert_refused(predict(frames / "f00", frames / "f00"), "got the ground truth; choose another folder")
    assert (frames / "f00" / "occ.npy").read_text() == "the truth"


def test_a_folder_that_cannot_be(tmp_path, chosen):
    frames = make_frames(tmp_path / "in", 1)
    (tmp_path / "file").touch()
    assert "File exists" in assert_refused(predict(frames, tmp_path / "file"), "expected a folder that can be written to")
    assert "Not a directory" in assert_refused(predict(frames, tmp_path / "file" / "out"), "expected a folder that can be written to")


def test_notes_are_said_once(tmp_path, chosen):
    chosen(FakeChoice(notes=("12 hits found no room in the budget",)))
    ran = predict(make_frames(tmp_path / "in", 3), tmp_path / "out")
    assert ran.status == 0 and ran.lines == ["occport: note on frame f00: 12 hits found no room in the budget"]
    assert "note on 3 frames: # hits found no room in the budget" in ran.out


def test_plans_travel_without_the_network(tmp_path):
    plan = PredictPlan(FakeChoice(), tmp_path, FakeChoice().open())
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan and copy.opened is None
    with pytest.raises(FrameError, match="no such file or folder"):
        copy.start()(Task(0, Entry("x", str(tmp_path / "nowhere"))))
    outcome = copy.start()(Task(4, made_up(0)))
    assert (outcome.number, outcome.name, outcome.error) == (4, "synthetic", "")
    assert outcome.row["occupied"] == outcome.row["histogram"][1:].sum() > 0


def frame_with(names: tuple[str, ...], order: list[int], degrees: float = 0.0) -> Frame:
    rig = turned(nuscenes_like_rig(6, 126, 224)[1], degrees)[order]
    return Frame("x", names, np.zeros((6, 1, 1, 3), np.uint8), rig, "")


OWN = ("front", "right", "left", "rear", "rear_left", "rear_right")


def test_order_of_cameras():
    """By where they look, whatever they are called."""
    right = list(range(6))
    assert order_note(frame_with(NUSCENES_CAMERAS, right)) == order_note(frame_with(OWN, right)) == ""
    assert order_note(frame_with(OWN, right, degrees=20.0)) == ""  # another rig is no mistake
    wrong = order_note(frame_with(("left", "front", "right", "rear_right", "rear", "rear_left"), [2, 0, 1, 5, 3, 4]))
    assert wrong.startswith("the cameras come as left, front, right, rear_right, rear, rear_left, but the network was trained with CAM_F")
    assert wrong.endswith("that would be front, right, left, rear, rear_left, rear_right; rename them so, or put them into that order")
    swapped = order_note(frame_with(NUSCENES_CAMERAS, [3, 1, 2, 0, 4, 5]))
    assert "that would be CAM_BACK, CAM_FRONT_RIGHT, CAM_FRONT_LEFT, CAM_FRONT, CAM_BACK_LEFT" in swapped and swapped.endswith("is whose")
    turn = order_note(frame_with(OWN, right, degrees=-90.0))
    assert turn.startswith("all cameras look 90 degrees right of where") and turn.endswith("x right, y forward, z up?")
    five = frame_with(OWN, right)
    assert order_note(replace(five, camera_names=OWN[:5], lidar2img=five.lidar2img[:5])) == ""
