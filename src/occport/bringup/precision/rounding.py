"""A 16-bit type by its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...graph.precision.types import PRECISIONS


@dataclass(frozen=True)
class Low:
    """A 16-bit floating-point type.

    Attributes:
        name: "fp16" or "bf16".
        dtype: NumPy's.
        largest: finite number.
        roundoff: largest relative error of a rounding.
        smallest: number with all its bits.
        least: number above 0.
    """

    name: str
    dtype: np.dtype
    largest: float
    roundoff: float
    smallest: float
    least: float

    def rounded(self, array: NDArray[np.floating]) -> NDArray[np.float64]:
        """Numbers as this type would hold them."""
        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(np.float32).astype(self.dtype).astype(np.float64)


def low(name: str) -> Low:
    """The type of a precision of `graph.precision`."""
    precision = PRECISIONS[name]
    smallest, least = (2.0**-14, 2.0**-24) if name == "fp16" else (2.0**-126, 2.0**-133)
    return Low(name, precision.numpy, precision.largest, precision.roundoff, smallest, least)
