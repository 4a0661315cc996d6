"""Modulated deformable convolution equals the original's kernel and a loop over single pixels, forwards and backwards."""

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

from occport.ops.deform_conv import deform_conv2d
from reference import load_case


class Case(NamedTuple):
    """Arguments of the operator, in its order."""

    input: Tensor
    offset: Tensor
    mask: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    deform_groups: int


def make_case(
    seed: int,
    *,
    images: int = 2,
    per_group: tuple[int, int] = (2, 3),
    hw: tuple[int, int] = (5, 4),
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
    bias: bool = True,
) -> Case:
    """A random case in float64. `per_group`: input and output channels of each of groups * deform_groups parts."""
    rng = np.random.default_rng(seed)
    parts = math.lcm(groups, deform_groups)
    channels, num_out = per_group[0] * parts, per_group[1] * groups
    Ho, Wo = (
        (size + 2 * pad - gap * (taps - 1) - 1) // step + 1
        for size, pad, gap, taps, step in zip(hw, padding, dilation, kernel, stride, strict=True)
    )
    T = kernel[0] * kernel[1]
    offset = rng.normal(0, 2, (images, deform_groups * 2 * T, Ho, Wo))
    # whole pixels, where a corner's share is zero, and places far outside
    offset = np.where(rng.random(offset.shape) < 0.2, offset.round(), offset) * np.where(rng.random(offset.shape) < 0.1, 1000, 1)
    arrays = (
        rng.normal(size=(images, channels, *hw)),
        offset,
        rng.random((images, deform_groups * T, Ho, Wo)),
        rng.normal(size=(num_out, channels // groups, *kernel)),
    )
    tensors = [torch.from_numpy(array) for array in arrays]
    added = torch.from_numpy(rng.normal(size=num_out)) if bias else None
    return Case(*tensors, added, list(stride), list(padding), list(dilation), groups, deform_groups)


def pixel(image: np.ndarray, y: float, x: float) -> float:
    """Bilinear value of (H, W) at row y, column x; every corner outside counts as zero."""
    top, left = math.floor(y), math.floor(x)
    total = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += float(image[row, column]) * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def by_loops(case: Case) -> np.ndarray:
    """The definition, output pixel by output pixel, in float64."""
    x, offset, mask, weight = (tensor.detach().double().numpy() for tensor in case[:4])
    A, C = x.shape[:2]
    num_out, per_group, kh, kw = weight.shape
    Ho, Wo = mask.shape[2:]
    T = kh * kw
    out = np.zeros((A, num_out, Ho, Wo))
    for a, c, i, j, ho, wo in np.ndindex(A, C, kh, kw, Ho, Wo):
        tap, part = i * kw + j, c // (C // case.deform_groups)
        y = ho * case.stride[0] - case.padding[0] + i * case.dilation[0] + offset[a, part * 2 * T + 2 * tap, ho, wo]
        u = wo * case.stride[1] - case.padding[1] + j * case.dilation[1] + offset[a, part * 2 * T + 2 * tap + 1, ho, wo]
        sample = pixel(x[a, c], y, u) * mask[a, part * T + tap, ho, wo]
        group = c // per_group
        for o in range(group * (num_out // case.groups), (group + 1) * (num_out // case.groups)):
            out[a, o, ho, wo] += weight[o, c % per_group, i, j] * sample
    return out if case.bias is None else out + case.bias.detach().double().numpy()[:, None, None]


@pytest.mark.parametrize(("prefix", "stride"), [("dcn", 1), ("dcn2", 2)])
def test_the_kernel_of_the_original(prefix: str, stride: int):
    data = load_case("ops_ref")
    tensors = [torch.from_numpy(data[f"{prefix}_{name}"]) for name in ("x", "offset", "mask", "w")]
    out = deform_conv2d(*tensors, None, [stride, stride], [1, 1], [1, 1], 1, 1)
    assert out.dtype == torch.float32 and out.is_contiguous()
    np.testing.assert_allclose(out, data[f"{prefix}_out"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(out, by_loops(Case(*tensors, None, [stride] * 2, [1, 1], [1, 1], 1, 1)), rtol=0, atol=1e-5)


@st.composite
def cases(draw: Any) -> Case:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, dilation = draw(pair), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    smallest = [max(1, gap * (taps - 1) + 1 - 2 * pad) for gap, taps, pad in zip(dilation, kernel, padding, strict=True)]
    return make_case(
        draw(st.integers(0, 10**6)),
        images=draw(st.integers(0, 2)),
        per_group=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        hw=(smallest[0] + draw(st.integers(0, 3)), smallest[1] + draw(st.integers(0, 3))),
        kernel=kernel,
        stride=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding=padding,
        dilation=dilation,
        groups=draw(st.integers(1, 3)),
        deform_groups=draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=40)
@given(cases())
def test_a_loop_over_single_pixels(case: Case):
    np.testing.assert_allclose(deform_conv2d(*case), by_loops(case), rtol=1e-9, atol=1e-9)


def test_without_offsets_it_is_a_convolution():
    case = make_case(1, hw=(7, 6), groups=2, stride=(2, 1), padding=(2, 0), dilation=(1, 2))
    case = case._replace(offset=torch.zeros_like(case.offset), mask=torch.ones_like(case.mask))
    plain = torch.nn.functional.conv2d(case.input, case.weight, case.bias, case.stride, case.padding, case.dilation, case.groups)
    torch.testing.assert_close(deform_conv2d(*case), plain)


def test_the_first_offset_channel_moves_down():
    case = make_case(2, images=1, per_group=(1, 1), hw=(6, 6), kernel=(1, 1), padding=(0, 0), bias=False)
    offset = torch.zeros_like(case.offset)
    offset[:, 0] = 1
    out = deform_conv2d(*case._replace(offset=offset, mask=torch.ones_like(case.mask), weight=torch.ones(1, 1, 1, 1).double()))
    torch.testing.assert_close(out[..., :-1, :], case.input[..., 1:, :])
    assert not out[..., -1, :].any()


@pytest.mark.parametrize("deform_groups", [1, 2])
def test_parts_of_a_larger_tensor(deform_groups: int):
    """The backbone cuts offset and mask out of one convolution's output: neither is contiguous."""
    case = make_case(3, deform_groups=deform_groups)
    joined = torch.cat([case.offset, case.mask], dim=1)
    offset, mask = joined.split([case.offset.shape[1], case.mask.shape[1]], dim=1)
    spread = case._replace(
        input=case.input.contiguous(memory_format=torch.channels_last), offset=offset, mask=mask,
        weight=case.weight.transpose(2, 3).contiguous().transpose(2, 3),
    )  # fmt: skip
    assert not any(tensor.is_contiguous() for tensor in spread[:4])
    torch.testing.assert_close(deform_conv2d(*spread), deform_conv2d(*case), rtol=0, atol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(groups: int, bias: bool):
    case = make_case(4, images=1, per_group=(1, 1), hw=(3, 4), groups=groups, deform_groups=groups, bias=bias)
    rng = np.random.default_rng(4)  # away from whole pixels, where the bilinear value has a kink
    case = case._replace(offset=torch.from_numpy(rng.integers(-2, 3, case.offset.shape) + rng.uniform(0.2, 0.8, case.offset.shape)))
    tensors = [tensor.requires_grad_() for tensor in case[:5] if tensor is not None]
    attributes = case[5:]

    def operator(*given: Tensor) -> Tensor:
        return deform_conv2d(*given, *([] if bias else [None]), *attributes)

    assert torch.autograd.gradcheck(operator, tensors)


@pytest.mark.parametrize("wanted", ["input", "offset", "mask", "weight", "bias"])
def test_a_gradient_that_is_wanted_alone(wanted: str):
    case = make_case(5)
    every = case._replace(**{name: getattr(case, name).clone().requires_grad_() for name in Case._fields[:5]})
    alone = case._replace(**{wanted: getattr(case, wanted).clone().requires_grad_()})
    deform_conv2d(*every).square().sum().backward()
    deform_conv2d(*alone).square().sum().backward()
    assert getattr(every, wanted).grad.abs().sum() > 0
    torch.testing.assert_close(getattr(alone, wanted).grad, getattr(every, wanted).grad)


@pytest.mark.parametrize("bias", [False, True])
def test_what_torch_asks_of_an_operator(bias: bool):
    case = make_case(6, stride=(2, 1), deform_groups=2, bias=bias)
    tensors = [None if tensor is None else tensor.requires_grad_() for tensor in case[:5]]
    torch.library.opcheck(deform_conv2d, (*tensors, *case[5:]))


def test_shapes_without_values():
    case = make_case(7, stride=(2, 1), padding=(2, 0), dilation=(2, 1), hw=(9, 8), groups=3, deform_groups=2)
    with FakeTensorMode() as mode:
        fake = deform_conv2d(*[mode.from_tensor(tensor) for tensor in case[:5]], *case[5:])
    real = deform_conv2d(*case)
    assert fake.shape == real.shape and fake.dtype == real.dtype and fake.stride() == real.stride()


WRONG = {
    "offset": (lambda case: case._replace(offset=case.offset[:, :-1]), r"offset: expected \(2, 18, 5, 4\), got \(2, 17, 5, 4\)"),
    "offset size": (lambda case: case._replace(offset=case.offset[..., 1:]), r"offset: expected \(2, 18, 5, 4\), got \(2, 18, 5, 3\)"),
    "mask": (lambda case: case._replace(mask=case.mask[:1]), r"mask: expected \(2, 9, 5, 4\), got \(1, 9, 5, 4\)"),
    "weight": (lambda case: case._replace(weight=case.weight[:, 1:]), r"2 input and 3 output channels, weight \(3, 1, 3, 3\)"),
    "bias": (lambda case: case._replace(bias=case.bias[1:]), r"bias: expected \(3,\), got \(2,\)"),
    "groups": (lambda case: case._replace(groups=2), "groups 2"),
    "no groups": (lambda case: case._replace(groups=0), "groups"),
    "deform_groups": (lambda case: case._replace(deform_groups=3), "deform_groups 3"),
    "stride": (lambda case: case._replace(stride=[2, 2]), r"offset: expected \(2, 18, 3, 2\), got \(2, 18, 5, 4\)"),
    "one stride": (lambda case: case._replace(stride=[1]), "stride"),
    "no stride": (lambda case: case._replace(stride=[0, 1]), "stride"),
    "dilation": (lambda case: case._replace(dilation=[1, 0]), "dilation"),
    "padding": (lambda case: case._replace(padding=[-1, 1]), "padding"),
    "input rank": (lambda case: case._replace(input=case.input[0]), "input"),
    "weight rank": (lambda case: case._replace(weight=case.weight[0]), "weight"),
}  # fmt: skip


@pytest.mark.parametrize("fake", [False, True], ids=["values", "shapes"])
@pytest.mark.parametrize("wrong", WRONG)
def test_shapes_that_do_not_fit_are_refused(wrong: str, fake: bool):
    change, message = WRONG[wrong]
    case = change(make_case(8))
    if fake:
        with FakeTensorMode() as mode, pytest.raises(ValueError, match=message):
            deform_conv2d(*[mode.from_tensor(tensor) for tensor in case[:5]], *case[5:])
    else:
        with pytest.raises(ValueError, match=message):
            deform_conv2d(*case)
