"""Max, Min, Clip and Relu of integers: Max, Min and Clip know floats only below opset 12, Relu below 14.

max(a, b) = where(a > b, a, b), min(a, b) = where(a < b, a, b), from left to right where there are more than two;
clip(x, lo, hi) = min(max(x, lo), hi), in this order, as ONNX says for lo > hi; relu(x) = max(x, 0).
Greater, Less and Where know integers at opset 9. There is no NaN to think of.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .site import Shape, Site, sites, static_shape

PICKS = {"Max": "Greater", "Min": "Less"}


def _integer(site: Site) -> bool:
    dtype = site.required(0).dtype
    return dtype is not None and dtype.is_integer()


def _joint(*values: ir.Value) -> Shape | None:
    shapes = [shape for shape in map(static_shape, values) if shape is not None]
    return np.broadcast_shapes(*shapes) if len(shapes) == len(values) else None


def _fold(site: Site, steps: list[tuple[str, ir.Value]], first: ir.Value) -> None:
    """`first`, then for each step (Max or Min, other value) one Where; the node becomes the last of them."""
    result = first
    for number, (op, other) in enumerate(steps, start=1):
        shape = _joint(result, other)
        suffix = op.lower() if len(steps) == 1 else f"{op.lower()}_{number}"
        chosen = site.before(f"{suffix}_mask", PICKS[op], [result, other], dtype=ir.DataType.BOOL, shape=shape)
        if number == len(steps):
            site.become("Where", [chosen, result, other])
        else:
            result = site.before(suffix, "Where", [chosen, result, other], dtype=first.dtype, shape=shape)
    if not steps:
        site.become("Identity", [first])


def lower_integer_min_max(model: ir.Model) -> int:
    """Max and Min of integers, opset 12 → 11, in place. Returns the number of nodes rewritten."""
    count = 0
    for site in sites(model, *PICKS):
        if _integer(site):
            _fold(site, [(site.node.op_type, value) for value in site.node.inputs[1:] if value is not None], site.required(0))
            count += 1
    return count


def lower_integer_clip(model: ir.Model) -> int:
    """Clip of integers, opset 12 → 11, in place. Returns the number of nodes rewritten."""
    count = 0
    for site in sites(model, "Clip"):
        if _integer(site):
            bounds = (("Max", site.input(1)), ("Min", site.input(2)))
            _fold(site, [(op, bound) for op, bound in bounds if bound is not None], site.required(0))
            count += 1
    return count


def lower_integer_relu(model: ir.Model) -> int:
    """Relu of integers, opset 14 → 13: Max with 0, in place. Returns the number of nodes rewritten."""
    count = 0
    for site in sites(model, "Relu"):
        x = site.required(0)
        if x.dtype is not None and _integer(site):
            site.become("Max", [x, site.scalar("zero", 0, x.dtype)])
            count += 1
    return count
