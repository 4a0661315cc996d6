"""The dtypes that a kernel may compute in: how they round."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Precision(NamedTuple):
    """One floating-point dtype."""

    name: str
    unit: float  # unit roundoff: largest relative error of one rounding to nearest
    tiny: float  # largest absolute error where results underflow (with flushing to zero, where hardware is used to do it)


PRECISIONS = {
    "float32": Precision("float32", 2.0**-24, 2.0**-126),
    "float16": Precision("float16", 2.0**-11, 2.0**-25),
    "bfloat16": Precision("bfloat16", 2.0**-8, 2.0**-126),
}


def rounded(values: np.ndarray, precision: Precision) -> np.ndarray:
    """Values as the dtype holds them, in float64; too large ones become infinite."""
    with np.errstate(over="ignore"):
        if precision.name != "bfloat16":
            return values.astype(precision.name).astype(np.float64)
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    # to nearest, ties to even, on the upper half of a float32
    upper = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(values), upper.view(np.float32), values).astype(np.float64)


def from_bfloat16_bits(bits: np.ndarray) -> np.ndarray:
    """float32 from the 16 bits of each bfloat16, given as unsigned 16-bit integers."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def gap(values: np.ndarray, precision: Precision) -> np.ndarray:
    """Half the distance of the dtype's numbers around each value: what rounding to nearest may change it by. 0 stays 0."""
    # a little farther out: the value that is rounded may have crossed a power of two already
    _, exponent = np.frexp(np.abs(values) * (1 + 8 * precision.unit))
    half = np.ldexp(precision.unit, np.maximum(exponent - 1, -1000))
    return np.where(values == 0, 0.0, np.maximum(half, precision.tiny))


def input_gap(values: np.ndarray, precision: Precision) -> np.ndarray:
    """As `gap`, and 0 for values that the dtype holds exactly."""
    return np.where(rounded(values, precision) == values, 0.0, gap(values, precision))
