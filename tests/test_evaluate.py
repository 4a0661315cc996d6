"""Evaluating networks on frames: rows, totals, comparisons, and the command line. The networks are stand-ins that look at one pixel."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from exporting import Ran, assert_refused, run_cli
from occport.errors import FrameError, UserError
from occport.frames.frame import Frame
from occport.frames.images import synthetic_images
from occport.frames.listing import Entry
from occport.frames.rig import nuscenes_like_rig
from occport.use import evaluate
from occport.use.evaluate import EvaluatePlan, Evaluation, NetworkSource, with_ground_truth
from occport.use.scoring import FolderSource
from occport.use.work import Task, run_here
from occport.voxels.classes import OCCUPIED
from occport.voxels.grid import Grid
from occport.voxels.occupancy import Occupancy

GRID = Grid((4, 3, 2), (0.0, 0.0, 0.0, 4.0, 3.0, 2.0))
NAMES = ("car", "truck")


class Network:
    """Predicts a car in voxel (i, 0, 0), where i is the first pixel of the first image."""

    def __init__(self, semantic: bool, shift: int, trained: bool) -> None:
        self.grid, self.class_names, self.trained = GRID, NAMES if semantic else OCCUPIED, trained
        self.described, self.precision, self.hints = f"stand-in {shift}", "", ()
        self.config = SimpleNamespace(num_cameras=1, image=SimpleNamespace(size=(8, 8)))
        self._shift = shift

    def predict(self, frame: Frame) -> Occupancy:
        place = int(frame.images[0, 0, 0, 0]) + self._shift
        if place > 3:
            raise FrameError("frame", expected="a first pixel up to 3", got=str(place))
        volume = np.zeros(GRID.size, np.float32)
        volume[place, 0, 0] = 0.3 if self.class_names == OCCUPIED else 1
        probabilities = volume if self.class_names == OCCUPIED else None
        return Occupancy(frame.name, volume.astype(np.uint8), self.class_names, GRID, probabilities)


@dataclass(frozen=True)
class Stand:
    """Stands in for a `Choice`."""

    semantic: bool = True
    shift: int = 0
    trained: bool = True
    model: Path | None = None
    seed: int = 0

    def open(self) -> Network:
        return Network(self.semantic, self.shift, self.trained)

    def torch_of(self) -> Stand:
        return replace(self, shift=1, model=None)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Frames are made up: the number in an entry's spec is the first pixel. Returns the specs that were read."""
    seen: list[str] = []

    def read(entry: Entry, predictor: Network, seed: int) -> Frame:
        seen.append(entry.spec)
        return Frame("token", ("A",), np.full((1, 8, 8, 3), int(entry.spec), np.uint8), np.eye(4)[None], "made up")

    monkeypatch.setattr(evaluate, "read_frame", read)
    return seen


def tasks(folder: Path, *pixels: int, truth: bool = True) -> list[Task]:
    """Frames f0, f1, …; each has a car in voxel (0, 0, 0) and nobody knows (3, 2, 1)."""
    np.save(folder / "truth.npy", np.array([[0, 0, 0, 1], [3, 2, 1, 0]], np.float32))
    path = folder / "truth.npy" if truth else None
    return [Task(number, Entry(f"f{number}", str(pixel), path)) for number, pixel in enumerate(pixels)]


def evaluated(plan: EvaluatePlan, work: list[Task]) -> dict:
    first, second = plan.open()
    evaluation = Evaluation(first.facts, second.facts if second is not None else None, plan.semantic)
    for outcome in run_here(plan, work):
        evaluation.take(pickle.loads(pickle.dumps(outcome)))
    table = evaluation.report().to_json()
    return json.loads(json.dumps(table, allow_nan=False))


def network(**settings: object) -> NetworkSource:
    return NetworkSource(Stand(**settings), bool(settings.get("semantic", True)))


def test_a_network_is_scored(tmp_path, reads):
    table = evaluated(EvaluatePlan(network(), None, True), tasks(tmp_path, 0, 0, 1))
    assert reads == ["0", "0", "1"]
    # three true cars, three predicted, two of them right
    assert (table["frames"], table["IoU"], table["classes"]) == (3, 0.5, {"car": 0.5, "truck": None})
    assert table["mIoU"] == 0.5
    assert table["predictions"] == "stand-in 0"


def test_a_network_without_semantics_is_scored(tmp_path, reads):
    table = evaluated(EvaluatePlan(network(semantic=False), None, False), tasks(tmp_path, 0, 2))
    assert (table["Acc"], table["Comp"], table["CD"], table["Recall"]) == (1, 1, 2, 0.5)
    assert table["frames"] == 2


def test_classes_of_a_network_without_semantics_are_refused():
    with pytest.raises(UserError, match=r"the network: expected classes, got one without semantics \(stand-in 0\); add --no-semantic"):
        EvaluatePlan(NetworkSource(Stand(semantic=False), True), None, True).start()


def test_a_network_with_semantics_counts_by_being_there(tmp_path, reads):
    table = evaluated(EvaluatePlan(NetworkSource(Stand(), False), None, False), tasks(tmp_path, 0))
    assert table["F-score"] == 1
    assert table["remarks"] == ["on 1 frame: a network with semantics: every class counts as occupied"]


def test_two_networks_read_each_frame_once(tmp_path, reads):
    plan = EvaluatePlan(network(), network(shift=1), True)
    table = evaluated(plan, tasks(tmp_path, 0, 0, 2))
    assert reads == ["0", "0", "2"]
    assert (table["IoU"], table["against"]["IoU"], table["difference"]["IoU"]) == (0.5, 0, 0.5)
    assert table["agreement"]["share"] == 22 / 24
    assert table["agreement"]["worst_class"] == {"name": "car", "share": 0}
    assert table["against"]["predictions"] == "stand-in 1"


def test_without_ground_truth_networks_are_only_compared(tmp_path, reads):
    plan = EvaluatePlan(network(), network(shift=1), True)
    table = evaluated(plan, tasks(tmp_path, 0, 1, truth=False))
    assert "IoU" not in table
    assert table["agreement"]["equal"] == 44
    assert table["remarks"] == ["of 2 frames 2 have no ground truth and are only compared"]
    mixed = [tasks(tmp_path, 0)[0], tasks(tmp_path, 0, 1, truth=False)[1]]
    table = evaluated(plan, mixed)
    assert (table["frames"], table["IoU"]) == (2, 1)
    assert table["remarks"][-1] == "of 2 frames 1 has no ground truth and is only compared"


def test_a_network_against_a_folder(tmp_path, reads):
    for number in range(2):
        np.savez(tmp_path / f"f{number}.npz", labels=np.zeros(GRID.size, np.uint8))
    source = FolderSource(tmp_path, NAMES, GRID, True)
    table = evaluated(EvaluatePlan(source, network(), True), tasks(tmp_path, 0, 0))
    assert (table["IoU"], table["against"]["IoU"]) == (0, 1)


def test_sides_of_another_grid_or_classes(tmp_path):
    other = FolderSource(tmp_path, ("bus",), GRID, True)
    with pytest.raises(UserError, match=r"--against, classes: expected \('car', 'truck'\) as of stand-in 0, got \('bus',\) of files of"):
        EvaluatePlan(network(), other, True).open()
    other = FolderSource(tmp_path, NAMES, Grid((4, 3, 3)), True)
    with pytest.raises(UserError, match=r"--against, grid: expected \(4, 3, 2\) as of stand-in 0, got \(4, 3, 3\)"):
        EvaluatePlan(network(), other, True).open()


def test_untrained_weights_are_said_loudly(tmp_path, reads):
    table = evaluated(EvaluatePlan(network(trained=False), None, True), tasks(tmp_path, 0))
    assert "UNTRAINED: stand-in 0; the scores say nothing about a trained network" in table["remarks"]


def test_plans_travel_without_what_is_open():
    plan = EvaluatePlan(network(), None, True)
    opened = replace(plan, opened=plan.open())
    back = pickle.loads(pickle.dumps(opened))
    assert back == plan
    assert back.opened is None


def test_frames_that_fail_are_counted_apart(tmp_path, reads):
    table = evaluated(EvaluatePlan(network(), None, True), tasks(tmp_path, 0, 9))
    assert (table["frames"], table["frames_failed"], table["failed"], table["IoU"]) == (1, 1, ["f1"], 1)


def test_which_ground_truth(tmp_path):
    entries = [Entry("a", "a"), Entry("b", "b", tmp_path / "its.npy")]
    with pytest.raises(FrameError, match="ground truth of 1 of 2 frames: expected occ_path of each in the dataset, got none for a; give"):
        with_ground_truth(entries, None, needed=True)
    assert with_ground_truth(entries, None, needed=False) == entries
    with pytest.raises(FrameError, match=r"expected a folder with NAME\.npy, or a file for one frame, got no such file or folder"):
        with_ground_truth(entries, tmp_path / "none", needed=True)
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(FrameError, match="got a file for 2 frames"):
        with_ground_truth(entries, tmp_path / "a.npy", needed=True)
    assert with_ground_truth(entries[:1], tmp_path / "a.npy", needed=True) == [Entry("a", "a", tmp_path / "a.npy")]
    with pytest.raises(FrameError, match=r"ground truth of 1 of 2 frames: expected NAME\.npy for each in .*, got none for b"):
        with_ground_truth(entries, tmp_path, needed=False)
    (tmp_path / "b.npy").write_bytes(b"")
    assert [entry.ground_truth for entry in with_ground_truth(entries, tmp_path, needed=True)] == [tmp_path / "a.npy", tmp_path / "b.npy"]


@pytest.fixture
def command(tmp_path, reads, monkeypatch):
    """The command line on two made-up frames, of which the second has its car elsewhere."""
    from occport.commands import evaluate as verb

    entries = [task.entry for task in tasks(tmp_path, 0, 1)]
    monkeypatch.setattr("occport.frames.listing.list_frames", lambda spec: entries)
    monkeypatch.setattr(verb, "choice_of", lambda options: Stand(model=options.model))

    def run(*flags: object) -> Ran:
        return run_cli("evaluate", *flags)

    return run


def test_command_line(command, tmp_path):
    ran = command("frames", "--config", "c.py", "--json", tmp_path / "a.json", "--markdown", tmp_path / "a.md")
    assert ran.status == 0, ran.err
    assert ran.lines == []
    assert "IoU     0.33333" in ran.out.splitlines()
    assert ran.out.startswith("2 frames: stand-in 0\n\nmetric  PyTorch\n")
    assert json.loads((tmp_path / "a.json").read_text())["IoU"] == pytest.approx(1 / 3)
    assert (tmp_path / "a.md").read_text().startswith("# Evaluation\n\n2 frames: stand-in 0\n\n| metric | PyTorch |\n")


def test_command_line_against_the_original(command):
    ran = command("frames", "--model", "m.onnx", "--against", "torch")
    assert ran.status == 0, ran.err
    assert "metric   m.onnx  PyTorch  difference" in ran.out.splitlines()
    assert "IoU     0.33333  0.00000    +0.33333" in ran.out.splitlines()
    assert "worst frame     91.66667 %  f0" in ran.out.splitlines()


@pytest.mark.parametrize(("flags", "message"), [
    ([], "evaluate: expected FRAMES or --predictions DIR, got neither"),
    (["frames", "--config", "c.py", "--against", "torch"], "--against torch: expected --model FILE.onnx or --predictions DIR with it"),
    (["frames", "--config", "c.py", "--against", "none.onnx"], "expected torch, an exported FILE.onnx, or a folder of predictions"),
    (["frames", "--config", "c.py", "--against-provider", "CPU"], "--against-provider: expected --against FILE.onnx with it"),
    (["--predictions", "{here}"], "predictions {here}: expected at least one NAME.npz, got none"),
    (["frames", "--predictions", "{there}"], "prediction of 1 of 2 frames: expected NAME.npz for each in {there}, got none for f1"),
    (["--predictions", "{there}"], "--predictions: expected --ground-truth DIR, or --against DIR, with it, got neither"),
    (["--predictions", "{there}", "--against", "torch"], "--against torch: expected FRAMES for the network to look at, got none"),
    (["--predictions", "{there}", "--against", "{there}", "--model", "m.onnx"], "--model: expected a network to run, got --predictions"),
    (["frames", "--config", "c.py", "--workers", "0"], "--workers: expected 1 or more, got 0"),
    (["frames", "--config", "c.py", "--json", "{there}"], "--json {there}: expected a file to write, got a folder; choose another with"),
    (["frames", "--config", "c.py", "--json", "{here}/truth.npy/a"], "--json {here}/truth.npy/a: expected a file that can be written"),
])  # fmt: skip
def test_command_lines_that_are_refused(command, tmp_path, flags, message):
    (tmp_path / "there").mkdir()
    np.savez(tmp_path / "there" / "f0.npz", labels=np.zeros(GRID.size, np.uint8))
    places = {"here": str(tmp_path), "there": str(tmp_path / "there")}
    assert_refused(command(*[flag.format(**places) for flag in flags]), message.format(**places))


def test_exit_status_of_failures(command, tmp_path, monkeypatch):
    work = [task.entry for task in tasks(tmp_path, 0, 9)]
    monkeypatch.setattr("occport.frames.listing.list_frames", lambda spec: work)
    ran = command("frames", "--config", "c.py")
    assert ran.status == 1
    assert ran.lines == ["occport: frame f1: frame: expected a first pixel up to 3, got 9"]
    work = work[1:]
    assert_refused(command("frames", "--config", "c.py", "--json", tmp_path / "a.json"), "frame f1: frame: expected a first pixel")
    assert not (tmp_path / "a.json").exists()


def test_an_exported_file_against_the_original(functions_export, tmp_path):
    """Real networks and frames: the accuracy table of a deployment, the files that `predict` writes, and all of it in one go."""
    names, rig = nuscenes_like_rig(4, 60, 96)
    for number in range(2):
        place = tmp_path / "frames" / f"f{number}"
        place.mkdir(parents=True)
        for name, image in zip(names, synthetic_images(4, 60, 96, number), strict=True):
            Image.fromarray(image).save(place / f"{name}.png")
        cameras = {name: {"file": f"{name}.png", "lidar2img": matrix.tolist()} for name, matrix in zip(names, rig, strict=True)}
        (place / "frame.json").write_text(json.dumps({"cameras": cameras}))
        np.save(tmp_path / f"f{number}.npy", np.array([[x, 12, 3, 4 + number] for x in range(16)], np.float32))
    flags = (tmp_path / "frames", "--model", functions_export.model, "--ground-truth", tmp_path, "--json", tmp_path / "a.json")
    ran = run_cli("evaluate", *flags, "--against", "torch")
    assert ran.status == 0, ran.err
    table = json.loads((tmp_path / "a.json").read_text())
    assert table["agreement"]["share"] > 0.999
    assert abs(table["difference"]["IoU"]) < 1e-3
    assert table["counts"]["occupied"][1] == 32
    assert any(remark.startswith("UNTRAINED") for remark in table["remarks"])
    assert run_cli("predict", tmp_path / "frames", "--model", functions_export.model, "-o", tmp_path / "out").status == 0
    ran = run_cli("evaluate", "--predictions", tmp_path / "out", *flags[3:])
    assert ran.status == 0, ran.err
    assert json.loads((tmp_path / "a.json").read_text())["counts"] == table["counts"]
    ran = run_cli("evaluate", *flags[:3], "--predictions", tmp_path / "out", "--against", functions_export.model, "--json", flags[-1])
    assert_refused(ran, "--model: expected a network to run, got --predictions, which are files")
    ran = run_cli("evaluate", flags[0], "--predictions", tmp_path / "out", "--against", functions_export.model, "--json", flags[-1])
    assert ran.status == 0, ran.err
    assert json.loads((tmp_path / "a.json").read_text())["agreement"]["share"] == 1
