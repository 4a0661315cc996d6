"""The native kernel of multi-scale deformable attention equals a loop over single samples and the reference, on wild inputs too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from occport.ops import msda, native
from occport.ops.msda import multi_scale_deformable_attention
from test_msda import Case, make_case

WILD = [1e9, -1e9, 3e38, -3e38, math.inf, -math.inf, math.nan, 0.0, 0.5, -1.0]
WIDTHS = [1, 2, 3, 7, 8, 16, 24, 33, 64, 128, 130]  # of heads: each kind of vector, and what is left over
EXACT = 2e-5  # float32 on small maps, of the largest value
BF16 = 2.0**-8  # half a unit in the last place, of the number itself


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    if native.find().library is None:
        pytest.skip(native.status())


def by_loops(case: Case) -> np.ndarray:
    """The definition in float64, each neighbour on its own; a position that is infinite or nan is outside."""
    value, centres, offsets, logits = (tensor.detach().double().numpy() for tensor in (case.value, *case[2:]))
    (A, _, M, D), (Q, L, P) = value.shape, (logits.shape[1], *logits.shape[3:])
    shares = F.softmax(torch.from_numpy(logits).reshape(A, Q, M, L * P), -1).view(logits.shape).numpy()
    out = np.zeros((A, Q, M, D))
    starts = np.cumsum([0, *(case.spatial_shapes[2 * level] * case.spatial_shapes[2 * level + 1] for level in range(L))])
    for a, q, m, level, p in np.ndindex(A, Q, M, L, P):
        h, w = case.spatial_shapes[2 * level], case.spatial_shapes[2 * level + 1]
        with np.errstate(invalid="ignore"):  # inf - inf
            x, y = centres[a, q, level] * (w, h) + offsets[a, q, m, level, p] - 0.5
        share = shares[a, q, m, level, p]
        if math.isnan(share):
            out[a, q, m] = math.nan
        if not (-1 < x < w and -1 < y < h):
            continue
        for row, column in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
            if 0 <= row < h and 0 <= column < w:
                part = (1 - abs(y - row)) * (1 - abs(x - column)) * share
                out[a, q, m] += part * value[a, starts[level] + row * w + column, m]
    return out.reshape(A, Q, M * D)


def change(case: Case, to: Callable[[Tensor], Tensor]) -> Case:
    """The same change to each tensor."""
    return Case(to(case.value), case.spatial_shapes, *(to(tensor) for tensor in case[2:]))


@st.composite
def cases(draw: Any) -> Case:
    size = st.integers(1, 7)
    case = make_case(
        draw(st.integers(0, 10**6)),
        images=draw(st.integers(0, 2)),
        heads=draw(st.integers(1, 3)),
        width=draw(st.sampled_from(WIDTHS)),
        queries=draw(st.integers(0, 19)),
        points=draw(st.integers(1, 4)),
        shapes=tuple(draw(st.lists(st.tuples(size, size), min_size=1, max_size=3))),
    )
    return change(case, Tensor.float)


def made_wild(case: Case, seed: int, *, logits: bool) -> Case:
    """A third of all positions, and some of the logits where wanted, replaced by what no one expects."""
    rng = np.random.default_rng(seed)

    def some(tensor: Tensor, share: float) -> Tensor:
        values = torch.from_numpy(rng.choice(WILD, tensor.shape)).float()
        return torch.where(torch.from_numpy(rng.random(tensor.shape) < share), values, tensor)

    changed = case._replace(reference_points=some(case.reference_points, 0.2), sampling_offsets=some(case.sampling_offsets, 0.2))
    return changed._replace(attention_logits=some(case.attention_logits, 0.1)) if logits else changed


def largest(case: Case) -> float:
    return float(case.value.abs().max()) if case.value.numel() else 0.0


@settings(deadline=None, max_examples=80)
@given(cases())
def test_a_loop_over_single_samples(case: Case):
    out = multi_scale_deformable_attention(*case)
    assert out.dtype == torch.float32 and out.is_contiguous()
    np.testing.assert_allclose(out, by_loops(case), rtol=0, atol=EXACT * largest(case))


@settings(deadline=None, max_examples=80)
@given(cases(), st.integers(0, 10**6), st.booleans())
def test_positions_and_logits_that_no_one_expects(case: Case, seed: int, logits: bool):
    case = made_wild(case, seed, logits=logits)
    out, want = multi_scale_deformable_attention(*case), msda.reference(*case)
    np.testing.assert_allclose(out, by_loops(case), rtol=0, atol=EXACT * largest(case), equal_nan=True)
    np.testing.assert_allclose(out, want, rtol=0, atol=EXACT * largest(case), equal_nan=True)
    assert logits or not out.isnan().any()


@settings(deadline=None, max_examples=50)
@given(cases(), st.integers(0, 10**6))
def test_bfloat16_values(case: Case, seed: int):
    case = made_wild(case, seed, logits=False)
    case = case._replace(value=case.value.bfloat16())
    out, want = multi_scale_deformable_attention(*case), by_loops(case)
    assert out.dtype == torch.bfloat16 and out.is_contiguous()
    np.testing.assert_allclose(out.float(), want, rtol=BF16, atol=EXACT * largest(case))
    reference = msda.reference(*case)
    assert reference.dtype == torch.bfloat16
    np.testing.assert_allclose(reference.float(), want, rtol=BF16, atol=EXACT * largest(case))


def test_bfloat16_overflows_and_keeps_nan():
    greatest = torch.finfo(torch.float32).max
    for number, rounded in ((greatest, math.inf), (-greatest, -math.inf), (math.inf, math.inf), (math.nan, math.nan)):
        for width in (1, 2, 5, 40):
            value = torch.full((1, 1, 1, width), number).bfloat16()
            middle = torch.full((1, 1, 1, 2), 0.5)
            out = multi_scale_deformable_attention(value, [1, 1], middle, torch.zeros(1, 1, 1, 1, 1, 2), torch.zeros(1, 1, 1, 1, 1))
            torch.testing.assert_close(out.float(), torch.full((1, 1, width), rounded), equal_nan=True)


def test_positions_and_logits_may_be_bfloat16():
    case = change(make_case(3, width=16, shapes=((5, 4),)), Tensor.bfloat16)
    out = multi_scale_deformable_attention(*case)
    widened = case._replace(**{name: getattr(case, name).float() for name in Case._fields[2:]})
    torch.testing.assert_close(out, multi_scale_deformable_attention(*widened), rtol=0, atol=0)


def wide_map() -> Case:
    """As wide as the finest level: half a precision cannot tell its pixels."""
    case = make_case(11, images=2, heads=4, width=16, queries=200, points=2, shapes=((116, 200),))
    return change(case._replace(sampling_offsets=case.sampling_offsets.clamp(-9, 9)), Tensor.float)


def test_at_least_as_near_to_the_definition_as_the_reference():
    case = wide_map()
    exact = msda.reference(*change(case, Tensor.double))
    kernel = (multi_scale_deformable_attention(*case) - exact).abs()
    plain = (msda.reference(*case) - exact).abs()
    assert kernel.max() <= 1e-4 * largest(case)
    assert kernel.mean() <= plain.mean() and kernel.max() <= 1.5 * plain.max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_reference_computes_positions_of_half_dtypes_in_float32(dtype: torch.dtype):
    case = wide_map()
    case = case._replace(value=case.value.to(dtype))
    widened = case._replace(value=case.value.float())
    out = msda.reference(*case)
    assert out.dtype == dtype
    torch.testing.assert_close(out, msda.reference(*widened).to(dtype), rtol=0, atol=0)


def test_float16_runs_as_the_reference():
    case = change(make_case(12, shapes=((5, 4),)), Tensor.half)
    torch.testing.assert_close(multi_scale_deformable_attention(*case), msda.reference(*case), rtol=0, atol=0)


def test_switched_off_it_is_the_reference_to_the_bit():
    case = wide_map()
    with native.switched_off():
        out = multi_scale_deformable_attention(*case)
    torch.testing.assert_close(out, msda.reference(*case), rtol=0, atol=0)
    assert not torch.equal(out, multi_scale_deformable_attention(*case))  # the kernel rounds otherwise: it did run


def test_the_reference_for_finite_positions_is_plain_grid_sample():
    case = wide_map()
    A, _, M, D = case.value.shape
    Q, P = case.attention_logits.shape[1], case.attention_logits.shape[-1]
    places = case.reference_points[:, :, None, :, None, :] + case.sampling_offsets / torch.tensor([200.0, 116.0])
    grid = places.mul(2).sub(1)[:, :, :, 0].transpose(1, 2).reshape(A * M, Q, P, 2)
    images = case.value.permute(0, 2, 3, 1).reshape(A * M, D, 116, 200)
    samples = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weights = case.attention_logits[:, :, :, 0].softmax(-1).transpose(1, 2).reshape(A * M, 1, Q, P)
    want = (samples * weights).sum(-1).view(A, M * D, Q).transpose(1, 2)
    torch.testing.assert_close(msda.reference(*case), want, rtol=0, atol=0)


@pytest.mark.parametrize("fill", [math.nan, math.inf])
def test_nothing_beside_the_map_is_read(fill: float):
    case = change(make_case(13, images=3, queries=60, width=5, shapes=((2, 3), (3, 2), (1, 4))), Tensor.float)
    value = case.value.clone()
    value[0], value[2] = fill, fill  # the images before and after
    value[1, :6], value[1, 12:] = fill, fill  # the levels before and after
    others = torch.zeros_like(case.attention_logits)
    offsets = case.sampling_offsets.clone()
    offsets[:, :, :, [0, 2]] = -1e6  # every sample of those lies outside
    edge = case._replace(value=value, sampling_offsets=offsets, attention_logits=others)
    out = multi_scale_deformable_attention(*edge)
    assert out[1].isfinite().all() and out[1].any()
    cleaned = edge._replace(value=value.nan_to_num(0, 0))
    torch.testing.assert_close(out[1], multi_scale_deformable_attention(*cleaned)[1], rtol=0, atol=0)
    torch.testing.assert_close(out, msda.reference(*edge), rtol=0, atol=1e-4, equal_nan=True)


def test_logits_that_are_nan_or_infinite():
    case = change(make_case(14, images=1, heads=3, width=9, queries=5, points=2, shapes=((4, 4),)), Tensor.float)
    logits = case.attention_logits.clone()
    logits[0, 0, 0, 0, 1], logits[0, 1, 1, 0, 0] = math.nan, math.inf
    logits[0, 2, 2, 0, 0], logits[0, 3, 0] = -math.inf, -math.inf
    # outside, so that nothing is read: nan all the same
    offsets = case.sampling_offsets.clone()
    offsets[0, 0, 0] = 1e6
    case = case._replace(attention_logits=logits, sampling_offsets=offsets)
    for run in (multi_scale_deformable_attention, msda.reference):
        heads = run(*case).view(5, 3, 9).isnan()
        assert heads[0, 0].all() and heads[1, 1].all() and heads[3, 0].all() and heads.sum() == 3 * 9, run
    torch.testing.assert_close(
        multi_scale_deformable_attention(*case), msda.reference(*case), rtol=0, atol=EXACT * largest(case), equal_nan=True
    )


def test_softmax_over_wide_spreads():
    logits = torch.tensor([0.0, -1e-3, -1.0, -20.0, -86.9, -87.1, -1e4, -3e38]).view(1, 1, 1, 1, 8)
    for shift in (0.0, 50.0, -300.0):
        value = torch.arange(1.0, 9.0).view(1, 8, 1, 1)  # sample i reads i + 1
        offsets = torch.stack([torch.arange(8) + 0.5, torch.full((8,), 0.5)], -1).view(1, 1, 1, 1, 8, 2)
        shifted = logits + shift
        out = multi_scale_deformable_attention(value, [1, 8], torch.zeros(1, 1, 1, 2), offsets, shifted)
        want = (shifted.double().flatten().softmax(0) * value.double().flatten()).sum()
        assert out.item() == pytest.approx(want.item(), rel=1e-6)


def spread(tensor: Tensor) -> Tensor:
    """The same numbers with every second element of a larger tensor."""
    return torch.stack([tensor, torch.full_like(tensor, math.nan)], -1).flatten(-2)[..., ::2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_of_a_larger_tensor(dtype: torch.dtype):
    case = change(make_case(15, images=2, heads=4, width=16, queries=21), lambda tensor: tensor.to(dtype))
    whole = multi_scale_deformable_attention(*case)
    torch.testing.assert_close(multi_scale_deformable_attention(*change(case, spread)), whole, rtol=0, atol=0)
    # as the network has them: columns of one matrix, and one reference point for all images
    A, Q, M, L, P = case.attention_logits.shape
    matrix = torch.cat([case.sampling_offsets.flatten(2), case.attention_logits.flatten(2)], 2)
    offsets, logits = matrix.split([M * L * P * 2, M * L * P], 2)
    split = case._replace(
        sampling_offsets=offsets.view(case.sampling_offsets.shape),
        attention_logits=logits.view(case.attention_logits.shape),
        reference_points=case.reference_points[:1].expand(A, Q, L, 2),
    )
    assert not split.sampling_offsets.is_contiguous()
    joined = change(split, Tensor.contiguous)
    torch.testing.assert_close(multi_scale_deformable_attention(*split), multi_scale_deformable_attention(*joined), rtol=0, atol=0)


def test_the_number_of_threads_changes_nothing():
    case, threads = wide_map(), torch.get_num_threads()
    outs = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            outs.append(multi_scale_deformable_attention(*case))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*outs, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_torch_asks_of_an_operator(dtype: torch.dtype):
    case = change(make_case(16, width=8), lambda tensor: tensor.to(dtype))
    torch.library.opcheck(
        multi_scale_deformable_attention, tuple(case), test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_gradients_are_those_of_the_reference():
    case = change(make_case(17, width=16), Tensor.float)
    offsets = case.sampling_offsets.clone()
    offsets[0, 0] = math.inf
    offsets[1, 1, 0] = math.nan
    found = []
    for run in (multi_scale_deformable_attention, msda.reference):
        tensors = [x.clone().requires_grad_() for x in (case.value, case.reference_points, offsets, case.attention_logits)]
        found.append(torch.autograd.grad(run(tensors[0], case.spatial_shapes, *tensors[1:]).square().sum(), tensors))
    for one, other in zip(*found, strict=True):
        assert one.isfinite().all() and one.any()
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("images", "queries"), [(0, 3), (2, 0), (0, 0)])
def test_no_image_and_no_query(dtype: torch.dtype, images: int, queries: int):
    case = change(make_case(18, images=images, queries=queries, width=16), lambda tensor: tensor.to(dtype))
    out = multi_scale_deformable_attention(*case)
    assert out.shape == (images, queries, 32) and out.dtype == dtype
