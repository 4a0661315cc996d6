"""From locations and softmaxed weights back to what they were made of, where it stands directly in front.

    weights   = Softmax(logits) over the levels and points of a head
    locations = reference + offsets / (w, h)

Both are recognised through reshapes, as exporters write them in many ranks. Where something stands in between (a Gather, a mask),
there is no way back, and None is the answer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..arithmetic import constant_of, shape_of
from .retracing import Retracing, made_by

_ONE_AXIS_SOFTMAX = 13  # opset; before it, Softmax went over all axes from `axis` on
_TOLERANCE = 1e-6  # of a map size that an exporter wrote as a reciprocal


class Around(NamedTuple):
    """What stands in front of the locations of one node."""

    reference: ir.Value  # (A, Q, L, 2)
    offsets: ir.Value  # (A, Q, M, L, P, 2) pixels


def logits_of(weights: ir.Value, w: Retracing, opset: int) -> ir.Value | None:
    """The logits (A, Q, M, L, P) of softmaxed weights of that shape, or None."""
    shape = shape_of(weights)
    node = made_by(weights, "Softmax")
    if node is None or node.inputs[0] is None or node.inputs[0].shape is None or not node.inputs[0].shape.is_static():
        return None
    logits = node.inputs[0]
    sizes = shape_of(logits)
    default = -1 if opset >= _ONE_AXIS_SOFTMAX else 1
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else default) % len(sizes)
    over_the_rest = opset < _ONE_AXIS_SOFTMAX or math.prod(sizes[axis + 1 :]) == 1
    if not over_the_rest or math.prod(sizes[axis:]) != shape[3] * shape[4]:
        return None
    return w.reshape(logits, *shape, name="logits")


def around(locations: ir.Value, w: Retracing, map_size: np.ndarray) -> Around | None:
    """Reference and offsets of locations (A, Q, M, L, P, 2), or None.

    Args:
        map_size: (L, 2) as (w, h).
    """
    shape = shape_of(locations)
    node = made_by(locations, "Add")
    if node is None or any(value is None or value.shape is None or not value.shape.is_static() for value in node.inputs):
        return None
    left, right = (value for value in node.inputs if value is not None)
    full = shape_of(node.outputs[0])
    pairs = [(one, other) for one, other in ((left, right), (right, left)) if shape_of(other) == full and _per_query(one, full, shape)]
    if not pairs:
        return None
    # The one that is divided by the map size is the offset, should both have the same shape.
    pairs.sort(key=lambda pair: _divided(pair[1], shape, map_size) is None)
    reference, shift = pairs[0]
    A, Q, _, L, _, _ = shape
    if L > 1 and math.prod(shape_of(reference)) == A * Q * 2:
        one = w.reshape(reference, A, Q, 1, 2, name="reference_of_all")
        reference = w.concat([one] * L, 2, name="reference_of_each")
    points = w.reshape(reference, A, Q, L, 2, name="reference_points")
    pixels = _divided(shift, shape, map_size)
    if pixels is None:
        whole = w.reshape(shift, *shape, name="shift")
        sizes = w.builder.constant(map_size.astype(np.float32).reshape(L, 1, 2), "map_size")
        return Around(points, w.builder.op("Mul", [whole, sizes], shape, suffix="sampling_offsets"))
    return Around(points, w.reshape(pixels, *shape, name="sampling_offsets"))


def _per_query(value: ir.Value, full: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """True for a value that is one point of each query, or of each query and level: (A, Q, 1, L or 1, 1, 2) and the like."""
    A, Q, M, L, _, _ = shape
    sizes = shape_of(value)
    if len(sizes) != len(full) or len(full) < 5 or full[:3] != (A, Q, M) or sizes[:2] != (A, Q) or sizes[-1] != 2 or sizes[2] != 1:
        return False
    middle = math.prod(sizes[3:-1])
    by_level = full[3] == L and sizes[3] == L and math.prod(sizes[4:-1]) == 1
    return middle == 1 or by_level


def _divided(value: ir.Value, shape: tuple[int, ...], map_size: np.ndarray) -> ir.Value | None:
    """What was divided by the maps' sizes (or multiplied by their reciprocals) to give the value, or None."""
    for op_type, power in (("Div", 1.0), ("Mul", -1.0)):
        node = made_by(value, op_type)
        if node is None:
            continue
        sides = [side for side in node.inputs if side is not None]
        for pixels, constant in ((sides[0], sides[1]), (sides[1], sides[0]))[: 1 if op_type == "Div" else 2]:
            full = shape_of(node.outputs[0])
            if pixels.shape is None or not pixels.shape.is_static() or shape_of(pixels) != full:
                continue
            if ir.convenience.get_const_tensor(constant) is not None and _is_size(constant_of(constant), full, shape, map_size**power):
                return pixels
    return None


def _is_size(array: np.ndarray, full: tuple[int, ...], shape: tuple[int, ...], wanted: np.ndarray) -> bool:
    """True where a constant, spread over `full`, is the number `wanted` (L, 2) of each level and axis."""
    _, _, _, L, P, _ = shape
    padded = (1,) * (len(full) - array.ndim) + array.shape
    if array.ndim > len(full) or len(full) < 4 or full[:3] != shape[:3] or math.prod(padded[:3]) != 1:
        return False
    each = np.broadcast_to(array.reshape(padded[3:]), full[3:]).reshape(L, P, 2)
    return bool(np.allclose(each, wanted[:, None], rtol=_TOLERANCE, atol=0))
