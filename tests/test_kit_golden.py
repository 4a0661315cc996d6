"""Golden values against naive loops, against the torch operators, and where positions are wild."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.errors import ModelFileError
from occport.kit.cases import golden as arithmetic
from occport.kit.cases.case import Case, check, level_starts, output_shape, split_shape, window
from occport.kit.cases.golden import golden
from occport.kit.vectors.edge_cases import edge_cases
from occport.ops.deform_conv import deform_conv2d
from occport.ops.msda import multi_scale_deformable_attention, sample_weighted

EDGES = (*edge_cases("msda"), *edge_cases("msda", wide=True), *edge_cases("dcn"))
SIZES = st.integers(1, 4)


def naive_pixel(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """(C) of a map (H, W, C)."""
    out = np.zeros(image.shape[2])
    if not (math.isfinite(y) and math.isfinite(x)):
        return out
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                out += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return out


def naive_attention(case: Case) -> np.ndarray:
    q = {name: array.astype(np.float64) for name, array in case.quantities.items()}
    shapes = case.quantities["spatial_shapes"].tolist()
    weights = q["attention_logits"] if "attention_logits" in q else q["attention_weights"]
    A, Q, M, _, P = weights.shape
    out = np.zeros((A, Q, M, q["value"].shape[3]))
    for a, query, m in np.ndindex(A, Q, M):
        factors = weights[a, query, m]
        if "attention_logits" in q:
            factors = np.exp(factors - factors.max()) / np.exp(factors - factors.max()).sum()
        start = 0
        for level, (h, w) in enumerate(shapes):
            image = q["value"][a, start : start + h * w, m].reshape(h, w, -1)
            start += h * w
            for p in range(P):
                if "sampling_offsets" in q:
                    u, v = q["reference_points"][a, query, level] + q["sampling_offsets"][a, query, m, level, p] / (w, h)
                else:
                    u, v = q["sampling_locations"][a, query, m, level, p]
                out[a, query, m] += factors[level, p] * naive_pixel(image, v * h - 0.5, u * w - 0.5)
    return out.reshape(A, Q, -1)


def naive_deform_conv(case: Case) -> np.ndarray:
    image, offset, mask, weight = (case.float64(name) for name in ("input", "offset", "mask", "weight"))
    stride, padding, dilation, groups, G = window(case)
    A, C = image.shape[:2]
    num_out, per_group, kh, kw = weight.shape
    out = np.zeros((A, num_out, *offset.shape[2:]))
    for a, o, ho, wo in np.ndindex(*out.shape):
        for c, i, j in np.ndindex(per_group, kh, kw):
            channel = o // (num_out // groups) * per_group + c
            k = channel // (C // G) * kh * kw + i * kw + j
            y = ho * stride[0] - padding[0] + i * dilation[0] + offset[a, 2 * k, ho, wo]
            x = wo * stride[1] - padding[1] + j * dilation[1] + offset[a, 2 * k + 1, ho, wo]
            sample = naive_pixel(image[a, channel, :, :, None], y, x)[0]
            out[a, o, ho, wo] += weight[o, c, i, j] * mask[a, k, ho, wo] * sample
        if "bias" in case.quantities:
            out[a, o, ho, wo] += case.quantities["bias"][o]
    return out


@pytest.mark.parametrize("case", [case for case in EDGES if case.operator == "msda"], ids=lambda case: case.name)
def test_attention_is_the_naive_loop(case):
    np.testing.assert_allclose(golden(case), naive_attention(case), rtol=1e-12, atol=1e-13)


NAIVE = ("plain", "no_bias", "stride", "dilation", "padding_uneven", "row_kernel", "both_groups", "depthwise", "huge_offsets", "one_pixel")


@pytest.mark.parametrize("name", NAIVE)
def test_deform_conv_is_the_naive_loop(name):
    case = next(case for case in EDGES if case.name == f"dcn_edge_{name}")
    np.testing.assert_allclose(golden(case), naive_deform_conv(case), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", EDGES, ids=lambda case: f"{case.name}{'_wide' * ('attention_logits' in case.quantities)}")
def test_golden_is_the_torch_operator(case):
    tensors = {name: torch.from_numpy(array.astype(np.float64)) for name, array in case.quantities.items()}
    if case.operator == "dcn":
        inputs = [tensors.get(name) for name in ("input", "offset", "mask", "weight", "bias")]
        got = deform_conv2d(*inputs, **case.attributes)
    else:
        shapes = case.quantities["spatial_shapes"].ravel().tolist()
        names = ("reference_points", "sampling_offsets", "attention_logits") if "attention_logits" in tensors else (
            "sampling_locations", "attention_weights",
        )  # fmt: skip
        operator = multi_scale_deformable_attention if "attention_logits" in tensors else sample_weighted
        got = operator(tensors["value"], shapes, *(tensors[name] for name in names))
    np.testing.assert_allclose(golden(case), got.numpy(), rtol=1e-9, atol=1e-10)


def test_memory_blocks_change_nothing(monkeypatch):
    whole = [golden(case) for case in EDGES]
    monkeypatch.setattr(arithmetic, "_PIECE", 16)
    for case, want in zip(EDGES, whole, strict=True):
        np.testing.assert_allclose(golden(case), want, rtol=1e-13, atol=1e-14)


def test_a_sample_by_hand():
    """Map [[1, 2], [3, 4]] at its middle is 2.5; at u = 1 (x = 1.5) half of the last column is left."""
    def at(u: float, v: float) -> float:
        case = small(np.array([u, v]))
        check(case)
        return float(golden(case)[0, 0, 0])

    assert at(0.5, 0.5) == 2.5
    assert at(1.0, 0.5) == 0.5 * 3
    assert at(0.25, 0.25) == 1 and at(0.75, 0.25) == 2 and at(0.25, 0.75) == 3
    assert at(-0.25, 0.25) == 0 and at(1.25, 0.75) == 0


def small(location: np.ndarray) -> Case:
    quantities = {
        "value": np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1), "spatial_shapes": np.array([[2, 2]]),
        "sampling_locations": location.reshape(1, 1, 1, 1, 1, 2).astype(np.float32),
        "attention_weights": np.ones((1, 1, 1, 1, 1), np.float32),
    }  # fmt: skip
    return Case("small", "msda", quantities, {}, "one sample")


@pytest.mark.parametrize("wild", [np.inf, -np.inf, np.nan, 1e30, -3e38])
def test_wild_positions_count_as_zero(wild):
    for location in ([wild, 0.5], [0.5, wild], [wild, wild]):
        assert golden(small(np.array(location))).tolist() == [[[0.0]]]
    case = next(case for case in EDGES if case.name == "dcn_edge_plain")
    wild_case = case.with_quantities({"offset": np.full_like(case.quantities["offset"], wild)})
    want = np.broadcast_to(case.float64("bias")[:, None, None], output_shape(case)[1:])
    assert all((image == want).all() for image in golden(wild_case))


@settings(deadline=None, max_examples=25)
@given(data=st.data(), A=SIZES, M=SIZES, D=SIZES, Q=SIZES, P=SIZES, shapes=st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=3))
def test_attention_of_any_shape(data, A, M, D, Q, P, shapes):
    size = np.array(shapes)
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    wild = data.draw(st.sampled_from([0.5, 3.0, 1e6, 1e38]))
    points = (A, Q, M, len(shapes), P)
    quantities = {
        "value": random.normal(size=(A, int(size.prod(1).sum()), M, D)), "spatial_shapes": size, "level_start_index": level_starts(size),
        "sampling_locations": random.normal(0.5, wild, (*points, 2)), "attention_weights": random.uniform(size=points),
    }  # fmt: skip
    case = Case("any", "msda", quantities, {}, "any")
    check(case)
    assert golden(case).shape == output_shape(case) == (A, Q, M * D) and split_shape(case) == (A, Q, M, D)
    np.testing.assert_allclose(golden(case), naive_attention(case), rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(data=st.data(), A=st.integers(1, 2), groups=st.integers(1, 2), G=st.integers(1, 3), kernel=st.tuples(st.integers(1, 3), SIZES))
def test_deform_conv_of_any_shape(data, A, groups, G, kernel):
    stride, dilation = (data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) for _ in range(2))
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    extra = data.draw(st.tuples(SIZES, SIZES))
    C, O = 6, 2 * groups  # noqa: E741
    H, W = (dilation[i] * (kernel[i] - 1) + extra[i] for i in (0, 1))
    Ho, Wo = ((extra[i] - 1 + 2 * padding[i]) // stride[i] + 1 for i in (0, 1))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    taps = kernel[0] * kernel[1]
    quantities = {
        "input": random.normal(size=(A, C, H, W)), "offset": random.normal(0, 2, (A, G * 2 * taps, Ho, Wo)),
        "mask": random.uniform(size=(A, G * taps, Ho, Wo)), "weight": random.normal(size=(O, C // groups, *kernel)),
    }  # fmt: skip
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "deform_groups": G}
    case = Case("any", "dcn", quantities, attributes, "any")
    check(case)
    assert golden(case).shape == output_shape(case) == (A, O, Ho, Wo)
    np.testing.assert_allclose(golden(case), naive_deform_conv(case), rtol=1e-10, atol=1e-12)


ATTENTION, CONVOLUTION = (next(case for case in EDGES if case.name == name) for name in ("msda_edge_levels", "dcn_edge_plain"))
UNFIT = [
    (ATTENTION, {"value": np.zeros((2, 72, 2, 3), np.float32)}, {}, "spatial_shapes: expected h*w that add up to the 72 rows of value"),
    (ATTENTION, {"value": np.zeros((2, 71, 3), np.float32)}, {}, "value: expected shape [A, S, M, D], got [2, 71, 3]"),
    (ATTENTION, {"value": None}, {}, "value: expected an array of shape [A, S, M, D], got none"),
    (ATTENTION, {"attention_weights": np.zeros((2, 4, 2, 3, 1), np.float32)}, {}, "attention_weights: expected shape [2, 4, 2, 3, 2]"),
    (ATTENTION, {"level_start_index": np.array([0, 1, 2])}, {}, "level_start_index: expected [0, 48, 63], got [0, 1, 2]"),
    (ATTENTION, {"spatial_shapes": np.array([[6, 8], [3, 5], [0, 2]])}, {}, "heights and widths of at least 1"),
    (ATTENTION, {"spatial_shapes": np.zeros((3, 2))}, {}, "spatial_shapes: expected integers, got float64"),
    (ATTENTION, {"mask": np.zeros(1)}, {}, "quantities: expected some of value, spatial_shapes"),
    (CONVOLUTION, {"input": np.zeros((2, 4, 5, 7), np.int32)}, {}, "input: expected floats, got int32"),
    (CONVOLUTION, {"bias": np.zeros(5, np.float32)}, {}, "bias: expected shape [6], got [5]"),
    (CONVOLUTION, {"mask": np.zeros((2, 9, 4, 7), np.float32)}, {}, "mask: expected shape [2, 9, 5, 7], got [2, 9, 4, 7]"),
    (CONVOLUTION, {}, {"groups": 3}, "channels that 3 groups and 1 deform_groups divide, got 4 channels"),
    (CONVOLUTION, {}, {"groups": 0}, "attribute groups: expected an int of at least 1, got 0"),
    (CONVOLUTION, {}, {"stride": (0, 1)}, "attribute stride: expected two ints of at least 1, got (0, 1)"),
    (CONVOLUTION, {}, {"padding": 1}, "attribute padding: expected two ints of at least 0, got 1"),
    (CONVOLUTION, {"weight": np.zeros((5, 2, 3, 3), np.float32)}, {"groups": 2}, "weight: expected output channels that 2 groups divide"),
]


@pytest.mark.parametrize(("case", "quantities", "attributes", "line"), UNFIT)
def test_what_does_not_fit_is_named(case, quantities, attributes, line):
    with pytest.raises(ModelFileError) as caught:
        check(case.with_quantities(quantities).with_attributes(attributes))
    assert line in str(caught.value) and str(caught.value).startswith(f"case {case.name}, ") and "occport vectors" in str(caught.value)


def test_an_unknown_operator_is_named():
    with pytest.raises(ModelFileError, match="operator: expected msda or dcn, got 'conv'"):
        check(Case("c", "conv", {}, {}, ""))
