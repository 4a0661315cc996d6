"""What 16 bits do to the weights of a file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .hazard import Hazard
from .rounding import Low
from .tensors import Place, not_finite, range_of

_SHARE = 0.01  # of the weights other than 0 that is worth more than a look
_MOST = 0.5


def of_weights(place: Place, array: np.ndarray, low: Low) -> Iterator[Hazard]:
    """Weights that are not finite, beyond the largest number, 0 afterwards, or subnormal.

    Args:
        place: the weight, and the node that reads it.
        array: float32, any shape but an empty one.
    """
    found = range_of(array)
    if found.infinite or found.nan:
        yield not_finite(place, array.size, found)
    if found.largest > low.largest:
        words = f"up to {found.largest:,.6g}, beyond {low.largest:,.0f}"
        yield Hazard("weight overflow", "breaks", *place, found.low, found.high, words, {"largest": found.largest})
    size = np.abs(array)
    there = int(np.count_nonzero(size))
    gone = int(np.count_nonzero((size > 0) & (size <= low.least / 2)))
    small = int(np.count_nonzero((size > 0) & (size < low.smallest)))
    zero, subnormal = gone / max(there, 1), small / max(there, 1)
    if array.size == 1:
        subnormal = zero  # a single small number is an epsilon or a bound, which few bits serve as well
    if not gone and subnormal <= _SHARE:
        return
    lose = f"{small:,} ({subnormal:.1%}) are below {low.smallest:.2g} and lose bits; a chip may make those 0, too"
    words = f"{gone:,} of {there:,} weights other than 0 become 0 ({zero:.1%})" + (f", {lose}" if subnormal > _SHARE else "")
    severity = "breaks" if zero > _MOST else "loses" if zero > _SHARE or subnormal > _MOST else "watch"
    yield Hazard("weight underflow", severity, *place, found.low, found.high, words, {"zero": zero, "subnormal": subnormal})
