"""Deformable attention in standard operators: what each point reads bilinearly, weighted and summed.

Letters: A images, S = sum of h*w, M heads, D head width, Q queries, L levels, P points.
"""

from __future__ import annotations

import onnx_ir as ir

from .body import FORMS, Body

ATTENTION_FORMS = tuple(FORMS["msda"])


def sample_attention(
    b: Body, value: ir.Value, shapes: ir.Value, starts: ir.Value, locations: ir.Value, weights: ir.Value, levels: int, form: str
) -> ir.Value:
    """Multi-scale deformable attention (Zhu et al., "Deformable DETR", ICLR 2021) in its narrow form.

    Args:
        value: (A, S, M, D) float32, levels one after the other, each row-major.
        shapes: (L, 2) int64, (h, w) of each level.
        starts: (L) int64, first of S of each level.
        locations: (A, Q, M, L, P, 2) float32, (x, y) in [0, 1]; location u is pixel u*w - 1/2, outside counts as zero. In the form
            "gather" that holds for 1e9, infinite and NaN locations too; "gridsample" leaves NaN to the runtime.
        weights: (A, Q, M, L, P) float32, already softmaxed.
        levels: L.
        form: one of ATTENTION_FORMS; "gridsample" below opset 16 is ONNX Runtime's own operator.

    Returns:
        (A, Q, M*D) float32.
    """
    assert form in ATTENTION_FORMS, form
    if form == "gather":
        return _gathered(b, value, shapes, starts, locations, weights, levels)
    return _grid_sampled(b, value, shapes, starts, locations, weights, levels)


def _grid_sampled(
    b: Body, value: ir.Value, shapes: ir.Value, starts: ir.Value, locations: ir.Value, weights: ir.Value, levels: int
) -> ir.Value:
    """One GridSample per level."""
    images, queries, points = b.size(value, 0), b.size(locations, 1), b.size(locations, 4)
    maps = b.transpose(value, 0, 2, 3, 1)  # (A, M, D, S)
    grid = b.op("Sub", b.op("Mul", locations, b.constant(2, "float32")), b.constant(1, "float32"))
    total: ir.Value | None = None
    for level in range(levels):
        level_maps, level_grid, level_weights, hw = maps, grid, weights, shapes
        if levels > 1:
            hw = b.op("Slice", shapes, b.constant([level]), b.constant([level + 1]), b.constant([0]))
            start = b.op("Slice", starts, b.constant([level]), b.constant([level + 1]), b.constant([0]))
            area = b.op("Mul", b.op("Gather", b.reshape(hw, 2), b.constant([0])), b.op("Gather", b.reshape(hw, 2), b.constant([1])))
            level_maps = b.op("Slice", maps, start, b.op("Add", start, area), b.constant([3]))
            level_grid = b.op("Slice", grid, b.constant([level]), b.constant([level + 1]), b.constant([3]))
            level_weights = b.op("Slice", weights, b.constant([level]), b.constant([level + 1]), b.constant([3]))
        image = b.reshape(level_maps, -1, b.size(value, 3), b.reshape(hw, 2))  # (A*M, D, h, w)
        where = b.reshape(b.transpose(b.reshape(level_grid, 0, 0, 0, -1, 2), 0, 2, 1, 3, 4), -1, queries, points, 2)
        share = b.reshape(b.transpose(b.reshape(level_weights, 0, 0, 0, -1), 0, 2, 1, 3), -1, 1, queries, points)
        found = b.on_axes("ReduceSum", b.op("Mul", b.grid_sample(image, where), share), [3], {"keepdims": 0})  # (A*M, D, Q)
        total = found if total is None else b.op("Add", total, found)
    assert total is not None
    return b.transpose(b.reshape(total, images, -1, queries), 0, 2, 1)


def _gathered(
    b: Body, value: ir.Value, shapes: ir.Value, starts: ir.Value, locations: ir.Value, weights: ir.Value, levels: int
) -> ir.Value:
    """All levels at once, from a table whose row (a*S + s)*M + m is the value as it lies in memory: it is never transposed.

    L and P are one axis, in front: sizes then change along the outermost axes alone, and nothing has more than five.
    """
    images, positions, heads, width = (b.size(value, axis) for axis in range(4))
    facts = b.op("Concat", shapes, b.reshape(starts, -1, 1), attributes={"axis": 1})  # (L, 3) as h, w, start
    repeated = b.op("Concat", b.constant([levels]), b.size(locations, 4), b.constant([3]), attributes={"axis": 0})
    facts = b.op("Expand", b.reshape(facts, levels, 1, 3), repeated)  # (L, P, 3)
    facts = b.reshape(b.transpose(b.reshape(facts, -1, 3), 1, 0), 3, -1, 1, 1, 1)  # (3, L*P, 1, 1, 1)
    sizes = b.op("Gather", facts, b.constant([1, 0]), attributes={"axis": 0})  # (2, L*P, 1, 1, 1) as w, h
    map_width = b.op("Gather", facts, b.constant([1]), attributes={"axis": 0})
    step = b.op("Div", map_width, map_width)  # ones
    strides = b.op("Mul", b.op("Concat", step, map_width, attributes={"axis": 0}), heads)
    # image a begins at row a*S*M, level l is start*M further down, head m is m further
    image = b.reshape(b.op("Mul", b.count(images), positions), -1, 1, 1)  # (A, 1, 1)
    first = b.op("Add", b.op("Mul", b.op("Add", image, b.pick(facts, 2)), heads), b.count(heads))  # (L*P, A, 1, M)
    where = b.transpose(b.reshape(locations, 0, 0, 0, -1, 2), 4, 3, 0, 1, 2)  # (2, L*P, A, Q, M)
    share = b.transpose(b.reshape(weights, 0, 0, 0, -1), 3, 0, 1, 2)  # (L*P, A, Q, M)
    pixels = b.op("Sub", b.op("Mul", where, b.cast(sizes, ir.DataType.FLOAT)), b.constant(0.5, "float32"))
    table = b.reshape(value, -1, width)
    found = b.gather_bilinear(table, pixels, sizes, strides, first, share)  # (L*P, A, Q, M, D)
    return b.reshape(b.on_axes("ReduceSum", found, [0], {"keepdims": 0}), 0, 0, -1)
