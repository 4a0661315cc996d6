"""Multi-scale deformable attention equals the original and a loop over single samples, forwards and backwards."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from occport.ops.msda import multi_scale_deformable_attention, sample_weighted
from reference import load_case


class Case(NamedTuple):
    """Arguments of the wide operator, in its order."""

    value: Tensor
    spatial_shapes: list[int]
    reference_points: Tensor
    sampling_offsets: Tensor
    attention_logits: Tensor


def make_case(
    seed: int,
    *,
    images: int = 2,
    heads: int = 2,
    width: int = 3,
    queries: int = 4,
    points: int = 2,
    shapes: tuple[tuple[int, int], ...] = ((5, 4), (2, 3)),
) -> Case:
    """A random case in float64; some samples lie far outside, some on whole pixels."""
    rng = np.random.default_rng(seed)
    L = len(shapes)
    S = sum(h * w for h, w in shapes)
    offsets = rng.normal(0, 2, (images, queries, heads, L, points, 2))
    offsets *= np.where(rng.random(offsets.shape) < 0.1, 1000, 1)
    centres = rng.random((images, queries, L, 2))
    sizes = np.array([(w, h) for h, w in shapes])
    centres = np.where(rng.random(centres.shape) < 0.2, (np.floor(centres * sizes) + 0.5) / sizes, centres)
    arrays = (rng.normal(size=(images, S, heads, width)), centres, offsets, rng.normal(0, 3, (images, queries, heads, L, points)))
    value, reference_points, sampling_offsets, logits = (torch.from_numpy(array) for array in arrays)
    return Case(value, [size for shape in shapes for size in shape], reference_points, sampling_offsets, logits)


def by_loops(case: Case) -> np.ndarray:
    """The definition, sample by sample, in float64."""
    value, centres, offsets, logits = (tensor.detach().double().numpy() for tensor in (case.value, *case[2:]))
    A, _, M, D = value.shape
    _, Q, _, L, P = logits.shape
    out = np.zeros((A, Q, M, D))
    for a, q, m in np.ndindex(A, Q, M):
        exponentials = np.exp(logits[a, q, m] - logits[a, q, m].max())
        share = exponentials / exponentials.sum()  # over levels and points together
        start = 0
        for level in range(L):
            h, w = case.spatial_shapes[2 * level], case.spatial_shapes[2 * level + 1]
            for p in range(P):
                x = (centres[a, q, level, 0] + offsets[a, q, m, level, p, 0] / w) * w - 0.5
                y = (centres[a, q, level, 1] + offsets[a, q, m, level, p, 1] / h) * h - 0.5
                for row in (math.floor(y), math.floor(y) + 1):
                    for column in (math.floor(x), math.floor(x) + 1):
                        if 0 <= row < h and 0 <= column < w:
                            part = (1 - abs(y - row)) * (1 - abs(x - column)) * share[level, p]
                            out[a, q, m] += part * value[a, start + row * w + column, m]
            start += h * w
    return out.reshape(A, Q, M * D)


def test_the_function_of_the_original():
    data = load_case("ops_ref")
    (h, w), locations, weights = data["msda_shapes"][0].tolist(), data["msda_loc"], data["msda_weights"]
    value, shapes = torch.from_numpy(data["msda_value"]), [h, w]
    narrow = sample_weighted(value, shapes, torch.from_numpy(locations), torch.from_numpy(weights))
    np.testing.assert_allclose(narrow, data["msda_out"], rtol=0, atol=1e-5)
    # the wide form: nothing at the reference point, everything in the offset; the softmax of logarithms is the weights
    offsets = torch.from_numpy(locations * np.array([w, h], np.float32))
    wide = multi_scale_deformable_attention(
        value, shapes, torch.zeros(*locations.shape[:2], 1, 2), offsets, torch.from_numpy(np.log(weights))
    )
    assert wide.dtype == torch.float32 and wide.is_contiguous()
    np.testing.assert_allclose(wide, data["msda_out"], rtol=0, atol=1e-5)


@st.composite
def cases(draw: Any) -> Case:
    size = st.integers(1, 5)
    return make_case(
        draw(st.integers(0, 10**6)),
        images=draw(st.integers(0, 2)),
        heads=draw(st.integers(1, 3)),
        width=draw(st.integers(1, 4)),
        queries=draw(st.integers(0, 4)),
        points=draw(st.integers(1, 3)),
        shapes=tuple(draw(st.lists(st.tuples(size, size), min_size=1, max_size=3))),
    )


@settings(deadline=None, max_examples=50)
@given(cases())
def test_a_loop_over_single_samples(case: Case):
    np.testing.assert_allclose(multi_scale_deformable_attention(*case), by_loops(case), rtol=1e-9, atol=1e-9)


def test_no_query_and_one_query():
    case = make_case(1)
    whole = multi_scale_deformable_attention(*case)
    for count in (0, 1):
        cut = Case(case.value, case.spatial_shapes, *(argument[:, :count] for argument in case[2:]))
        torch.testing.assert_close(multi_scale_deformable_attention(*cut), whole[:, :count])


def test_offsets_are_pixels_of_their_own_level_x_first():
    case = make_case(2, images=1, heads=1, width=1, queries=1, points=1, shapes=((3, 5),))
    centre = torch.tensor([1.5 / 5, 0.5 / 3]).double().view(1, 1, 1, 2)  # row 0, column 1
    right_and_down = torch.tensor([2.0, 1.0]).double().view(1, 1, 1, 1, 1, 2)
    out = multi_scale_deformable_attention(*case._replace(reference_points=centre, sampling_offsets=right_and_down))
    torch.testing.assert_close(out.item(), case.value[0, 1 * 5 + 3, 0, 0].item())


def test_far_outside_nothing_is_found():
    case = make_case(3)
    out = multi_scale_deformable_attention(*case._replace(sampling_offsets=torch.full_like(case.sampling_offsets, -1e6)))
    assert not out.any()


def test_parts_of_a_larger_tensor():
    case = make_case(4)
    spread = Case(
        *(
            torch.cat([argument, argument], dim=-1).narrow(-1, 0, argument.shape[-1]) if isinstance(argument, Tensor) else argument
            for argument in case
        )
    )
    assert not any(tensor.is_contiguous() for tensor in (spread.value, *spread[2:]))
    torch.testing.assert_close(multi_scale_deformable_attention(*spread), multi_scale_deformable_attention(*case), rtol=0, atol=0)


def away_from_pixels(case: Case) -> Case:
    """The same case with every sample between pixels, where the bilinear value has no kink."""
    rng = np.random.default_rng(9)
    sizes = np.array(case.spatial_shapes).reshape(-1, 2)[:, ::-1]
    centres = (np.floor(case.reference_points.numpy() * sizes) + 0.5) / sizes
    offsets = rng.integers(-2, 2, case.sampling_offsets.shape) + rng.uniform(0.2, 0.8, case.sampling_offsets.shape)
    return case._replace(reference_points=torch.from_numpy(centres), sampling_offsets=torch.from_numpy(offsets))


def test_gradients():
    case = away_from_pixels(make_case(5, images=1, width=2, queries=2, points=1))
    tensors = [tensor.requires_grad_() for tensor in (case.value, *case[2:])]

    def operator(value: Tensor, *others: Tensor) -> Tensor:
        return multi_scale_deformable_attention(value, case.spatial_shapes, *others)

    assert torch.autograd.gradcheck(operator, tensors)


@pytest.mark.parametrize("wanted", ["value", "reference_points", "sampling_offsets", "attention_logits"])
def test_a_gradient_that_is_wanted_alone(wanted: str):
    case = away_from_pixels(make_case(6))
    every = Case(*(argument.clone().requires_grad_() if isinstance(argument, Tensor) else argument for argument in case))
    alone = case._replace(**{wanted: getattr(case, wanted).clone().requires_grad_()})
    multi_scale_deformable_attention(*every).square().sum().backward()
    multi_scale_deformable_attention(*alone).square().sum().backward()
    assert getattr(every, wanted).grad.abs().sum() > 0
    torch.testing.assert_close(getattr(alone, wanted).grad, getattr(every, wanted).grad)


def test_what_torch_asks_of_an_operator():
    case = away_from_pixels(make_case(7))
    torch.library.opcheck(multi_scale_deformable_attention, [x.requires_grad_() if isinstance(x, Tensor) else x for x in case])


def test_shapes_without_values():
    case = make_case(8, heads=3, width=5)
    with FakeTensorMode() as mode:
        fake = multi_scale_deformable_attention(*(mode.from_tensor(x) if isinstance(x, Tensor) else x for x in case))
    real = multi_scale_deformable_attention(*case)
    assert fake.shape == real.shape == (2, 4, 15) and fake.dtype == real.dtype and fake.stride() == real.stride()


WRONG = {  # the argument, what it is made into, the message
    "rows": ("value", lambda x: x[:, 1:], r"value: expected \(2, 26, 2, 3\), got \(2, 25, 2, 3\) \(levels \[5, 4, 2, 3\]\)"),
    "images": ("value", lambda x: x[:1], r"reference_points: expected \(1, 4, 2, 2\), got \(2, 4, 2, 2\)"),
    "value rank": ("value", lambda x: x[0], r"value: expected 4 dimensions, got \(26, 2, 3\)"),
    "shapes": ("spatial_shapes", lambda x: x[:2], r"value: expected \(2, 20, 2, 3\)"),
    "odd shapes": ("spatial_shapes", lambda x: x[:3], r"spatial_shapes: expected h, w of each level, got \[5, 4, 2\]"),
    "no shapes": ("spatial_shapes", lambda x: [], "spatial_shapes"),
    "a size of zero": ("spatial_shapes", lambda x: [5, 4, 2, 0], "spatial_shapes"),
    "reference": ("reference_points", lambda x: x[:, :, :1], r"reference_points: expected \(2, 4, 2, 2\), got \(2, 4, 1, 2\)"),
    "offsets": ("sampling_offsets", lambda x: x[..., :1, :], r"sampling_offsets: expected \(2, 4, 2, 2, 2, 2\)"),
    "heads": ("attention_logits", lambda x: x[:, :, :1], r"attention_logits: expected \(2, 4, 2, 2, 2\)"),
    "logits rank": ("attention_logits", lambda x: x[0], r"attention_logits: expected 5 dimensions, got \(4, 2, 2, 2\)"),
}


@pytest.mark.parametrize("fake", [False, True], ids=["values", "shapes"])
@pytest.mark.parametrize("wrong", WRONG)
def test_shapes_that_do_not_fit_are_refused(wrong: str, fake: bool):
    name, change, message = WRONG[wrong]
    case = make_case(10)
    case = case._replace(**{name: change(getattr(case, name))})
    if fake:
        with FakeTensorMode() as mode, pytest.raises(ValueError, match=message):
            multi_scale_deformable_attention(*(mode.from_tensor(x) if isinstance(x, Tensor) else x for x in case))
    else:
        with pytest.raises(ValueError, match=message):
            multi_scale_deformable_attention(*case)
