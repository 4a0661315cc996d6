"""How finely somebody's numbers are kept: the dtype that a dump has, or that its numbers give away."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

_SAMPLE = 2**18  # numbers that are looked at
_LEVELS = 256
_TELLING = 24  # different numbers: counts, shares and masks are held exactly by any dtype


@dataclass(frozen=True)
class Rounding:
    """How numbers are rounded.

    Attributes:
        name: "float32", "float16", "bfloat16" or "int8".
        bits: of a float's significand, the leading one included; of an integer.
        step: between quantised numbers; 0 for floats.
        tiny: largest absolute error where floats underflow.
    """

    name: str
    bits: int
    step: float = 0.0
    tiny: float = 2.0**-126

    @property
    def unit(self) -> float:
        """The largest relative error of one rounding; of an integer that of the largest number."""
        return 2.0**-self.bits

    def coarser(self, bits: int) -> Rounding:
        """The same with so many bits less."""
        return replace(self, bits=self.bits - bits, step=self.step * 2**bits, tiny=self.tiny * 2**bits)


FLOAT32 = Rounding("float32", 24)
FLOAT16 = Rounding("float16", 11, tiny=2.0**-25)
BFLOAT16 = Rounding("bfloat16", 8)
_BY_NAME = {"float64": FLOAT32, "float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}


def rounding_of(array: np.ndarray, stored: str) -> Rounding | None:
    """What a tensor was rounded to; None for float32 with too few different numbers to tell.

    Chips' tools often store what was computed in 16 or 8 bits as float32: where every number is one of the narrower dtype, that counts.

    Args:
        array: float32, quantised numbers scaled back.
        stored: its dtype in the dump.
    """
    sample = _sample(array)
    if stored not in _BY_NAME:  # quantised
        return Rounding("int8", 8, _step(sample))
    told = _BY_NAME[stored]
    if told is not FLOAT32:
        return told
    values = np.unique(np.abs(sample))
    if values.size < _TELLING:
        return None
    with np.errstate(over="ignore"):
        if np.array_equal(sample.astype(np.float16).astype(np.float32), sample):
            return FLOAT16
        if np.array_equal(sample.astype(ml_dtypes.bfloat16).astype(np.float32), sample):
            return BFLOAT16
    values = np.unique(sample)
    if values.size <= _LEVELS and sample.size > 16 * _LEVELS:
        step = _step(sample)
        if np.allclose(values / step, np.round(values / step), atol=0.01):
            return Rounding("int8", 8, step)
    return FLOAT32


def coarsest(found: list[Rounding]) -> Rounding:
    """The one with the largest error; float32 of none."""
    return min(found, key=lambda one: one.bits, default=FLOAT32)


def _sample(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    sample = np.asarray(flat[:: max(1, flat.size // _SAMPLE)], np.float32)
    return sample[np.isfinite(sample)]


def _step(sample: np.ndarray) -> float:
    """The smallest gap between two numbers; a 255th of the largest where there are no two."""
    values = np.unique(sample.astype(np.float64))
    gaps = np.diff(values)
    gaps = gaps[gaps > 1e-6 * max(float(np.abs(values).max(initial=0.0)), 1e-30)]
    return float(gaps.min()) if gaps.size else float(np.abs(sample).max(initial=0.0)) / 127.5
