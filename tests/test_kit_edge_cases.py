"""The edge cases: what each promises in its sentence, exact numbers, and that they stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from occport.kit.cases.case import check
from occport.kit.cases.golden import golden, locations
from occport.kit.cases.precision import PRECISIONS, rounded
from occport.kit.vectors.edge_cases import edge_cases

ALL = {(operator, wide): edge_cases(operator, wide) for operator, wide in (("msda", False), ("msda", True), ("dcn", False))}
BEYOND_HALF = ("_huge", "_huge_offsets", "_far_outside")
PLACES = ("sampling_locations", "sampling_offsets", "offset")


@pytest.mark.parametrize("key", ALL)
def test_cases_are_sound_small_and_the_same_every_time(key):
    cases = ALL[key]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names) >= 15
    for case, again in zip(cases, edge_cases(*key), strict=True):
        check(case)
        assert case.operator == key[0] and case.source == "edge" and case.name.startswith(f"{key[0]}_edge_")
        assert case.what and case.what[-1] != "." and sum(array.size for array in case.quantities.values()) < 10_000
        assert all((case.quantities[name] == array).all() for name, array in again.quantities.items())
        assert np.isfinite(golden(case)).all()


@pytest.mark.parametrize("key", ALL)
def test_every_dtype_holds_the_numbers(key):
    for case in ALL[key]:
        for name, array in case.quantities.items():
            if array.dtype.kind == "f" and not (case.name.endswith(BEYOND_HALF) and name in PLACES):
                for precision in PRECISIONS.values():
                    values = array.astype(np.float64)
                    assert (rounded(values, precision) == values).all(), (case.name, name, precision.name)


def by_name(operator: str, name: str, wide: bool = False):
    return next(case for case in ALL[operator, wide] if case.name == f"{operator}_edge_{name}")


@pytest.mark.parametrize("wide", [False, True])
def test_attention_cases_are_what_they_say(wide):
    def pixels(name):
        case = by_name("msda", name, wide)
        return locations(case) * case.float64("spatial_shapes")[:, None, ::-1] - 0.5

    assert set(pixels("centres").ravel()) == {0, 1, 2, 3}
    assert {-0.5, 0, 7, 7.5} < set(pixels("edges").ravel())
    assert {-1, 8} < set(pixels("just_outside").ravel())
    assert np.abs(pixels("far_outside")).max() > 900 and np.abs(pixels("huge")).max() > 1e29
    assert by_name("msda", "one_query", wide).quantities["value"].shape[0] == 1
    assert by_name("msda", "one_pixel", wide).quantities["spatial_shapes"].tolist() == [[1, 1], [1, 1]]
    shapes = [case.quantities["value"].shape for case in ALL["msda", wide]]
    assert any(M > D for _, _, M, D in shapes) and any(M < D for _, _, M, D in shapes)
    assert any(len({*map(tuple, case.quantities["spatial_shapes"].tolist())}) > 2 for case in ALL["msda", wide])


def test_one_weight_reads_one_point():
    for wide in (False, True):
        case = by_name("msda", "one_weight", wide)
        names = ("sampling_offsets", "attention_logits") if wide else ("sampling_locations", "attention_weights")
        alone = {name: case.quantities[name][:, :, :, :, 2:3] for name in names}
        np.testing.assert_allclose(golden(case), golden(case.with_quantities(alone)), atol=1e-12)


def test_convolution_cases_are_what_they_say():
    attributes = [case.attributes for case in ALL["dcn", False]]
    assert {case["stride"] for case in attributes} >= {(1, 1), (2, 3)} and {case["dilation"] for case in attributes} >= {(1, 1), (2, 3)}
    assert {case["padding"] for case in attributes} >= {(0, 0), (1, 1), (0, 2)}
    assert {(case["groups"], case["deform_groups"]) for case in attributes} >= {(1, 1), (2, 1), (1, 2), (2, 4), (4, 1)}
    assert {case.quantities["weight"].shape[2:] for case in ALL["dcn", False]} >= {(1, 1), (1, 3), (3, 1), (2, 3), (3, 3)}
    assert {"bias" in case.quantities for case in ALL["dcn", False]} == {True, False}
    assert {case.quantities["input"].shape[0] for case in ALL["dcn", False]} == {1, 2}
    zero = by_name("dcn", "zero_mask")
    assert (golden(zero) == zero.float64("bias")[:, None, None]).all()
    assert (by_name("dcn", "whole_offsets").quantities["offset"] % 1 == 0).all()
    assert not by_name("dcn", "no_offset").quantities["offset"].any()
    assert np.abs(by_name("dcn", "huge_offsets").quantities["offset"]).max() > 1e29
