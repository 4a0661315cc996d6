"""Constant below opset 12 knows no `value_int`, `value_ints`, `value_float(s)`, only a tensor `value` (or a sparse one).

`value_int = 3` is the rank-0 int64 tensor 3, `value_floats = [a, b]` the rank-1 float tensor (a, b): the same numbers, spelled as a tensor.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import constant_array, sites

SHORT_FORMS = ("value_int", "value_ints", "value_float", "value_floats")


def lower_constant_value(model: ir.Model) -> int:
    """Spells the number attributes of Constant as `value`, in place. Returns the number of nodes changed."""
    count = 0
    for site in sites(model, "Constant"):
        short = [name for name in SHORT_FORMS if site.attribute(name) is not None]
        if short:
            array = constant_array(site.node.outputs[0])
            assert array is not None, "a Constant with a number attribute has numbers"
            del site.node.attributes[short[0]]
            site.node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array))
            count += 1
    return count
