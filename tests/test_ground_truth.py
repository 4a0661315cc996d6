"""Sparse ground truth: what upstream makes of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from occport.errors import FrameError
from occport.voxels.grid import Grid
from occport.voxels.ground_truth import read_ground_truth

GRID = Grid((4, 3, 2))
SHARED = Path(__file__).resolve().parents[2] / "shared"


def stored(folder: Path, rows: object, dtype: object = np.float32) -> Path:
    np.save(folder / "truth.npy", np.array(rows, dtype))
    return folder / "truth.npy"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64, np.uint64, ">i2"])
def test_rows_become_voxels(tmp_path, dtype):
    path = stored(tmp_path, [[0, 0, 0, 4], [3, 2, 1, 16], [1, 0, 1, 0]], dtype)
    volume = read_ground_truth(path, GRID, semantic=True)
    assert (volume.dtype, volume.shape) == (np.uint8, (4, 3, 2))
    assert (volume[0, 0, 0], volume[3, 2, 1]) == (4, 16)
    assert volume[1, 0, 1] == 255  # class 0: nobody knows
    assert np.count_nonzero(volume) == 3


def test_without_semantics_every_class_is_one_and_the_unknown_is_empty(tmp_path):
    path = stored(tmp_path, [[0, 0, 0, 4], [3, 2, 1, 255], [1, 0, 1, 0]])
    volume = read_ground_truth(path, GRID, semantic=False)
    assert np.argwhere(volume).tolist() == [[0, 0, 0], [3, 2, 1]]
    assert set(np.unique(volume)) == {0, 1}


def test_of_rows_for_one_voxel_the_last_counts(tmp_path):
    rows = [[1, 1, 1, 5], [1, 1, 1, 7], [2, 2, 0, 3], [2, 2, 0, 0], [0, 1, 0, 0], [0, 1, 0, 9]]
    volume = read_ground_truth(stored(tmp_path, rows), GRID, semantic=True)
    assert (volume[1, 1, 1], volume[2, 2, 0], volume[0, 1, 0]) == (7, 255, 9)
    # without semantics upstream drops rows of class 0 first, so that the earlier row stays
    volume = read_ground_truth(stored(tmp_path, rows), GRID, semantic=False)
    assert (volume[1, 1, 1], volume[2, 2, 0], volume[0, 1, 0]) == (1, 1, 1)


@pytest.mark.parametrize("semantic", [True, False])
def test_no_rows(tmp_path, semantic):
    assert not read_ground_truth(stored(tmp_path, np.zeros((0, 4))), GRID, semantic).any()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=arrays(np.int64, st.tuples(st.integers(0, 40), st.just(4)), elements=st.integers(0, 255)), semantic=st.booleans())
def test_as_a_naive_loop(tmp_path, rows, semantic):
    rows = rows.copy()
    rows[:, :3] %= GRID.size
    expected = np.zeros(GRID.size, np.uint8)
    for x, y, z, label in rows.tolist():
        if semantic:
            expected[x, y, z] = label or 255
        elif label:
            expected[x, y, z] = 1
    assert np.array_equal(read_ground_truth(stored(tmp_path, rows, np.float32), GRID, semantic), expected)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[4, 0, 0, 1]], r"truth of another size: expected voxel indices in a grid of 4 x 3 x 2, got index \[4, 0, 0\] \(1 of 1 rows"),
        ([[0, 0, 0, 1], [0, 0, -1, 1], [0, 3, 0, 1]], r"got index \[0, 0, -1\] \(2 of 3 rows are outside\)"),
        ([[0, 0, 0, 256]], "classes: expected 0 to 255, got 256 to 256"),
        ([[0, 0, 0, -1]], "classes: expected 0 to 255, got -1 to -1"),
        ([[0, 0.5, 0, 1]], r"expected whole numbers: .*, got row 0: \[0.0, 0.5, 0.0, 1.0\]; points in metres must be turned"),
        ([[0, 0, 0, 1], [0, 0, np.nan, 1]], r"got row 1: \[0.0, 0.0, nan, 1.0\]"),
        ([[np.inf, 0, 0, 1]], "got row 0"),
        ([[1e30, 0, 0, 1]], "got row 0"),
        ([[0, 0, 0]], r"expected \(n, 4\) numbers: voxel indices x, y, z and the class, got \(1, 3\) of float32"),
        ([0, 0, 0, 1], r"got \(4,\) of float32"),
        (np.zeros((4, 3, 2)), r"got \(4, 3, 2\) of float32"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, rows, message):
    path = stored(tmp_path, rows)
    with pytest.raises(FrameError, match=message) as caught:
        read_ground_truth(path, GRID, semantic=True)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("dtype", "value"), [(np.uint64, 2**64 - 1), (np.int64, -(2**63)), (np.int64, 2**62)])
def test_integers_that_are_far_outside(tmp_path, dtype, value):
    with pytest.raises(FrameError, match="ground truth of another size"):
        read_ground_truth(stored(tmp_path, [[value, 0, 0, 1]], dtype), GRID, semantic=True)


@pytest.mark.parametrize("dtype", ["U3", "S3", "?", "c16", [("x", "f4")]])
def test_other_types(tmp_path, dtype):
    np.save(tmp_path / "truth.npy", np.zeros((2, 4), dtype))
    with pytest.raises(FrameError, match=r"expected \(n, 4\) numbers"):
        read_ground_truth(tmp_path / "truth.npy", GRID, semantic=True)


def test_objects_and_other_files(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, None]], object), allow_pickle=True)
    (tmp_path / "b.npy").write_text("no array")
    for path, message in ((tmp_path / "a.npy", "it holds Python objects"), (tmp_path / "b.npy", "a damaged or other one")):
        with pytest.raises(FrameError, match=message):
            read_ground_truth(path, GRID, semantic=True)
    with pytest.raises(FrameError, match="expected a readable file, got No such file"):
        read_ground_truth(tmp_path / "none.npy", GRID, semantic=True)


@pytest.mark.skipif(not SHARED.exists(), reason="the reference data is not here")
def test_the_real_frame():
    path = SHARED / "data" / "nuscenes_frame" / "occ.npy"
    volume = read_ground_truth(path, Grid((200, 200, 16)), semantic=True)
    rows = np.load(path)
    assert np.count_nonzero(volume) == len(rows) == 4831
    assert volume[93, 99, 6] == 11
    assert np.array_equal(np.unique(volume), [0, 1, 4, 7, 8, 10, 11, 15])
