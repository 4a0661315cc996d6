"""GreaterOrEqual and LessOrEqual appeared at opset 12.

Integers: a >= b is not (a < b), and a <= b is not (a > b). Floats: that would be true for NaN, where the comparison is false;
a >= b is (a > b) or (a == b). A value of unknown type (in a function body) is taken for a float.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import sites, static_shape

# operator → (its strict form, the strict form of its opposite)
PARTS = {"GreaterOrEqual": ("Greater", "Less"), "LessOrEqual": ("Less", "Greater")}


def lower_or_equal(model: ir.Model) -> int:
    """GreaterOrEqual, LessOrEqual of opset 12 → 11: two nodes for integers, three for floats, in place. Returns how many were rewritten."""
    count = 0
    for site in sites(model, *PARTS):
        strict, opposite = PARTS[site.node.op_type]
        pair = [site.required(0), site.required(1)]
        shape = static_shape(site.node.outputs[0])
        if pair[0].dtype is not None and pair[0].dtype.is_integer():
            other = site.before(opposite.lower(), opposite, pair, dtype=ir.DataType.BOOL, shape=shape)
            site.become("Not", [other])
        else:
            first = site.before(strict.lower(), strict, pair, dtype=ir.DataType.BOOL, shape=shape)
            equal = site.before("equal", "Equal", pair, dtype=ir.DataType.BOOL, shape=shape)
            site.become("Or", [first, equal])
        count += 1
    return count
