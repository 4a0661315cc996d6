"""Metrics: by hand, against upstream's results, against naive loops, and in any order."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from occport.use.metrics.agreement import AgreementTotal, agreement
from occport.use.metrics.nearest import nearest_distances
from occport.use.metrics.reconstruction import NAMES, occupied, reconstruction
from occport.use.metrics.totals import Names, ReconstructionTotal, SemanticTotal
from occport.voxels.classes import CLASS_NAMES, OCCUPIED
from occport.voxels.grid import Grid
from occport.voxels.ground_truth import read_ground_truth
from occport.voxels.occupancy import Occupancy
from occport.voxels.semantic import ious, semantic_counts

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "metrics_ref.npz"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="the reference data is not here")
TWO = ("car", "truck")
VOLUMES = arrays(np.uint8, (3, 4, 2), elements=st.sampled_from([0, 1, 2, 3, 255]))
MASKS = arrays(np.bool_, (4, 3, 2))


def volume(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(-1, 1, 1)


@pytest.fixture
def reference(tmp_path):
    """Upstream's data, its ground truth as files."""
    with np.load(REFERENCE) as stored:
        data = dict(stored)
    for frame in range(2):
        np.save(tmp_path / f"{frame}.npy", data[f"gt_{frame}"])
    return data, Grid(tuple(data["occ_size"].tolist())), [tmp_path / f"{frame}.npy" for frame in range(2)]


@needs_reference
def test_semantic_metrics_equal_upstreams(reference):
    data, grid, paths = reference
    total = SemanticTotal(CLASS_NAMES)
    for labels, path in zip(data["pred"], paths, strict=True):
        total.add(path.stem, semantic_counts(labels, read_ground_truth(path, grid, semantic=True), 17))
    scores = total.scores()
    assert scores.frames == 2
    assert scores.values["IoU"] == data["iou"][0]
    assert list(scores.classes.values()) == data["iou"][1:].tolist()  # to the bit, as they are quotients of the same counts
    assert scores.values["mIoU"] == float(data["miou"])
    assert scores.remarks == ()


@needs_reference
def test_reconstruction_metrics_equal_upstreams(reference):
    data, grid, paths = reference
    total = ReconstructionTotal()
    for probabilities, path in zip(data["prob"], paths, strict=True):
        occupancy = Occupancy(path.stem, (probabilities > 0.5).astype(np.uint8), OCCUPIED, grid, probabilities)
        truth = read_ground_truth(path, grid, semantic=False)
        total.add(path.stem, reconstruction(occupied(occupancy), truth > 0, grid))
    scores = total.scores()
    assert tuple(scores.values) == NAMES == tuple(data["rec_names"].tolist())
    assert np.abs(np.array(list(scores.values.values())) - data["rec"]).max() < 1e-9


def test_iou_by_hand():
    """Truth car car truck empty unknown empty, judged car truck truck truck car empty."""
    truth, labels = volume(1, 1, 2, 0, 255, 0), volume(1, 2, 2, 2, 1, 0)
    counts = semantic_counts(labels, truth, 3)
    # occupied: 3 of 3 true ones found, 4 predicted; car: 1 of 2, 1 predicted; truck: 1 of 1, 3 predicted
    assert counts.tolist() == [[3, 3, 4], [1, 2, 1], [1, 1, 3]]
    assert ious(counts) == [3 / 4, 1 / 2, 1 / 3]
    total = SemanticTotal(TWO)
    total.add("a", counts)
    assert total.scores().values == {"IoU": 0.75, "mIoU": pytest.approx(5 / 12)}
    assert total.scores().classes == {"car": 0.5, "truck": pytest.approx(1 / 3)}


def test_counts_are_summed_before_they_are_divided():
    total = SemanticTotal(TWO)
    total.add("a", semantic_counts(volume(1, 1), volume(1, 1), 3))  # IoU 1 over 2 voxels
    total.add("b", semantic_counts(volume(0, 0, 0, 0), volume(1, 1, 1, 1), 3))  # IoU 0 over 4
    assert total.scores().values["IoU"] == 2 / 6


def test_classes_that_do_not_occur_are_left_out_and_named():
    total = SemanticTotal(("car", "truck", "bus"))
    total.add("a", semantic_counts(volume(1, 0, 3), volume(1, 0, 0), 4))
    scores = total.scores()
    assert scores.classes == {"car": 1.0, "truck": None, "bus": 0.0}  # a bus was predicted where there is none
    assert scores.values["mIoU"] == 0.5
    assert scores.remarks == ("mIoU is the mean over 2 of 3 classes; neither ground truth nor predictions hold any truck",)
    table = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert table["classes"]["truck"] is None
    assert table["undefined_classes"] == ["truck"]
    assert table["counts"] == {"occupied": [1, 1, 2], "car": [1, 1, 1], "truck": [0, 0, 0], "bus": [0, 0, 1]}


def test_nothing_anywhere_is_said_to_be_undefined():
    total = SemanticTotal(TWO)
    total.add("a", semantic_counts(volume(0, 0, 1), volume(0, 0, 255), 3))
    scores = total.scores()
    assert scores.values == {"IoU": None, "mIoU": None}
    assert scores.remarks[0].startswith("IoU is undefined: there is no occupied voxel")


@settings(max_examples=60, deadline=None)
@given(labels=VOLUMES, truth=VOLUMES)
def test_the_histogram_counts_as_upstreams_loop(labels, truth):
    """Classes beyond the rows too: upstream counts them as occupied."""
    known = truth != 255
    mine, true = labels[known], truth[known]
    expected = [[((true != 0) & (mine != 0)).sum(), (true != 0).sum(), (mine != 0).sum()]]
    expected += [[((true == row) & (mine == row)).sum(), (true == row).sum(), (mine == row).sum()] for row in range(1, 4)]
    counts = semantic_counts(labels, truth, 4)
    assert counts.dtype == np.int64
    assert counts.tolist() == np.array(expected).tolist()


def test_distances_by_hand():
    """Voxels of 2 x 1 x 0.5 m in a row along x: predicted 0 and 3, true 0 and 1."""
    grid = Grid((4, 1, 1), (0.0, 0.0, 0.0, 8.0, 1.0, 0.5))
    row = reconstruction(volume(1, 0, 0, 1) > 0, volume(1, 1, 0, 0) > 0, grid)
    assert row is not None
    # predicted → true: 0 m, 4 m; true → predicted: 0 m, 2 m
    assert dict(zip(NAMES, row.tolist(), strict=True)) == {"Acc": 2, "Comp": 1, "CD": 3, "Prec": 0.5, "Recall": 0.5, "F-score": 0.5}


def test_a_neighbour_at_half_a_metre_is_not_close():
    """Upstream asks for less than 0.5 m, which is the size of its voxels."""
    row = reconstruction(volume(1, 0) > 0, volume(0, 1) > 0, Grid((2, 1, 1), (0.0, 0.0, 0.0, 1.0, 0.5, 0.5)))
    assert row is not None
    assert row.tolist() == [0.5, 0.5, 1, 0, 0, 0]  # an F-score of 0, where upstream divides 0 by 0


def test_a_probability_of_a_quarter_is_empty():
    probabilities = np.array([0.25, np.nextafter(np.float32(0.25), np.float32(1)), 0.6], np.float32).reshape(3, 1, 1)
    occupancy = Occupancy("a", (probabilities > 0.5).astype(np.uint8), OCCUPIED, Grid((3, 1, 1)), probabilities)
    assert occupied(occupancy).reshape(-1).tolist() == [False, True, True]
    assert occupied(Occupancy("a", volume(0, 4), TWO, Grid((2, 1, 1)))).reshape(-1).tolist() == [False, True]


def test_frames_without_a_voxel_are_counted_apart():
    grid = Grid((2, 1, 1), (0.0, 0.0, 0.0, 1.0, 0.5, 0.5))
    nothing, both = volume(0, 0) > 0, volume(1, 1) > 0
    assert reconstruction(nothing, both, grid) is None
    assert reconstruction(both, nothing, grid) is None
    total = ReconstructionTotal()
    assert total.scores().values == dict.fromkeys(NAMES)
    for name, row in (("b", None), ("a", None), ("good", reconstruction(both, both, grid))):
        total.add(name, row)
    scores = total.scores()
    assert scores.frames == 3
    assert scores.values == {"Acc": 0, "Comp": 0, "CD": 0, "Prec": 1, "Recall": 1, "F-score": 1}
    assert scores.remarks == ("2 of 3 frames are not in the means: no occupied voxel in prediction or ground truth of a, b",)
    assert scores.to_json()["frames_left_out"] == 2


@settings(max_examples=40, deadline=None)
@given(predicted=MASKS, truth=MASKS, size=st.tuples(*[st.floats(0.1, 3)] * 3))
def test_distances_as_a_naive_loop(predicted, truth, size):
    extent = [edge * count for edge, count in zip(size, (4, 3, 2), strict=True)]
    row = reconstruction(predicted, truth, Grid((4, 3, 2), (0.0, 0.0, 0.0, *extent)))
    mine, true = np.argwhere(predicted), np.argwhere(truth)
    if not len(mine) or not len(true):
        assert row is None
        return
    def nearest(points, others):
        return [min(math.dist(point * size, other * size) for other in others) for point in points]

    assert row is not None
    assert row[0] == pytest.approx(np.mean(nearest(mine, true)), abs=1e-9)
    assert row[1] == pytest.approx(np.mean(nearest(true, mine)), abs=1e-9)


def test_nearest_is_exact_on_a_large_grid():
    """Against the distance to every other point."""
    rng = np.random.Generator(np.random.PCG64(3))
    points, others = rng.integers(0, 200, (50, 3)) * 0.5, rng.integers(0, 200, (3000, 3)) * 0.5
    expected = np.sqrt(((points[:, None] - others) ** 2).sum(axis=2)).min(axis=1)
    assert np.abs(nearest_distances(points, others) - expected).max() < 1e-12


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(VOLUMES, VOLUMES), min_size=1, max_size=4), st.randoms())
def test_totals_do_not_depend_on_the_order(frames, random):
    grid = Grid((3, 4, 2), (0.0, 0.0, 0.0, 1.1, 1.3, 0.7))
    found = []
    for order in (range(len(frames)), random.sample(range(len(frames)), len(frames))):
        semantic, distances, compared = SemanticTotal(TWO), ReconstructionTotal(), AgreementTotal(TWO)
        for number in order:
            labels, truth = frames[number]
            semantic.add(str(number), semantic_counts(labels, truth, 3))
            distances.add(str(number), reconstruction(labels > 0, truth > 0, grid))
            compared.add(str(number), agreement(labels, truth, 3))
        found.append((semantic.scores(), distances.scores(), compared.result()))
    assert found[0] == found[1]


def test_agreement_by_hand():
    total = AgreementTotal(("car", "truck", "bus"))
    assert total.result() is None
    total.add("good", agreement(volume(0, 1, 1, 2), volume(0, 1, 1, 2), 4))
    total.add("bad", agreement(volume(0, 1, 2, 2), volume(1, 1, 2, 0), 4))
    result = total.result()
    assert result is not None
    assert (result.frames, result.equal, result.voxels, result.share) == (2, 6, 8, 0.75)
    assert (result.worst_frame, result.worst_frame_share) == ("bad", 0.5)
    # car: both say so at 3 voxels, one of them at 4; truck: 2 of 3; there is no bus
    assert result.classes == {"car": 3 / 4, "truck": 2 / 3, "bus": None}
    assert result.worst_class == "truck"
    assert result.to_json()["worst_class"] == {"name": "truck", "share": 2 / 3}


def test_worst_of_equal_frames_is_the_first_in_the_alphabet():
    for names in itertools.permutations("bac"):
        total = AgreementTotal(TWO)
        for name in names:
            total.add(name, agreement(volume(0, 1), volume(0, 2), 3))
        result = total.result()
        assert result is not None
        assert result.worst_frame == "a"


def test_nothing_but_empty_space_agrees():
    total = AgreementTotal(TWO)
    total.add("a", agreement(volume(0, 0), volume(0, 0), 3))
    result = total.result()
    assert result is not None
    assert (result.share, result.worst_class) == (1.0, None)
    assert result.to_json()["worst_class"] is None


def test_names_keep_a_few_and_count_all():
    names = Names()
    for number in reversed(range(30)):
        names.add(f"{number:02d}")
    assert names.count == 30
    assert names.first == [f"{number:02d}" for number in range(20)]
    assert str(names).startswith("00, 01, ")
    assert str(names).endswith("19 and 10 more")
