"""Rows against their own noise: one bad row is found, noise of any shape is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.bringup.diff.rounding import BFLOAT16, FLOAT16, FLOAT32, coarsest, rounding_of
from occport.bringup.diff.significance import Sums

UNIT = 2.0**-11


def judged(difference, signal, noise, draws=10, gain=1.0):
    sums = Sums(difference, signal, 2.0**-25, UNIT)
    for number in range(draws):
        sums.add(noise(np.random.default_rng(100 + number)))
    return sums.worst(gain)


def signal_of(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), shape=st.sampled_from([(4, 6, 5, 7), (3, 50, 8), (200, 4), (40, 1), (1, 8, 2, 5, 6), (7,)]))
def test_noise_like_the_noise_is_explained(seed, shape):
    signal = signal_of(seed, shape)

    def noise(random):
        return (signal * UNIT * random.uniform(-1, 1, shape)).astype(np.float32)

    assert judged(noise(np.random.default_rng(seed + 5000)), signal, noise).ratio < 1


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000))
def test_noise_with_a_cause_of_its_own_in_each_channel_is_explained(seed):
    """One rounded weight moves a whole channel: its rows have one degree of freedom, not a thousand."""
    shape = (2, 16, 20, 20)
    signal = np.abs(signal_of(seed, shape))

    def noise(random):
        return (signal * UNIT * random.standard_normal((1, 16, 1, 1))).astype(np.float32)

    assert judged(noise(np.random.default_rng(seed + 5000)), signal, noise).ratio < 1


@pytest.mark.parametrize(("place", "kept"), [((slice(None), 5), (1,)), ((2,), (0,)), ((1, slice(None), 3, 4), (0, 2, 3))])
def test_a_bad_row_is_found_and_named(place, kept):
    signal = signal_of(0, (4, 16, 8, 9))

    def noise(random):
        return (signal * UNIT * random.uniform(-1, 1, signal.shape)).astype(np.float32)

    difference = noise(np.random.default_rng(77))
    difference[place] += 0.3 * signal[place]
    worst = judged(difference, signal, noise)
    assert worst.ratio > 3 and worst.kept == kept
    row = worst.rows[0]
    assert tuple(row) == tuple(part for part in place if isinstance(part, int))


def test_a_kernel_that_is_worse_everywhere_may_be_as_long_as_its_sums_explain_it():
    signal = signal_of(1, (4, 16, 8, 9))

    def noise(random):
        return (signal * UNIT * random.uniform(-1, 1, signal.shape)).astype(np.float32)

    difference = 6 * noise(np.random.default_rng(3))
    assert judged(difference, signal, noise, gain=8.0).ratio < 1
    assert judged(difference, signal, noise, gain=1.0).ratio > 1


def test_rounding_tells_the_dtype_that_numbers_have():
    numbers = signal_of(2, (1000,))
    assert rounding_of(numbers, "float32") is FLOAT32
    assert rounding_of(numbers.astype(np.float16).astype(np.float32), "float32") is FLOAT16
    assert rounding_of(numbers, "bfloat16") is BFLOAT16
    assert rounding_of(np.zeros(1000, np.float32), "float32") is None  # held by any dtype
    step = 0.03
    quantised = (np.clip(np.round(signal_of(3, (8000,)) / step), -127, 127) * step).astype(np.float32)
    for stored in ("int8", "float32"):
        found = rounding_of(quantised, stored)
        assert found is not None and found.name == "int8" and found.step == pytest.approx(step, rel=1e-3)
    assert coarsest([FLOAT32, FLOAT16, BFLOAT16]) is BFLOAT16 and coarsest([]) is FLOAT32
