"""`occport evaluate --predictions DIR --ground-truth DIR`: what any runtime wrote, scored through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from exporting import MICRO, Ran, assert_refused, run_cli
from occport.use.metrics.reconstruction import NAMES
from occport.voxels.classes import CLASS_NAMES, OCCUPIED
from occport.voxels.files import save_occupancy
from occport.voxels.grid import Grid
from occport.voxels.occupancy import Occupancy

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "metrics_ref.npz"
SIZE = (4, 3, 2)


class Folders:
    """Predictions and ground truth of made-up frames."""

    def __init__(self, place: Path) -> None:
        self.predictions, self.truth, self.json = place / "predictions", place / "truth", place / "out" / "scores.json"
        self.predictions.mkdir()
        self.truth.mkdir()

    def predict(self, name: str, **arrays: object) -> None:
        np.savez(self.predictions / f"{name}.npz", **{key: np.asarray(value) for key, value in arrays.items()})

    def know(self, name: str, *rows: tuple[int, int, int, int]) -> None:
        np.save(self.truth / f"{name}.npy", np.array(rows, np.float32).reshape(-1, 4))

    def score(self, *flags: object) -> Ran:
        return run_cli("evaluate", "--predictions", self.predictions, "--ground-truth", self.truth, "--json", self.json, *flags)

    def scored(self, *flags: object) -> dict:
        ran = self.score(*flags)
        assert ran.status == 0, (ran.out, ran.err)
        return json.loads(self.json.read_text())


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path)


def labels(*cells: tuple[int, int, int, int]) -> np.ndarray:
    volume = np.zeros(SIZE, np.int64)
    for x, y, z, label in cells:
        volume[x, y, z] = label
    return volume


def simple(folders: Folders, *names: str) -> None:
    for name in names:
        folders.predict(name, labels=labels((0, 0, 0, 4), (1, 0, 0, 4)))
        folders.know(name, (0, 0, 0, 4), (2, 0, 0, 10), (3, 2, 1, 0))


def test_iou_by_hand(folders):
    """Two voxels predicted, both cars; true are one of them, and a truck elsewhere."""
    simple(folders, "a", "b.pcd.bin")
    table = folders.scored()
    assert table["frames"] == 2
    assert table["IoU"] == pytest.approx(1 / 3)
    assert table["classes"]["car"] == 0.5
    assert table["classes"]["truck"] == 0.0
    assert table["mIoU"] == 0.25
    assert set(table["classes"]) == set(CLASS_NAMES)
    assert table["classes"]["bus"] is None
    assert table["counts"]["car"] == [2, 2, 4]


def test_tables(folders, tmp_path):
    simple(folders, "a")
    ran = folders.score("--markdown", tmp_path / "scores.md")
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == f"1 frame: files of {folders.predictions}"
    assert "car                       0.50000" in lines
    assert "bus                             –" in lines
    assert "mIoU is the mean over 2 of 16 classes; neither ground truth nor predictions hold any barrier, bicycle, bus, " in ran.out
    written = (tmp_path / "scores.md").read_text().splitlines()
    assert "| metric | predictions |" in written
    assert "| --- | ---: |" in written
    assert "| car | 0.50000 |" in written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "predictions", "scores.md", "truth"]


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference data is not here")
@pytest.mark.parametrize("semantic", [True, False])
def test_upstreams_metrics_from_files(folders, semantic):
    with np.load(REFERENCE) as data:
        for frame in range(2):
            folders.predict(str(frame), **({"labels": data["pred"][frame][None]} if semantic else {"probabilities": data["prob"][frame]}))
            np.save(folders.truth / f"{frame}.npy", data[f"gt_{frame}"])
        table = folders.scored(*([] if semantic else ["--no-semantic"]))
        assert table["frames"] == 2
        if semantic:
            assert [table["IoU"], *table["classes"].values(), table["mIoU"]] == [*data["iou"].tolist(), float(data["miou"])]
        else:
            assert np.abs(np.array([table[name] for name in NAMES]) - data["rec"]).max() < 1e-6


def test_the_range_is_the_configs(folders):
    """Voxels of the default range over 4 x 3 x 2 are 25 m along x; of the micro config's, over the same, too; of the files', 1 m."""
    for name in "ab":
        folders.know(name, (0, 0, 0, 1))
        folders.predict(name, probabilities=labels((1, 0, 0, 1)) * 0.9)
    assert folders.scored("--no-semantic")["Acc"] == 25
    small = "[-10.0,-10.0,-1.0,10.0,10.0,1.0]"
    options = [f"{key}={small}" for key in ("point_cloud_range", "model.pts_bbox_head.transformer_template.encoder.pc_range")]
    assert folders.scored("--no-semantic", "--config", MICRO, "--cfg-options", *options)["Acc"] == 5
    for name in "ab":
        folders.predict(name, probabilities=labels((1, 0, 0, 1)) * 0.9, pc_range=[0, 0, 0, 4, 3, 2])
    assert folders.scored("--no-semantic")["Acc"] == 1
    line = assert_refused(folders.score("--no-semantic", "--config", MICRO), "pc_range: expected [-50.0, ")
    assert "got [0.0, 0.0, 0.0, 4.0, 3.0, 2.0]; give the config that it was made with" in line


def test_what_predict_writes_can_be_scored(folders):
    grid = Grid(SIZE, (0.0, 0.0, 0.0, 4.0, 3.0, 2.0))
    names = ("stone", "wood")
    save_occupancy(Occupancy("a", labels((0, 0, 0, 2)).astype(np.uint8), names, grid), folders.predictions)
    folders.know("a", (0, 0, 0, 2))
    assert folders.scored()["classes"] == {"stone": None, "wood": 1.0}
    probabilities = (labels((0, 0, 0, 1)) * 0.3).astype(np.float32)  # above 0.25, not above 0.5
    save_occupancy(Occupancy("a", labels().astype(np.uint8), OCCUPIED, grid, probabilities), folders.predictions)
    assert folders.scored("--no-semantic")["F-score"] == 1


def test_labels_without_semantics_count_by_being_there(folders):
    simple(folders, "a", "b")
    table = folders.scored("--no-semantic")
    assert (table["Prec"], table["Recall"], table["F-score"]) == (0.5, 0.5, 0.5)
    assert (table["Acc"], table["Comp"], table["CD"]) == (12.5, 12.5, 25)
    assert table["remarks"] == ["on 2 frames: there are labels only, no probabilities: every label but that of empty counts as occupied"]
    assert "classes" not in table


def test_empty_predictions_are_named(folders):
    folders.predict("a", labels=labels())
    folders.predict("b", labels=labels((0, 0, 0, 1)))
    for name in "ab":
        folders.know(name, (0, 0, 0, 1))
    table = folders.scored("--no-semantic")
    assert (table["frames"], table["frames_left_out"], table["left_out"], table["F-score"]) == (2, 1, ["a"], 1.0)
    folders.predict("b", labels=labels())
    ran = folders.score("--no-semantic")
    assert "2 of 2 frames are not in the means: no occupied voxel in prediction or ground truth of a, b" in ran.out
    assert json.loads(folders.json.read_text())["Acc"] is None


def test_two_runtimes_against_each_other(folders, tmp_path):
    simple(folders, "a", "b")
    other = tmp_path / "other"
    other.mkdir()
    np.savez(other / "a.npz", labels=labels((0, 0, 0, 4), (1, 0, 0, 4)))
    np.savez(other / "b.npz", labels=labels((0, 0, 0, 4), (2, 0, 0, 10)))
    table = folders.scored("--against", other, "--markdown", tmp_path / "scores.md")
    assert table["against"]["IoU"] == pytest.approx(3 / 5)  # of 2 + 2 true ones 1 + 2 found, with 1 more predicted
    assert table["difference"]["IoU"] == pytest.approx(1 / 3 - 3 / 5)
    assert table["difference"]["classes"]["truck"] == -0.5
    assert table["difference"]["classes"]["bus"] is None
    agreement = table["agreement"]
    assert (agreement["equal"], agreement["voxels"], agreement["share"]) == (46, 48, 46 / 48)
    assert agreement["worst_frame"] == {"name": "b", "share": 22 / 24}
    assert agreement["worst_class"] == {"name": "truck", "share": 0.0}
    written = (tmp_path / "scores.md").read_text()
    assert "| metric | predictions | other | difference |" in written
    assert "| all voxels | 95.83333 % | 2 of 48 differ |" in written
    # without ground truth they are only compared
    ran = run_cli("evaluate", "--predictions", folders.predictions, "--against", other, "--json", folders.json)
    assert ran.status == 0, ran.err
    table = json.loads(folders.json.read_text())
    assert table["agreement"] == agreement
    assert (table["frames"], "IoU" in table) == (2, False)


def test_files_without_a_partner(folders):
    simple(folders, "a", "b")
    folders.predict("alone", labels=labels())
    line = assert_refused(folders.score(), "ground truth of 1 of 3 frames: expected NAME.npy for each in")
    assert "got none for alone; the names of both must be the same" in line
    (folders.predictions / "alone.npz").unlink()
    for number in range(7):
        folders.know(f"t{number}")
    line = assert_refused(folders.score(), "prediction of 7 of 9 frames: expected NAME.npz for each in")
    assert "got none for t0, t1, t2, t3, t4 and 2 more" in line
    assert not folders.json.exists()


@pytest.mark.parametrize(
    ("arrays", "flags", "message"),
    [
        ({"probabilities": labels() * 0.1}, [], "expected labels, got probabilities, of a network without semantics; add --no-semantic"),
        ({"probabilities": labels() * np.nan}, ["--no-semantic"], "got NaN or infinity at 24 of 24 voxels"),
        ({"labels": labels((0, 0, 0, 17), (0, 0, 1, 255))}, [], "labels: expected 0 to 16 (16 classes), got up to 255 (2 voxels beyond)"),
        ({"labels": labels()[:2]}, [], "ground truth of another size: expected voxel indices in a grid of 2 x 3 x 2, got index [3, 2, 1]"),
        ({"labels": labels() * 0.5}, [], "expected integers, a class for each voxel, got float64"),
        ({"logits": labels()}, [], "expected an array 'labels' or 'probabilities' (X, Y, Z) in it, got logits"),
    ],
)
def test_predictions_that_cannot_be_scored(folders, arrays, flags, message):
    folders.predict("a", **arrays)
    folders.know("a", (3, 2, 1, 4))
    assert_refused(folders.score(*flags), message)
    assert not folders.json.exists()


def test_a_class_that_the_config_does_not_have(folders):
    folders.predict("a", labels=labels(), class_names=["stone"])
    folders.know("a", (0, 0, 0, 2))
    assert_refused(folders.score(), "classes of the ground truth: expected 0 to 1 (1 class), got up to 2")


def test_one_bad_frame_does_not_stop_the_others(folders):
    simple(folders, "a", "b", "c", "d", "e")
    folders.predict("b", labels=labels((0, 0, 0, 17)))
    folders.predict("c", labels=np.zeros((4, 3, 3), np.uint8))
    (folders.predictions / "d.npz").write_bytes(b"PK")
    folders.predict("e", labels=labels(), class_names=["stone"])
    ran = folders.score()
    assert ran.status == 1
    assert len(ran.lines) == 4
    assert "occport: frame b: " in ran.err
    assert "c.npz: grid: expected 4 x 3 x 2 as in the others, got 4 x 3 x 3" in ran.err
    assert "d.npz: expected a whole .npz file, got a damaged or other one" in ran.err
    assert "e.npz: class_names: expected 16 classes (barrier, bicycle, bus, car, construction_vehicle and 11 more), " in ran.err
    assert "got 1 class (stone)" in ran.err
    table = json.loads(folders.json.read_text())
    assert (table["frames"], table["frames_failed"], table["failed"]) == (1, 4, ["b", "c", "d", "e"])
    assert "4 of 5 frames failed and are not counted: b, c, d, e" in ran.out


def test_the_first_frame_may_be_the_bad_one(folders):
    simple(folders, "a", "b")
    (folders.predictions / "a.npz").write_bytes(b"")
    assert folders.score().status == 1
    (folders.predictions / "b.npz").write_bytes(b"")
    assert_refused(folders.score(), "a.npz: expected a whole .npz file")


@pytest.mark.parametrize("which", ["predictions", "truth"])
def test_folders_that_are_none_or_empty(folders, which):
    simple(folders, "a")
    place = getattr(folders, which)
    for path in place.iterdir():
        path.unlink()
    what = "predictions" if which == "predictions" else "ground truth"
    ending = "npz" if which == "predictions" else "npy"
    assert_refused(folders.score(), f"{what} {place}: expected at least one NAME.{ending}, got none")
    place.rmdir()
    assert_refused(folders.score(), f"{what} {place}: expected a folder, got No such file or directory")
