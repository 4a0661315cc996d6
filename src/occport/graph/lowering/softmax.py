"""Softmax and LogSoftmax: from opset 13 along one axis; before, over everything from `axis` on, flattened to 2-D.

Both are the same where no element lies behind the axis: it is the last one, or all later dimensions are 1. Otherwise the axis is
swapped with the last one before and after; a swap is its own inverse. The default axis changed too (1 → -1), so it is written out.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from .site import sites


def lower_softmax(model: ir.Model) -> int:
    """Softmax and LogSoftmax of opset 13 → 11, in place. Returns the number of nodes changed.

    Errors: ExportError where the axis is not the last and the shape is unknown.
    """
    count = 0
    for site in sites(model, "LogSoftmax", "Softmax"):
        count += 1
        axis = site.int_attribute("axis", -1)
        x = site.required(0)
        if x.shape is None and axis == -1:
            site.become(site.node.op_type, [x], {"axis": -1})
            continue
        shape = site.shape(0, "to know what lies behind the axis")
        rank = len(shape)
        axis %= max(rank, 1)
        if prod(shape[axis + 1 :]) == 1:
            site.become(site.node.op_type, [x], {"axis": axis})
            continue
        perm = list(range(rank))
        perm[axis], perm[-1] = perm[-1], perm[axis]
        swapped = tuple(shape[place] for place in perm)
        front = site.before("transposed", "Transpose", [x], {"perm": perm}, dtype=x.dtype, shape=swapped)
        soft = site.before("last_axis", site.node.op_type, [front], {"axis": rank - 1}, dtype=x.dtype, shape=swapped)
        site.become("Transpose", [soft], {"perm": perm})
    return count
