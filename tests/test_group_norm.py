"""Group normalisation with ReLU: kernel and reference against double precision, in every layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.ops import native
from occport.ops.group_norm import group_norm_relu

ATOL = 2e-6  # of values of about 1


def naive(x: np.ndarray, groups: int, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """In double precision, group by group."""
    out = np.empty(x.shape)
    width = x.shape[1] // groups
    for sample in range(x.shape[0]):
        for group in range(groups):
            own = slice(group * width, (group + 1) * width)
            part = x[sample, own].astype(np.float64)
            scaled = (part - part.mean()) / np.sqrt(part.var() + eps)
            place = (slice(None), *[None] * (x.ndim - 2))
            out[sample, own] = np.maximum(scaled * weight[own][place] + bias[own][place], 0)
    return out


def case(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=generator) * 2 + 3).to(dtype)
    return x, torch.randn(shape[1], generator=generator), torch.randn(shape[1], generator=generator)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 3), st.integers(1, 4), st.integers(1, 5), st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    st.booleans(), st.booleans(), st.sampled_from((torch.float32, torch.bfloat16, torch.float16)),
)  # fmt: skip
def test_against_double_precision(samples, groups, width, size, last, kernels, dtype):
    x, weight, bias = case((samples, groups * width, *size), seed=samples + groups, dtype=dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    want = naive(x.float().numpy(), groups, weight.numpy(), bias.numpy(), 1e-5)
    if kernels:
        got = group_norm_relu(x, groups, weight, bias, 1e-5)
    else:
        with native.switched_off():
            got = group_norm_relu(x, groups, weight, bias, 1e-5)
    assert got.dtype == torch.float32 and got.shape == x.shape
    # a group of equal values has no spread: what is left there is rounding, scaled by 1 / sqrt(eps)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=ATOL if x[:1, :width].numel() > 4 else 5e-4)


def test_a_million_positions_do_not_lose_digits():
    x, weight, bias = case((1, 32, 16, 128, 128), seed=0)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    got = group_norm_relu(x, 16, weight, bias, 1e-5)
    np.testing.assert_allclose(got.numpy(), naive(x.numpy(), 16, weight.numpy(), bias.numpy(), 1e-5), rtol=0, atol=5e-6)


def test_channels_last_stays_and_the_input_is_not_changed():
    x, weight, bias = case((2, 8, 2, 3, 4), seed=1)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    before = x.clone()
    assert group_norm_relu(x, 4, weight, bias, 1e-5).is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(x, before)


@pytest.mark.parametrize("kernels", (True, False))
def test_nan_stays_in_its_group(kernels):
    x, weight, bias = case((1, 8, 2, 3, 4), seed=2)
    x[0, 5, 1, 1, 1] = torch.nan
    if kernels:
        got = group_norm_relu(x, 4, weight, bias, 1e-5)
    else:
        with native.switched_off():
            got = group_norm_relu(x, 4, weight, bias, 1e-5)
    assert got[0, 4:6].isnan().all()
    assert got[0, :4].isfinite().all() and got[0, 6:].isfinite().all()
