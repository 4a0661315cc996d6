"""Slots that have shifted are matched by voxel; figures against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.bringup.diff.figures import figures_of, maps_of
from occport.bringup.diff.rows import aligned_rows, filled_slots, matched, rearranged, renumbered
from occport.bringup.dumps.index import Entry, Index

OURS = np.array([[0, 3, 5, 9, 0, 0], [2, 4, 7, 8, 11, 0]])


def index(grids=((1, 3, 4),), cameras=("LEFT", "RIGHT")) -> Index:
    return Index("m", "", "dl", "", "npy", (), ("slots",), grids, cameras)


def entry(shape, axes, stage="level 0", role="inner", dtype="float32") -> Entry:
    return Entry("t", "n", "Op", stage, role, dtype, shape, axes, "", "")


def table(rows, width):
    return np.array([[*row, *[0] * (width - len(row))] for row in rows])


def test_filled_slots_end_at_the_first_zero_but_voxel_0_may_be_first():
    assert filled_slots(OURS).sum(1).tolist() == [4, 5]


def test_one_voxel_more_shifts_all_later_slots_and_none_is_lost():
    theirs = np.array([[0, 3, 4, 5, 9, 0], [2, 7, 8, 11, 0, 0]])  # camera 0 has 4 more, camera 1 has 4 less
    match = matched(OURS, theirs)
    assert match.theirs.tolist() == [[0, 1, 3, 4, -1, -1], [0, -1, 1, 2, 3, -1]]
    assert match.unmatched == 2 and match.only_ours == ((1, 4),) and match.only_theirs == ((0, 4),) and not match.plain
    values = np.where(filled_slots(theirs), theirs, 0)[..., None] * 10.0
    back = rearranged(values, match)
    filled = filled_slots(OURS)
    got, want = back[..., 0], OURS * 10.0
    assert (got[filled & (match.theirs >= 0)] == want[filled & (match.theirs >= 0)]).all() and got[1, 1] == 0


def test_slot_numbers_are_turned_into_ours():
    theirs = np.array([[0, 3, 4, 5, 9, 0], [2, 4, 7, 8, 11, 0]])
    match = matched(OURS, theirs)
    # their slot 3 of camera 0 is our 2; slot 2 (voxel 4) we do not have; 12 is "none"
    assert renumbered(np.array([[3, 2, 12, 6]]), match).tolist() == [[2, -1, 12, 6]]


def test_equal_tables_match_plainly():
    assert matched(OURS, OURS).plain


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_two_tables_match_by_voxel(data):
    rows = [sorted(data.draw(st.sets(st.integers(0, 30), min_size=1, max_size=9))) for _ in range(4)]
    ours, theirs = table(rows[:2], 10), table(rows[2:], 10)
    match = matched(ours, theirs)
    for camera in range(2):
        mine, other = rows[camera], rows[2 + camera]
        for k, voxel in enumerate(mine):
            want = other.index(voxel) if voxel in other else -1
            assert match.theirs[camera, k] == want
    assert match.unmatched == sum(len(set(rows[i]) ^ set(rows[2 + i])) for i in range(2))


def test_rows_tell_a_shift_where_no_table_does():
    rng = np.random.default_rng(0)
    ours = table([range(0, 80, 2), range(1, 91, 3)], 50)
    golden = rng.normal(size=(2, 50, 3)).astype(np.float32)
    theirs = golden.copy()
    theirs[0, 11:41] = golden[0, 10:40]  # one slot more from 10 on
    theirs[0, 10] = rng.normal(size=3)
    match = aligned_rows(ours, golden, theirs)
    assert match is not None and match.unmatched == 1
    assert match.theirs[0, :40].tolist() == [*range(10), *range(11, 41)] and match.theirs[1, :30].tolist() == list(range(30))


@pytest.mark.parametrize("noise", [0.0, 0.01, 3.0])
def test_noise_is_no_shift(noise):
    rng = np.random.default_rng(1)
    golden = rng.normal(size=(2, 50, 3)).astype(np.float32)
    theirs = golden + noise * rng.normal(size=golden.shape).astype(np.float32)
    assert aligned_rows(table([range(40), range(1, 41)], 50), golden, theirs) is None


def test_figures_against_a_plain_loop():
    rng = np.random.default_rng(2)
    golden = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    theirs = golden + 0.1 * rng.normal(size=golden.shape).astype(np.float32)
    theirs[1, 2, 3, 4] += 5
    got = figures_of(entry(golden.shape, ("A", "C", "H", "W"), "backbone"), golden, theirs, index(), None)
    error = np.abs(theirs.astype(np.float64) - golden)
    assert got.max_abs == error.max() and got.index == (1, 2, 3, 4) and got.got == theirs[1, 2, 3, 4] and got.want == golden[1, 2, 3, 4]
    assert got.rms == pytest.approx(np.sqrt((error**2).mean())) and got.total == 120
    assert got.want_rms == pytest.approx(np.sqrt((golden.astype(np.float64) ** 2).mean()))
    a, b = golden.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    assert got.cosine == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))
    assert got.max_rel == pytest.approx((error / np.maximum(np.abs(golden), 1e-3 * got.want_rms)).max())
    assert got.quantiles[0] == pytest.approx(np.sort(error.ravel())[60], rel=1e-6)
    assert (got.row_axes, got.row) == (("A", "C"), (1, 2)) and got.row_words == "camera 1 (RIGHT), channel 2"
    assert got.row_rms == pytest.approx(np.sqrt((error[1, 2] ** 2).mean()))


def test_large_arrays_are_summed_in_pieces():
    golden = np.zeros((3, 700_000), np.float32)
    theirs = golden.copy()
    theirs[2, 699_999] = -2
    got = figures_of(entry(golden.shape, ()), golden, theirs, index(), None)
    assert got.max_abs == 2 and got.index == (2, 699_999) and got.rms == pytest.approx(2 / np.sqrt(2_100_000))


def test_nan_and_infinity_are_counted_and_located():
    golden = np.ones((2, 3), np.float32)
    theirs = golden.copy()
    theirs[1, 2], theirs[0, 1] = np.nan, np.inf
    got = figures_of(entry(golden.shape, ()), golden, theirs, index(), None)
    assert got.not_numbers == 2 and got.max_abs == np.inf and got.index == (0, 1) and got.rms == np.inf and got.cosine == 1
    golden[1, 2] = np.nan
    assert figures_of(entry(golden.shape, ()), golden, theirs, index(), None).not_numbers == 1


def test_empty_slots_and_lost_voxels_do_not_count():
    theirs_table = np.array([[0, 3, 5, 9, 0, 0], [2, 7, 8, 11, 0, 0]])
    match = matched(OURS, theirs_table)
    golden = np.ones((2, 6, 2), np.float32)
    theirs = rearranged(golden, match)
    theirs[0, 5] = 99  # behind the last hit
    got = figures_of(entry(golden.shape, ("A", "K", "C")), golden, theirs, index(), match)
    assert got.max_abs == 0 and got.unmatched == 1 and got.total == 2 * 8
    flat = np.vstack([theirs.reshape(12, 2), [[0, 0]]])  # the last row is that of no slot
    merged = figures_of(entry((13, 2), ("A*K", "C")), np.ones((13, 2), np.float32), flat, index(), match)
    assert merged.max_abs == 0 and merged.row_axes == ("A", "K")


def test_a_worst_slot_is_named_by_its_voxel():
    match = matched(OURS, OURS)
    golden = np.zeros((2, 6, 2), np.float32)
    theirs = golden.copy()
    theirs[1, 2] = 1
    got = figures_of(entry(golden.shape, ("A", "K", "C")), golden, theirs, index(), match)
    assert got.row_words == "camera 1 (RIGHT), slot 2 = voxel (3, 1, 0)"  # 7 in a grid of 1 x 3 x 4
    (picture,) = maps_of(entry(golden.shape, ("A", "K", "C")), golden, theirs, index(), match)
    assert picture.error.shape == (3, 4) and picture.error[1, 3] == 1 and np.isnan(picture.error[0, 1])
    assert picture.down == "y" and picture.upwards


def test_labels_that_flip():
    golden = np.zeros((1, 3, 2, 2, 2), np.float32)
    golden[:, 1] = 1
    theirs = golden.copy()
    theirs[0, 2, 0, 0, 1] = 2
    got = figures_of(entry(golden.shape, ("B", "C", "Z", "Y", "X"), "decoder", "output"), golden, theirs, index(), None)
    assert (got.flips, got.labels) == (1, 8) and got.row_words == "voxel (1, 0, 0)"
    labels = np.zeros((1, 2, 2, 2), np.int64)
    other = labels.copy()
    other[0, 1] = 4
    got = figures_of(entry(labels.shape, ("B", "X", "Y", "Z"), "decoder", "output", "int64"), labels, other, index(), None)
    assert (got.flips, got.labels) == (4, 8)
    (picture,) = maps_of(entry(labels.shape, ("B", "X", "Y", "Z"), "decoder"), labels, other, index(), None)
    assert picture.error.tolist() == [[0, 1], [0, 1]] and picture.title == "labels that differ, from above"  # x to the right, y up


def test_a_picture_is_of_the_worst_camera_and_small():
    golden = np.zeros((2, 2, 450, 30), np.float32)
    theirs = golden.copy()
    theirs[1, :, 449, 29] = 8
    (picture,) = maps_of(entry(golden.shape, ("A", "C", "H", "W"), "backbone"), golden, theirs, index(), None)
    assert picture.error.shape == (150, 30) and picture.error[149, 29] == 8 and picture.cell == (3, 1)
    assert "camera 1 (RIGHT)" in picture.title
