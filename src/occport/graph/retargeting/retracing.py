"""Arithmetic in front of a node that first looks whether what it should compute is there already, further up.

A target's way of cutting the operators often undoes what the source's way has done: what was joined is taken apart again, what was
flattened gets its axes back. `Retracing` then gives the value from which all came, so that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from ..arithmetic import Static, full_shape, shape_of

_KEEP_ORDER = ("Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity")  # the elements stay in their row-major order


def ancestors_in_order(value: ir.Value) -> Iterator[ir.Value]:
    """The value, and those further up that hold the same elements in the same order under other shapes; of static shapes only."""
    while True:
        if value.shape is not None and value.shape.is_static():
            yield value
        node = value.producer()
        if node is None or node.domain or node.op_type not in _KEEP_ORDER or node.inputs[0] is None:
            return
        value = node.inputs[0]


def made_by(value: ir.Value, op_type: str) -> ir.Node | None:
    """The standard node of this operator that made the value's elements, seen through reshapes; None where it is another."""
    *_, last = ancestors_in_order(value)
    node = last.producer()
    return node if node is not None and not node.domain and node.op_type == op_type else None


class Retracing(Static):
    """As `Static`, without computing what is there."""

    def reshape(self, value: ir.Value, *parts: int, name: str) -> ir.Value:
        """As `Arithmetic`."""
        shape = full_shape(shape_of(value), parts)
        for found in ancestors_in_order(value):
            if shape_of(found) == shape:
                return found
        return super().reshape(value, *parts, name=name)

    def take(self, value: ir.Value, axis: int, index: int, name: str) -> ir.Value:
        """As `Arithmetic`: a part of a Concat is the part."""
        joined = made_by(value, "Concat")
        if joined is not None and joined.attributes["axis"].as_int() == axis and None not in joined.inputs:
            part = joined.inputs[index] if index < len(joined.inputs) else None
            same = {shape_of(one) for one in joined.inputs if one is not None and one.shape is not None and one.shape.is_static()}
            if part is not None and len(same) == 1:
                shape = next(iter(same))
                if shape_of(value) == (*shape[:axis], len(joined.inputs), *shape[axis:]):
                    return part
        return super().take(value, axis, index, name)

    def concat(self, values: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
        """As `Arithmetic`: all slices of one value, one after the other, are the value."""
        whole = [_sliced(value, axis, index) for index, value in enumerate(values)]
        first = whole[0]
        if first is not None and all(one is not None and _is_same(one, first) for one in whole):
            shape = list(shape_of(values[0]))
            shape[axis] = len(values)
            if shape_of(first) == tuple(shape):
                return first
        return super().concat(values, axis, name)


def _is_same(one: ir.Value, other: ir.Value) -> bool:
    """True for one value under one shape, be it by way of two reshapes."""
    *_, one_source = ancestors_in_order(one)
    *_, other_source = ancestors_in_order(other)
    return one_source is other_source and shape_of(one) == shape_of(other)


def _sliced(value: ir.Value, axis: int, index: int) -> ir.Value | None:
    """The value of which this is the slice `index` along `axis`, or None."""
    node = made_by(value, "Gather")
    if node is None or node.inputs[0] is None or node.inputs[1] is None:
        return None
    which, whole = ir.convenience.get_const_tensor(node.inputs[1]), node.inputs[0]
    if which is None or which.size != 1 or whole.shape is None or not whole.shape.is_static():
        return None
    along = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    fits = along % len(whole.shape) == axis and which.numpy().item() % shape_of(whole)[axis] == index
    return whole if fits else None
