"""The table of bugs: what some of them compute by hand, and that the edge cases tell every one from every other and from right."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from occport.kit.cases.case import Case, output_shape, split_shape
from occport.kit.cases.folder import Stored
from occport.kit.cases.golden import golden
from occport.kit.cases.record import Record
from occport.kit.cases.tolerance import bound
from occport.kit.grading.bugs.bug import scaled, wrong_output
from occport.kit.grading.bugs.table import bugs
from occport.kit.grading.verdict import expectation, outside
from occport.kit.vectors.edge_cases import edge_cases

OF_WIDE = {
    "sum_xy_swapped", "offsets_xy_swapped", "reference_xy_swapped", "softmax_missing", "softmax_of_points", "softmax_without_sum",
    "offsets_by_hw", "offsets_not_divided", "offsets_ignored",
}  # fmt: skip


def named(operator: str, name: str):
    return next(bug for bug in bugs(operator) if bug.name == name)


def edge(name: str, wide: bool = False) -> Case:
    return next(case for case in edge_cases(name.partition("_")[0], wide) if case.name == name)


@pytest.mark.parametrize("operator", ["msda", "dcn"])
def test_the_table(operator):
    table = bugs(operator)
    names = [bug.name for bug in table]
    assert len(set(names)) == len(names) >= 20
    for bug in table:
        assert bug.operator == operator and bug.what and bug.look_at
        assert not bug.what.endswith(".") and "\n" not in bug.what + bug.look_at


@pytest.mark.parametrize("operator", ["msda", "dcn"])
def test_a_wrong_output_has_the_right_form(operator):
    for case in edge_cases(operator):
        before = {name: array.copy() for name, array in case.quantities.items()}
        for bug in bugs(operator):
            got = wrong_output(bug, case)
            assert got.shape == output_shape(case) and got.dtype == np.float64, (bug.name, case.name)
            assert np.isfinite(got).all() == (bug.name != "nan") or bug.name == "reflection", (bug.name, case.name)
        assert all((case.quantities[name] == array).all() for name, array in before.items())


def test_some_bugs_by_hand():
    case = edge("msda_edge_one_point")
    flipped = case.with_quantities({"sampling_locations": case.quantities["sampling_locations"][..., ::-1]})
    np.testing.assert_array_equal(wrong_output(named("msda", "xy_swapped"), case), golden(flipped))
    size = np.array([case.quantities["spatial_shapes"][0, ::-1]])
    later = case.with_quantities({"sampling_locations": case.float64("sampling_locations") + 0.5 / size})
    np.testing.assert_allclose(wrong_output(named("msda", "half_pixel_missing"), case), golden(later), atol=1e-12)
    clipped = np.clip(case.float64("sampling_locations"), 0.5 / size, 1 - 0.5 / size)
    np.testing.assert_allclose(wrong_output(named("msda", "border"), case), golden(case.with_quantities({"sampling_locations": clipped})))
    split = golden(case).reshape(split_shape(case))
    got = wrong_output(named("msda", "output_channels_first"), case).reshape(2, 4, 2, 3)
    assert all((got[..., d, m] == split[..., m, d]).all() for d in range(2) for m in range(3))

    case = edge("dcn_edge_plain")
    bias = case.float64("bias")[:, None, None]
    np.testing.assert_allclose(wrong_output(named("dcn", "bias_missing"), case), golden(case) - bias)
    np.testing.assert_allclose(wrong_output(named("dcn", "bias_twice"), case), golden(case) + bias)
    rolled = wrong_output(named("dcn", "rows_late"), case)
    assert (rolled[:, :, 1:] == golden(case)[:, :, :-1]).all() and not rolled[:, :, 0].any()
    assert (wrong_output(named("dcn", "output_channels_last"), case).reshape(2, 5, 7, 6) == golden(case).transpose(0, 2, 3, 1)).all()
    assert (wrong_output(scaled("dcn", -0.5), case) == -0.5 * golden(case)).all()


def test_wide_bugs_are_no_bugs_of_the_narrow_form():
    for case in edge_cases("msda"):
        for name in OF_WIDE:
            assert (wrong_output(named("msda", name), case) == golden(case)).all()


def test_wide_bugs_by_hand():
    case = edge("msda_edge_levels", wide=True)
    logits, offset = case.float64("attention_logits"), case.float64("sampling_offsets")
    spread = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = golden(case.with_quantities({"attention_logits": None, "attention_weights": spread}))
    np.testing.assert_allclose(wrong_output(named("msda", "softmax_of_points"), case), want)
    shapes = case.float64("spatial_shapes")[:, None]
    by_hw = offset / shapes * shapes[..., ::-1]
    want = golden(case.with_quantities({"sampling_offsets": by_hw}))
    np.testing.assert_allclose(wrong_output(named("msda", "offsets_by_hw"), case), want)
    places = case.float64("reference_points")[:, :, None, :, None] + offset / shapes[..., ::-1]
    swapped = case.with_quantities({"sampling_offsets": None, "reference_points": None, "sampling_locations": places[..., ::-1]})
    np.testing.assert_allclose(wrong_output(named("msda", "sum_xy_swapped"), case), golden(swapped), atol=1e-12)


def stored(case: Case) -> Stored:
    record = Record(case.name, case.operator, case.source, case.what, case.attributes, (), output_shape(case), "float32", {}, {})
    return Stored(record, case, golden(case))


@pytest.mark.parametrize(
    ("operator", "wide", "dtype"),
    [("msda", False, "float32"), ("msda", False, "bfloat16"), ("msda", True, "bfloat16"), ("dcn", False, "float16")],
)
def test_edge_cases_tell_all_bugs_apart(operator, wide, dtype):
    """The distinguishability matrix: for any two of right and all bugs, some case has an element that cannot be both."""
    table = [bug for bug in bugs(operator) if wide or bug.name not in OF_WIDE]
    right = replace(table[0], name="right", inputs=lambda case: case, way=named(operator, "zero").way, output=lambda case, output: output)
    names = sorted(["right", *(bug.name for bug in table)])
    together = list(combinations(names, 2))
    for case in edge_cases(operator, wide):
        wanted = {name for names in together for name in names}  # what is told from all others already need not be computed
        if wanted:
            kept, allowed = stored(case), bound(case, dtype)
            found = {bug.name: expectation(bug, kept, dtype, allowed) for bug in (right, *table) if bug.name in wanted}
            together = [two for two in together if not _apart(found[two[0]], found[two[1]])]
    assert together == []


def _apart(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> bool:
    return bool(outside(one[0], other[0], one[1] + other[1]).any())
