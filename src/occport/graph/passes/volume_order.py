"""Volumes in the order of their voxels: z, y, x from the first to the last, where upstream turns each into x, y, z.

    Transpose(t; 0 4 3 2 1)  =  R(Transpose(t; 0 4 1 2 3)),    R = the last three axes reversed

R commutes with everything between the encoder and the outputs: a convolution takes the reversed kernel axes, normalisation,
ReLU, sums and ArgMax over channels see no axis order at all. So R is done once, on the outputs, as far down as it goes: labels are
one number a voxel. A volume and its tokens then differ by a plain matrix transpose, and rows of a volume are long instead of short.

Inner values in the order z, y, x that people look for carry it in their name: `logits_scale3_zyx`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..build import Builder

SUFFIX = "_zyx"
_TURNING = (0, 4, 3, 2, 1)  # tokens (B, z, h, w, C) ↔ volume (B, C, w, h, z)
_IN, _OUT = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)  # the same without the turn
_ANY_ORDER = ("Relu", "Cast", "Identity", "Sigmoid", "BatchNormalization")
_PAIRS = ("Add", "Sub", "Mul")
_AXIS_LISTS = ("kernel_shape", "strides", "dilations", "output_padding", "output_shape")


class Turned(NamedTuple):
    """Where the pass is: which values have their last three axes reversed by now, and those that were turned back for a reader."""

    builder: Builder
    values: set[ir.Value]
    back: dict[ir.Value, ir.Value]


def volume_order(model: ir.Model) -> int:
    """Reorders every volume that comes out of such a Transpose, in place. Returns how many Transposes lost their turn."""
    state, found = Turned(Builder(model.graph), set(), {}), 0
    for node in list(model.graph):
        inside = [value for value in node.inputs if value in state.values]
        if _permutation(node) == _TURNING:
            found += 1
            _set(node, "perm", _OUT if inside else _IN)
            if not inside:
                _turn(state, node.outputs[0])
        elif inside and not _commutes(state, node):
            for index, value in enumerate(node.inputs):
                if value is not None and value in state.values:
                    node.replace_input_with(index, _turned_back(state, value, node))
    for value in state.values:
        if value.name is not None and value.name.startswith("logits_scale") and not value.is_graph_output():
            value.name += SUFFIX
    for index, value in enumerate(list(model.graph.outputs)):
        if value in state.values:
            model.graph.outputs[index] = _output(model.graph, value)
    return found


def _turn(state: Turned, value: ir.Value) -> None:
    """The value holds its axes in the new order from here on."""
    value.shape = ir.Shape(_reversed(_shape(value)))
    state.values.add(value)


def _turned_back(state: Turned, value: ir.Value, reader: ir.Node) -> ir.Value:
    """The value in the old order, made in front of its first reader that wants it."""
    if value not in state.back:
        shape = _shape(value)
        state.back[value] = state.builder.at(reader).op(
            "Transpose", [value], _reversed(shape), {"perm": list(_reversed(range(len(shape))))}, suffix="in_order"
        )
    return state.back[value]


def _output(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """An output in the old order and under its own name, at the end of the graph."""
    shape, name = _shape(value), value.name
    value.name = f"{name}{SUFFIX}"
    output = ir.Value(name=name, type=value.type, shape=ir.Shape(_reversed(shape)), doc_string=value.doc_string)
    perm = ir.AttrInt64s("perm", _reversed(range(len(shape))))
    graph.append(ir.Node("", "Transpose", [value], [perm], outputs=[output], name=f"{name}_Transpose"))
    return output


def _commutes(state: Turned, node: ir.Node) -> bool:
    """Brings a node to the new order if that can be: its inputs are there already."""
    if node.domain:
        return False
    op, shape = node.op_type, _shape(node.inputs[0])
    if op in ("Conv", "ConvTranspose"):
        known = _turn_kernel(state, node)
    elif op in _PAIRS:
        known = all(_fits(state, value, len(_shape(node.outputs[0]))) for value in node.inputs)
    elif op in ("ArgMax", "Softmax"):
        known = len(shape) == 5 and "axis" in node.attributes and node.attributes["axis"].as_int() == 1
    elif op == "Reshape":
        return _turn_group_norm(state, node)
    else:
        known = op in _ANY_ORDER
    if known:
        _turn(state, node.outputs[0])
    return known


def _fits(state: Turned, value: ir.Value | None, rank: int) -> bool:
    """Whether an operand is in the new order too, or the same for all voxels."""
    if value is None:
        return False
    shape = _shape(value)
    return len(shape) == rank if value in state.values else all(size == 1 for size in shape[-3:])


def _turn_kernel(state: Turned, node: ir.Node) -> bool:
    """Reverses the kernel and the attributes of a convolution. The weight is turned when it is written: no second copy in memory."""
    weight = node.inputs[1]
    tensor = ir.convenience.get_const_tensor(weight) if weight is not None and not weight.is_graph_input() else None
    if weight is None or tensor is None or len(_shape(weight)) != 5:
        return False
    for name in _AXIS_LISTS:
        if name in node.attributes:
            _set(node, name, node.attributes[name].as_ints()[::-1])
    if "pads" in node.attributes:
        pads = node.attributes["pads"].as_ints()
        _set(node, "pads", [*pads[2::-1], *pads[:2:-1]])
    kernel = _shape(weight)
    if kernel[2:] != (1, 1, 1):
        node.replace_input_with(1, _turned_weight(state, weight, tensor))
    return True


def _turned_weight(state: Turned, weight: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
    """An initializer with the last three axes of another one reversed, made once and under the same name with a suffix."""
    if weight not in state.back:
        shape = ir.Shape(_reversed(_shape(weight)))
        name = f"{weight.name}{SUFFIX}"

        def turned() -> ir.TensorProtocol:
            return ir.Tensor(np.ascontiguousarray(tensor.numpy().transpose(0, 1, 4, 3, 2)), name=name)

        lazy = ir.LazyTensor(turned, dtype=tensor.dtype, shape=shape, name=name)
        value = ir.Value(name=name, const_value=lazy, type=weight.type, shape=shape)
        state.builder.graph.register_initializer(value)
        state.back[weight] = value
    return state.back[weight]


def _turn_group_norm(state: Turned, first: ir.Node) -> bool:
    """Reshape to groups, InstanceNormalization, Reshape back: within a group the order of voxels is free."""
    norm = _only_reader(first, "InstanceNormalization")
    last = _only_reader(norm, "Reshape") if norm is not None else None
    whole, grouped = _shape(first.inputs[0]), _shape(first.outputs[0])
    if last is None or _shape(last.outputs[0]) != _reversed(whole) or len(whole) != 5 or len(grouped) != 3 or grouped[0] != whole[0]:
        return False
    last.replace_input_with(1, state.builder.constant(np.array(whole, np.int64), "shape"))
    _turn(state, last.outputs[0])
    return True


def _only_reader(node: ir.Node, op_type: str) -> ir.Node | None:
    """The node of this kind that alone reads what a node makes, as its first input."""
    value = node.outputs[0]
    uses = list(value.uses())
    if len(uses) != 1 or uses[0].idx != 0 or value.is_graph_output() or uses[0].node.op_type != op_type or uses[0].node.domain:
        return None
    return uses[0].node


def _permutation(node: ir.Node) -> tuple[int, ...] | None:
    if node.op_type != "Transpose" or node.domain or "perm" not in node.attributes:
        return None
    return tuple(node.attributes["perm"].as_ints())


def _set(node: ir.Node, name: str, numbers: Sequence[int]) -> None:
    node.attributes[name] = ir.AttrInt64s(name, list(numbers))


def _reversed(items: Sequence[int]) -> tuple[int, ...]:
    """The last three items the other way round."""
    return (*items[:-3], *items[:-4:-1])


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    assert value is not None and value.shape is not None
    return value.shape.numpy()
