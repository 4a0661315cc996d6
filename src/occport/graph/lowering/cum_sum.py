"""CumSum knows half precision from opset 14 on; before, it runs in float32 between two casts.

Sums in float32 are rounded once at the end, so the result is at least as close to the true sum.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import sites, static_shape

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def lower_half_cum_sum(model: ir.Model) -> int:
    """CumSum of float16 or bfloat16, opset 14 → 13, in place. Returns the number of nodes rewritten."""
    count = 0
    for site in sites(model, "CumSum"):
        x = site.required(0)
        if x.dtype not in HALVES or x.dtype is None:
            continue
        shape, wide = static_shape(x), ir.DataType.FLOAT
        flags = {name: site.int_attribute(name, 0) for name in ("exclusive", "reverse")}
        single = site.before("single", "Cast", [x], {"to": wide.value}, dtype=wide, shape=shape)
        total = site.before("total", "CumSum", [single, site.required(1)], flags, dtype=wide, shape=shape)
        site.become("Cast", [total], {"to": x.dtype.value})
        count += 1
    return count
