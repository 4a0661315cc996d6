"""Bounds: right kernels of every dtype stay within them, wrong ones do not, and what they are made of."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import DTYPES, attention_kernel, deform_kernel
from occport.kit.cases.case import Case, level_starts
from occport.kit.cases.golden import golden
from occport.kit.cases.precision import PRECISIONS, from_bfloat16_bits, gap, input_gap, rounded
from occport.kit.cases.reading import bilinear, read, spread
from occport.kit.cases.tolerance import bound, pair
from occport.kit.grading.bugs.bug import wrong_output
from occport.kit.grading.bugs.table import bugs
from occport.kit.vectors.edge_cases import edge_cases
from occport.ops.deform_conv import deform_conv2d
from occport.ops.msda import sample_weighted

HALF_PIXEL = ("half_pixel_missing", "half_pixel_twice", "half_pixel_left", "half_pixel_right")


def far_attention(seed: int, shape: tuple[int, int] = (116, 200), queries: int = 40, points: int = 2) -> Case:
    """Float32 inputs of any number of bits on a map of the network's size."""
    random = np.random.default_rng(seed)
    size = np.array([shape])
    at = (2, queries, 4, 1, points)
    weights = random.uniform(size=at)
    quantities = {
        "value": random.normal(size=(2, shape[0] * shape[1], 4, 8)), "spatial_shapes": size, "level_start_index": level_starts(size),
        "sampling_locations": random.uniform(-0.02, 1.02, (*at, 2)), "attention_weights": weights / weights.sum((-2, -1), keepdims=True),
    }  # fmt: skip
    return Case("far", "msda", {name: a if a.dtype.kind == "i" else a.astype(np.float32) for name, a in quantities.items()}, {}, "")


def wide_convolution(seed: int, channels: int = 128) -> Case:
    random = np.random.default_rng(seed)
    H, W = 6, 50
    quantities = {
        "input": np.maximum(random.normal(size=(1, channels, H, W)), 0), "offset": random.normal(0, 1.5, (1, 18, H, W)),
        "mask": random.uniform(size=(1, 9, H, W)), "weight": random.normal(0, 0.05, (8, channels, 3, 3)),
    }  # fmt: skip
    attributes = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "deform_groups": 1}
    return Case("wide", "dcn", {name: array.astype(np.float32) for name, array in quantities.items()}, attributes, "")


def share(got: np.ndarray, case: Case, dtype: str) -> float:
    """The largest part of its bound that any element takes up."""
    return float((np.abs(got.astype(np.float64) - golden(case)) / bound(case, dtype)).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["", "by_grid"])
def test_right_kernels_pass(dtype, way):
    for wide in (False, True):
        for case in edge_cases("msda", wide):
            assert share(attention_kernel(dtype, way)(case), case, dtype) < 1, case.name
    assert share(attention_kernel(dtype, way)(far_attention(1)), far_attention(1), dtype) < 1
    for case in edge_cases("dcn"):
        assert share(deform_kernel(dtype)(case), case, dtype) < 1, case.name
    assert share(deform_kernel(dtype)(wide_convolution(1)), wide_convolution(1), dtype) < 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_torch_operators_pass(dtype):
    """By way of grid_sample; torch adds half precision in float32."""
    case, kind = far_attention(2), getattr(torch, dtype)
    tensors = {name: torch.from_numpy(array) for name, array in case.quantities.items()}
    value, places, weights = (tensors[name].to(kind) for name in ("value", "sampling_locations", "attention_weights"))
    got = sample_weighted(value, case.quantities["spatial_shapes"].ravel().tolist(), places, weights)
    assert share(got.double().numpy(), case, dtype) < 1
    case = wide_convolution(2)
    inputs = [torch.from_numpy(case.quantities[name]).to(kind) for name in ("input", "offset", "mask", "weight")]
    assert share(deform_conv2d(*inputs, None, **case.attributes).double().numpy(), case, dtype) < 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_half_a_pixel_does_not_hide(dtype):
    """Not even on the largest map, where a location in float16 is off by a quarter of a pixel, or in a sum of a thousand terms."""
    for case in (far_attention(3), wide_convolution(3)):
        for bug in bugs(case.operator):
            if bug.name in HALF_PIXEL:
                assert share(wrong_output(bug, case), case, dtype) > 1.5, bug.name


def test_half_a_pixel_does_not_hide_from_the_edge_cases_in_bfloat16():
    for bug in (*bugs("msda"), *bugs("dcn")):
        if bug.name in HALF_PIXEL:
            assert max(share(wrong_output(bug, case), case, "bfloat16") for case in edge_cases(bug.operator)) > 2


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from(list(DTYPES)), h=st.integers(1, 60), w=st.integers(1, 300), P=st.integers(1, 6))
def test_right_kernels_pass_on_any_map(seed, dtype, h, w, P):
    case = far_attention(seed, (h, w), 12, P)
    assert share(attention_kernel(dtype)(case), case, dtype) < 1
    assert share(attention_kernel(dtype, "by_grid")(case), case, dtype) < 1


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), reach=st.sampled_from([0.0, 1e-6, 0.2, 0.7, 2.6]))
def test_spread_is_what_moving_can_do(seed, reach):
    """No position within the box changes the value by more, and some position changes it by as much."""
    random = np.random.default_rng(seed)
    image = random.normal(size=(4, 5, 2))
    y, x = random.uniform(-2, 5, 6), random.uniform(-2, 6, 6)
    most = spread(image, y, x, np.full(6, reach), np.full(6, reach), bilinear)
    centre = read(image, y, x, bilinear)
    seen = np.zeros_like(most)
    # inside the box, and on its edges and on the whole pixels in it, where the largest changes are
    for step in [*random.uniform(-1, 1, (60, 2)), *((a, b) for a in (-1, 1, None) for b in (-1, 1, None))]:
        parts = zip((y, x), step, strict=True)
        there = [np.clip(np.round(at), at - reach, at + reach) if part is None else at + part * reach for at, part in parts]
        seen = np.maximum(seen, np.abs(read(image, *there, bilinear) - centre))
    assert (seen <= most + 1e-12).all()
    if reach < 0.5:
        np.testing.assert_allclose(seen, most, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_pair_is_enough_for_right_kernels_and_as_large_as_the_bound(dtype):
    for case in (*edge_cases("msda"), *edge_cases("msda", wide=True)):
        want = golden(case)
        atol, rtol = pair(case, dtype, want)
        limits, allowed = bound(case, dtype), atol + rtol * np.abs(want)
        assert (limits <= allowed).all() and float(f"{atol:.1e}") == atol
        assert (np.abs(attention_kernel(dtype)(case).astype(np.float64) - want) <= allowed).all()
        assert allowed.max() < 1.2 * limits.max() + 8 * PRECISIONS[dtype].unit * np.abs(want).max()


def test_bounds_grow_with_the_unit_roundoff():
    for case in (edge_cases("msda")[0], edge_cases("msda", wide=True)[0], edge_cases("dcn")[0]):
        single, half, brain = (bound(case, dtype) for dtype in DTYPES)
        assert (single > 0).all() and (single < half).all()
        assert (half < brain)[half > 1e-5].all()  # below that it is float16's small range, not its roundoff
        assert single.max() < 1e-5 * np.abs(golden(case)).max() * 10


def test_far_positions_add_nothing():
    """A tap at 1e9 cannot come back into the map by rounding."""
    case = next(case for case in edge_cases("dcn") if case.name == "dcn_edge_huge_offsets")
    away = case.with_quantities({"offset": np.full_like(case.quantities["offset"], 1e9)})
    bias = np.abs(case.float64("bias"))[:, None, None]
    assert (bound(away, "float16") <= 4 * 2.0**-11 * bias + 1e-4).all()


def test_rounding_is_the_dtypes_own():
    random = np.random.default_rng(0)
    special = [0, -0.0, np.inf, -np.inf, np.nan, 1e38, 65519, 65520]
    values = np.concatenate([random.normal(size=200) * 10.0 ** random.integers(-6, 6, 200), special])
    values = values.astype(np.float32).astype(np.float64)
    for name, precision in PRECISIONS.items():
        with np.errstate(over="ignore"):
            want = values.astype(DTYPES[name]).astype(np.float64)
        np.testing.assert_array_equal(rounded(values, precision), want)
        finite = np.isfinite(want)
        assert (np.abs(want[finite] - values[finite]) <= gap(values, precision)[finite]).all()
        assert ((input_gap(values, precision) == 0) == (want == values))[finite].all()
    bits = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(from_bfloat16_bits(bits), values.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert gap(np.array([0.0, 1.0, 1.5, -2.0]), PRECISIONS["float16"]).tolist() == [0, 2.0**-11, 2.0**-11, 2.0**-10]
