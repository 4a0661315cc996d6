"""Shape below opset 15 gives the whole shape: `start` and `end` become a Slice behind it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .site import sites

TO_THE_END = np.iinfo(np.int64).max


def lower_shape_range(model: ir.Model) -> int:
    """Shape with `start` or `end`, opset 15 → 13: Shape and Slice, in place. Returns the number of nodes changed."""
    count = 0
    for site in sites(model, "Shape"):
        if site.attribute("start") is None and site.attribute("end") is None:
            continue
        start, end = site.int_attribute("start", 0), site.int_attribute("end", TO_THE_END)
        x = site.required(0)
        if (start, end) == (0, TO_THE_END):
            site.become("Shape", [x])
        else:
            rank = None if x.shape is None else (len(x.shape),)
            whole = site.before("whole", "Shape", [x], dtype=ir.DataType.INT64, shape=rank)
            bounds = [site.constant(name, np.asarray([place], np.int64)) for name, place in (("start", start), ("end", end), ("axis", 0))]
            site.become("Slice", [whole, *bounds])
        count += 1
    return count
