"""The native kernel of the deformable convolution equals a loop over single pixels and the reference, on wild inputs too."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from occport.ops import deform_conv, native
from occport.ops.deform_conv import deform_conv2d
from test_deform_conv import Case, cases, make_case

WILD = [1e9, -1e9, 3e38, -3e38, math.inf, -math.inf, math.nan, 0.0, -0.5, 0.5, -1.0, 1.0]
FORMATS = ["contiguous", "channels_last", "strided"]


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    if native.find().library is None:
        pytest.skip(native.status())


def by_loops(case: Case) -> np.ndarray:
    """The definition in float64: every neighbour on its own, positions that are infinite or nan outside."""
    x, offset, mask, weight = (tensor.detach().double().numpy() for tensor in case[:4])
    (A, C, H, W), (num_out, per_group, kh, kw), (Ho, Wo) = x.shape, weight.shape, mask.shape[2:]
    T, G = kh * kw, case.deform_groups
    out = np.zeros((A, num_out, Ho, Wo)) if case.bias is None else np.tile(case.bias.double().numpy()[:, None, None], (A, 1, Ho, Wo))
    for a, g, i, j, ho, wo in np.ndindex(A, G, kh, kw, Ho, Wo):
        tap = g * T + i * kw + j
        y = ho * case.stride[0] - case.padding[0] + i * case.dilation[0] + offset[a, 2 * tap, ho, wo]
        u = wo * case.stride[1] - case.padding[1] + j * case.dilation[1] + offset[a, 2 * tap + 1, ho, wo]
        sample = np.zeros(C // G)
        if -1 < y < H and -1 < u < W:
            for row, column in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(u), math.floor(u) + 1)):
                if 0 <= row < H and 0 <= column < W:
                    share = (1 - abs(y - row)) * (1 - abs(u - column))
                    sample += share * x[a, g * (C // G) : (g + 1) * (C // G), row, column]
        sample *= mask[a, tap, ho, wo]
        for channel, value in enumerate(sample, start=g * (C // G)):
            group = channel // per_group
            outs = slice(group * (num_out // case.groups), (group + 1) * (num_out // case.groups))
            out[a, outs, ho, wo] += weight[outs, channel % per_group, i, j] * value
    return out


def magnitude(case: Case) -> np.ndarray:
    """What the products add up to without their signs: what a rounding error is relative to."""
    bias = None if case.bias is None else case.bias.abs()
    return by_loops(case._replace(input=case.input.abs(), mask=case.mask.abs(), weight=case.weight.abs(), bias=bias))


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), math.nan, dtype=tensor.dtype)
        wide[..., 1::2] = tensor
        return wide[..., 1::2]
    return tensor.contiguous()


def converted(case: Case, dtype: torch.dtype, positions: torch.dtype, layouts: list[str]) -> Case:
    """Input, weight and bias in one dtype, offset and mask in another; a layout for each of the four."""
    types = (dtype, positions, positions, dtype)
    tensors = [laid_out(tensor.to(kind), layout) for tensor, kind, layout in zip(case[:4], types, layouts, strict=True)]
    return Case(*tensors, None if case.bias is None else case.bias.to(dtype), *case[5:])


@st.composite
def wild_cases(draw: Any, dtype: torch.dtype) -> Case:
    case = draw(cases())
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    offset = case.offset.numpy()
    offset = np.where(rng.random(offset.shape) < draw(st.sampled_from([0.0, 0.2, 1.0])), rng.choice(WILD, offset.shape), offset)
    layouts = [draw(st.sampled_from(FORMATS)) for _ in range(4)]
    return converted(case._replace(offset=torch.from_numpy(offset)), dtype, draw(st.sampled_from([dtype, torch.float32])), layouts)


@settings(deadline=None, max_examples=60)
@given(wild_cases(torch.float32), st.integers(1, 9))
def test_float32_on_wild_inputs(case: Case, rows: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deform_conv, "TILE_ROWS", rows)
        out = deform_conv2d(*case)
    allowed = 1e-6 * magnitude(case) + 1e-30
    assert (abs(out.double().numpy() - by_loops(case)) <= 4 * allowed).all()
    with native.switched_off():
        reference = deform_conv2d(*case)
    assert reference.stride() == out.stride()
    torch.testing.assert_close(out, reference, rtol=1e-4, atol=1e-4)  # grid_sample rounds positions


@settings(deadline=None, max_examples=60)
@given(wild_cases(torch.bfloat16))
def test_bfloat16_on_wild_inputs(case: Case):
    wanted, allowed = by_loops(case), magnitude(case) * 2**-7  # a column and the sum are rounded to 8 bits each
    out = deform_conv2d(*case)
    assert out.dtype == torch.bfloat16
    assert (abs(out.double().numpy() - wanted) <= 1.1 * allowed + 1e-30).all()
    with native.switched_off():
        reference = deform_conv2d(*case).double().numpy()
    assert (abs(reference - wanted) <= 1.1 * allowed + 1e-4).all()


@pytest.mark.parametrize(("channels", "groups", "deform_groups"), [(1, 1, 1), (33, 1, 1), (64, 4, 2), (48, 2, 3), (30, 5, 1), (36, 1, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_widths_and_groups(channels: int, groups: int, deform_groups: int, dtype: torch.dtype):
    parts = math.lcm(groups, deform_groups)
    case = make_case(9, images=1, per_group=(channels // parts, 2), hw=(4, 3), groups=groups, deform_groups=deform_groups)
    assert case.input.shape[1] == channels
    case = converted(case, dtype, dtype, ["channels_last"] * 4)
    allowed = magnitude(case) * (4e-6 if dtype == torch.float32 else 1.1 * 2**-7)
    assert (abs(deform_conv2d(*case).double().numpy() - by_loops(case)) <= allowed).all()


@pytest.mark.parametrize("empty", ["A", "C", "H", "W", "HW", "O"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sizes_of_zero(empty: str, dtype: torch.dtype):
    case = make_case(10, images=0 if empty == "A" else 1, hw=(0 if "H" in empty else 2, 0 if "W" in empty else 2), padding=(2, 2))
    if empty == "C":
        case = case._replace(input=case.input[:, :0], weight=case.weight[:, :0])
    if empty == "O":
        case = case._replace(weight=case.weight[:0], bias=case.bias[:0])
    case = converted(case, dtype, dtype, ["contiguous"] * 4)
    out = deform_conv2d(*case)
    assert out.dtype == dtype
    np.testing.assert_allclose(out.double().numpy(), by_loops(case), rtol=0, atol=1e-6)
    tensors = [tensor.requires_grad_() for tensor in case[:5]]
    deform_conv2d(*tensors, *case[5:]).sum().backward()
    assert [tensor.grad.shape for tensor in tensors] == [tensor.shape for tensor in tensors]


@pytest.mark.parametrize("on", [True, False], ids=["kernel", "reference"])
def test_a_mask_that_is_no_number_stays_so(on: bool, monkeypatch):
    monkeypatch.setenv("OCCPORT_KERNELS", "on" if on else "off")
    case = converted(make_case(11, images=1, kernel=(1, 1), padding=(0, 0)), torch.float32, torch.float32, ["contiguous"] * 4)
    plain = deform_conv2d(*case)
    mask, offset = case.mask.clone(), case.offset.clone()
    mask[0, 0, 1, 1] = math.nan
    mask[0, 0, 2, 2], offset[0, 0, 2, 2] = math.inf, 1e9  # infinite times the zero outside
    out = deform_conv2d(*case._replace(mask=mask, offset=offset))
    broken = torch.zeros(out.shape, dtype=torch.bool)
    broken[:, :, 1, 1] = broken[:, :, 2, 2] = True
    assert torch.equal(out.isnan(), broken) and torch.equal(out[~broken], plain[~broken])


@pytest.mark.parametrize("on", [True, False], ids=["kernel", "reference"])
def test_an_infinite_pixel_at_the_border_stays_infinite(on: bool, monkeypatch):
    """Outside, nothing is read, not even times zero."""
    monkeypatch.setenv("OCCPORT_KERNELS", "on" if on else "off")
    image = torch.zeros(1, 1, 2, 2).index_put((torch.tensor(0),) * 4, torch.tensor(math.inf))
    for down, right in ((-0.5, 0.0), (-0.5, -0.5), (0.0, -0.75)):
        offset = torch.tensor([down, right]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
        out = deform_conv2d(image, offset, torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1), None, [1, 1], [0, 0], [1, 1], 1, 1)
        assert out[0, 0, 0, 0] == math.inf if down and right else not out[0, 0, 0, 0].isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_a_precision_is_not_for_positions(dtype: torch.dtype):
    """At column 300 a bfloat16 position would be off by up to a pixel; a ramp shows where the reference really looked."""
    ramp = (torch.arange(320) % 8).to(dtype).expand(1, 1, 1, 320)
    offset = torch.tensor([0.0, 0.25]).view(1, 2, 1, 1).expand(1, 2, 1, 320).to(dtype)
    out = deform_conv.reference(ramp, offset, torch.ones(1, 1, 1, 320, dtype=dtype), torch.ones(1, 1, 1, 1, dtype=dtype), None, [1] * 2,
                                [0] * 2, [1] * 2, 1, 1)  # fmt: skip
    wanted = torch.where(torch.arange(320) % 8 < 7, torch.arange(320) % 8 + 0.25, 5.25)[:-1]
    torch.testing.assert_close(out[0, 0, 0, :-1].float(), wanted, rtol=0, atol=2**-5)


@pytest.mark.parametrize("on", [True, False], ids=["kernel", "reference"])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_output_lies_as_the_input_does(dtype: torch.dtype, layout: str, on: bool, monkeypatch):
    monkeypatch.setenv("OCCPORT_KERNELS", "on" if on else "off")
    case = converted(make_case(12, stride=(2, 1)), dtype, torch.float32, [layout, "contiguous", "contiguous", "contiguous"])
    real = deform_conv2d(*case)
    wanted = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert real.is_contiguous(memory_format=wanted)
    with FakeTensorMode() as mode:
        fake = deform_conv2d(*[mode.from_tensor(tensor) for tensor in case[:5]], *case[5:])
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_what_torch_asks_of_an_operator(dtype: torch.dtype, layout: str):
    case = converted(make_case(13, deform_groups=2), dtype, dtype, [layout] * 4)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(deform_conv2d, tuple(case), test_utils=tests)


def test_gradients_are_the_reference_s():
    case = converted(make_case(14, deform_groups=2), torch.float32, torch.float32, ["channels_last"] * 4)
    found = []
    for called in (deform_conv2d, deform_conv.reference):
        tensors = [tensor.clone().requires_grad_() for tensor in case[:5]]
        called(*tensors, *case[5:]).sum().backward()
        found.append([tensor.grad for tensor in tensors])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_who_runs_where(monkeypatch):
    def refuse(*_: Any) -> Tensor:
        raise LookupError("the reference ran")

    case = make_case(15)
    monkeypatch.setattr(deform_conv, "reference", refuse)
    for dtype in (torch.float32, torch.bfloat16):
        deform_conv2d(*converted(case, dtype, torch.float32, ["contiguous"] * 4))
    for dtype in (torch.float64, torch.float16):
        with pytest.raises(LookupError):
            deform_conv2d(*converted(case, dtype, torch.float32, ["contiguous"] * 4))
    with native.switched_off(), pytest.raises(LookupError):
        deform_conv2d(*converted(case, torch.float32, torch.float32, ["contiguous"] * 4))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_dtypes_that_do_not_fit_are_refused(name: str):
    case = make_case(16)
    case = case._replace(**{name: getattr(case, name).float()})
    with pytest.raises(ValueError, match=rf"deform_conv2d: {name}: expected the input's dtype, torch.float64, got torch.float32"):
        deform_conv2d(*case)
