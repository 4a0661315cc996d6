"""Comparing arrays and labels: what passes, what does not, and the words for it."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from occport import compare as module
from occport.compare import compare, compare_labels

AXES = ("B", "class", "X", "Y", "Z")
RNG = np.random.default_rng(5)


def logits() -> np.ndarray:
    return RNG.standard_normal((1, 4, 5, 6, 3)).astype(np.float32)


def test_equal_arrays():
    want = logits()
    found = compare(want.copy(), want, atol=0, rtol=0, axes=AXES, row_axis=1)
    assert found.passed
    assert (found.max_abs, found.max_rel, found.rms, found.failing, found.total) == (0, 0, 0, 0, 360)
    assert found.cosine == pytest.approx(1)
    assert found.describe() == "equal, 360 values"


def test_worst_value_and_its_place():
    want = np.zeros((1, 4, 5, 6, 3), np.float32)
    want[0, 3, 2, 4, 1] = 2.0
    got = want.copy()
    got[0, 3, 2, 4, 1] = 2.5
    got[0, :, 1, 1, 1] = 0.375  # a whole voxel, each value better than the worst
    found = compare(got, want, atol=0.375, rtol=0, axes=AXES, row_axis=1)
    assert not found.passed
    assert (found.max_abs, found.max_rel) == (0.5, 1.0)  # 0.375 against zero, floored at atol
    assert (found.index, found.got, found.want) == ((0, 3, 2, 4, 1), 2.5, 2.0)
    assert (found.failing, found.total) == (1, 360)
    assert found.rms == pytest.approx(math.sqrt((0.25 + 4 * 0.375**2) / 360))
    assert (found.row_index, found.row_axes, found.row_rms) == ((0, 1, 1, 1), ("B", "X", "Y", "Z"), 0.375)
    assert found.cosine == pytest.approx(5.0 / (2.0 * math.sqrt(2.5**2 + 4 * 0.375**2)))
    assert found.describe() == (
        "max abs 5.0e-01 (rel 1.0e+00), worst at class 3, X 2, Y 4, Z 1: got 2.5, want 2; rms 4.8e-02; cosine 0.95782629; "
        "worst voxel X 1, Y 1, Z 1 (rms 3.8e-01); 1 of 360 beyond the tolerance"
    )


def test_worst_is_what_fails_by_most_not_what_differs_by_most():
    want, got = np.array([100.0, 1.0]), np.array([100.5, 1.25])
    found = compare(got, want, atol=0, rtol=0.01)
    assert found.max_abs == 0.5
    assert (found.index, found.failing) == ((1,), 1)
    assert found.max_rel == 0.25
    assert "worst at axis 0 1: got 1.25, want 1" in found.describe()


def test_tolerance_is_inclusive():
    assert compare(np.array([1.5]), np.array([1.0]), atol=0.5, rtol=0).passed
    assert compare(np.array([1.5]), np.array([1.0]), atol=0, rtol=0.5).passed
    assert compare(np.array([1.5]), np.array([1.0]), atol=0.25, rtol=0.25).passed
    assert not compare(np.array([1.5]), np.array([1.0]), atol=0.25, rtol=0.2499).passed


@pytest.mark.parametrize(
    ("got", "want", "passed"),
    [(np.inf, np.inf, True), (-np.inf, -np.inf, True), (np.inf, -np.inf, False), (np.inf, 1.0, False), (1.0, np.inf, False),
     (np.nan, 1.0, False), (1.0, np.nan, False), (np.nan, np.nan, False), (np.nan, np.inf, False)],
)
def test_infinities_and_nan(got, want, passed):
    found = compare(np.array([0.0, got], np.float32), np.array([0.0, want], np.float32), atol=1e9, rtol=1e9)
    assert found.passed is passed
    assert found.failing == (0 if passed else 1)
    if not passed:
        assert found.index == (1,)
        assert found.max_abs == math.inf
        assert "got " in found.describe()


def test_equal_nan():
    both = np.array([1.0, np.nan])
    assert compare(both, both, atol=0, rtol=0, equal_nan=True).passed
    assert not compare(np.array([np.nan, np.nan]), both, atol=0, rtol=0, equal_nan=True).passed


@pytest.mark.parametrize(
    ("got", "want", "reason"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "expected shape [3, 2], got [2, 3]"),
        (np.zeros(3, np.float16), np.zeros(3, np.float32), "expected dtype float32, got float16"),
        (np.zeros(3, np.complex64), np.zeros(3, np.complex64), "expected real numbers, got dtype complex64"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "expected values to compare, got empty arrays of shape [0, 3]"),
    ],
)
def test_what_cannot_be_compared_does_not_pass(got, want, reason):
    found = compare(got, want, atol=1, rtol=1)
    assert not found.passed
    assert found.describe() == reason


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.int64, np.uint8, np.float16, ml_dtypes.bfloat16])
def test_other_dtypes(dtype):
    got, want = np.array([0, 1, 1]).astype(dtype), np.array([0, 1, 0]).astype(dtype)
    found = compare(got, want, atol=0.5, rtol=0)
    assert (found.passed, found.index, found.max_abs, found.got, found.want) == (False, (2,), 1.0, 1.0, 0.0)


def test_unsigned_differences_do_not_wrap():
    assert compare(np.array([3], np.uint8), np.array([5], np.uint8), atol=0, rtol=0).max_abs == 2


def test_scalars_and_all_zero():
    found = compare(np.array(1.0), np.array(3.0), atol=0, rtol=0)
    assert (found.index, found.max_abs) == ((), 2.0)
    assert "worst at the only value: got 1, want 3" in found.describe()
    assert compare(np.zeros(3), np.zeros(3), atol=0, rtol=0).cosine == 1.0
    assert compare(np.ones(3), np.zeros(3), atol=0, rtol=0).cosine == 0.0


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_pieces_of_any_size_give_what_the_whole_gives(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=5, max_side=6))
    row = data.draw(st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1)))
    seed = np.random.default_rng(data.draw(st.integers(0, 999)))
    want = seed.standard_normal(shape).astype(np.float32)
    got = (want + seed.standard_normal(shape) * 0.01).astype(np.float32)
    if data.draw(st.booleans()):
        got, want = got[::-1], want[::-1]
    before = module._PIECE
    module._PIECE = data.draw(st.sampled_from([1, 3, 7, 50, before]))
    try:
        found = compare(got, want, atol=0.005, rtol=0.001, row_axis=row)
    finally:
        module._PIECE = before
    difference = np.abs(got.astype(np.float64) - want)
    excess = difference - (0.005 + 0.001 * np.abs(want.astype(np.float64)))
    assert found.failing == np.count_nonzero(excess > 0)
    assert found.passed == (found.failing == 0)
    assert found.max_abs == difference.max()
    assert excess[found.index] == excess.max()
    assert found.rms == pytest.approx(math.sqrt(np.mean(difference**2)))
    assert found.max_rel == pytest.approx((difference / np.maximum(np.abs(want), 0.005)).max(), rel=1e-6)
    if row is None:
        assert found.row_index == ()
        assert math.isnan(found.row_rms)
    else:
        rows = np.sqrt(np.mean(difference**2, axis=row))
        assert found.row_rms == pytest.approx(rows.max())
        assert rows[found.row_index] == pytest.approx(rows.max())


def reference() -> tuple[np.ndarray, np.ndarray]:
    """Logits (2, 4, 3, 5, 2), clear everywhere: class 2 leads by 1 and the others follow 0.5 apart; and their labels."""
    want = np.tile(np.array([0.0, 0.5, 2.0, 1.0], np.float32)[None, :, None, None, None], (2, 1, 3, 5, 2))
    return want, np.full((2, 3, 5, 2), 2)


def test_labels_that_agree():
    want, labels = reference()
    found = compare_labels(labels, want, noise=0.1)
    assert (found.passed, found.agreement, found.differing, found.total) == (True, 1.0, 0, 60)
    assert found.describe() == "all 60 labels agree"


def test_a_label_may_differ_where_the_reference_was_undecided():
    want, labels = reference()
    want[1, 3, 2, 4, 1] = 1.75  # class 3 comes within 0.25
    labels[1, 2, 4, 1] = 3
    found = compare_labels(labels, want, noise=0.3)
    assert (found.passed, found.differing, found.unexcused) == (True, 1, 0)
    assert (found.index, found.got, found.want, found.margin) == ((1, 2, 4, 1), 3, 2, 0.25)
    assert found.describe() == (
        "labels agree on 98.3333% of 60 voxels; 1 differ, all within the noise of 3.0e-01; "
        "clearest at X 2, Y 4, Z 1 of sample 1: got 3, want 2, margin 2.5e-01"
    )
    strict = compare_labels(labels, want, noise=0.25)
    assert (strict.passed, strict.unexcused) == (False, 1)
    assert "1 beyond the noise of 2.5e-01" in strict.describe()


def test_a_third_class_is_not_excused_by_a_near_second():
    want, labels = reference()
    want[0, 3, 0, 0, 0] = 1.99
    labels[0, 0, 0, 0] = 0
    found = compare_labels(labels, want, noise=0.1)
    assert (found.passed, found.margin) == (False, 2.0)


def test_the_clearest_of_several_is_named():
    want, labels = reference()
    labels[0, 0, 0, 0], labels[0, 1, 3, 1], labels[1, 2, 2, 0] = 3, 0, 1
    found = compare_labels(labels, want, noise=1.2)
    assert (found.differing, found.unexcused, found.index, found.got, found.margin) == (3, 2, (0, 1, 3, 1), 0, 2.0)
    assert found.agreement == pytest.approx(57 / 60)


@pytest.mark.parametrize("label", [-1, 4, 255])
def test_labels_that_are_no_class_are_never_excused(label):
    want, labels = reference()
    labels[0, 0, 0, 0] = label
    assert compare_labels(labels, want, noise=1e9).margin == math.inf
    assert not compare_labels(labels, want, noise=1e9).passed


def test_nan_in_the_reference_excuses_nothing():
    want, labels = reference()
    want[0, 1, 0, 0, 0] = np.nan
    assert not compare_labels(labels, want, noise=1e9).passed


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_one_class_is_compared_at_the_threshold(dtype):
    edge = math.log(0.25 / 0.75)
    want = np.array([edge - 0.5, edge - 0.01, edge + 0.01, edge + 0.5]).reshape(1, 1, 4, 1, 1)
    right = np.array([0, 0, 1, 1], dtype).reshape(1, 4, 1, 1)
    assert compare_labels(right, want, noise=0.0).describe() == "all 4 labels agree"
    near = np.array([0, 1, 0, 1], dtype).reshape(1, 4, 1, 1)
    assert compare_labels(near, want, noise=0.02).passed
    assert not compare_labels(near, want, noise=0.005).passed
    far = compare_labels(np.array([1, 0, 1, 1], dtype).reshape(1, 4, 1, 1), want, noise=0.02)
    assert (far.passed, far.index, far.got, far.want) == (False, (0, 0, 0, 0), 1, 0)
    assert far.margin == pytest.approx(0.5)
    assert not compare_labels(right, want, noise=0.1, threshold=0.5).passed


@pytest.mark.parametrize(
    ("labels", "shape", "reason"),
    [
        (np.zeros((1, 5, 3, 2), int), (1, 4, 3, 5, 2), "expected labels of shape [1, 3, 5, 2], got [1, 5, 3, 2]"),
        (np.zeros((1, 3, 5, 2)), (1, 4, 3, 5, 2), "expected integer labels, got dtype float64"),
        (np.zeros((0, 3, 5, 2), int), (0, 4, 3, 5, 2), "expected labels to compare, got an empty array of shape [0, 3, 5, 2]"),
        (np.zeros((1, 3), int), (1, 4, 3), "expected logits of shape [B, C, X, Y, Z], got [1, 4, 3]"),
    ],
)
def test_labels_that_cannot_be_compared_do_not_pass(labels, shape, reason):
    found = compare_labels(labels, np.zeros(shape, np.float32), noise=1.0)
    assert (found.passed, found.describe()) == (False, reason)
