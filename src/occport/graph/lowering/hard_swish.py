"""HardSwish appeared at opset 14: x * max(0, min(1, x / 6 + 1 / 2)) = x * HardSigmoid(x), alpha 1/6, beta 1/2."""

from __future__ import annotations

import onnx_ir as ir

from .site import sites, static_shape


def lower_hard_swish(model: ir.Model) -> int:
    """HardSwish → HardSigmoid and Mul, in place. Returns the number of nodes rewritten."""
    count = 0
    for site in sites(model, "HardSwish"):
        x = site.required(0)
        gate = site.before("gate", "HardSigmoid", [x], {"alpha": 1 / 6, "beta": 0.5}, dtype=x.dtype, shape=static_shape(x))
        site.become("Mul", [x, gate])
        count += 1
    return count
