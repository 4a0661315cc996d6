"""Folds the division of sampling offsets by the map's size into the linear layer that makes them.

    Div(Reshape(Split(Gather(Gemm(x, W, b), index))[k]), s)  =  Reshape(Split(Gather(Gemm(x, W', b'), index))[k])

with the rows of W and b that feed part k divided by s: the operators between only move whole columns. One node less for each
attention layer, and nothing lost: a division of a weight rounds no worse than a division of its product.
Refused (left alone) where a tensor in between is used by somebody else, or where s does not follow the columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir


class Chain(NamedTuple):
    """The nodes from the linear layer to the division, and which part of the Split the division is of."""

    gemm: ir.Node
    split: ir.Node
    target: ir.Value  # the Reshape's output
    part: int
    divisor: np.ndarray


def fold_scale(model: ir.Model) -> int:
    """Folds every such division, in place. Returns how many."""
    return sum(_fold(model, node) for node in list(model.graph) if node.op_type == "Div" and not node.domain)


def _fold(model: ir.Model, division: ir.Node) -> bool:
    chain = _chain(division)
    if chain is None:
        return False
    weight, bias = (ir.convenience.get_const_tensor(value) if value is not None else None for value in (*chain.gemm.inputs, None)[1:3])
    transposed = chain.gemm.attributes["transB"].as_int() if "transB" in chain.gemm.attributes else 0
    columns = _columns(chain)
    if weight is None or bias is None or len(bias.shape) != 1 or not transposed or columns is None:
        return False
    parts = [shape[-1] for shape in map(_shape, chain.split.outputs)]
    start = sum(parts[: chain.part])
    scale = np.ones(sum(parts))
    scale[start : start + len(columns)] = columns
    for index, tensor, factor in ((1, weight, scale[:, None]), (2, bias, scale)):
        _replace_constant(model, chain.gemm, index, (tensor.numpy() / factor).astype(tensor.numpy().dtype))
    division.outputs[0].replace_all_uses_with(chain.target)
    model.graph.remove(division, safe=True)
    return True


def _chain(division: ir.Node) -> Chain | None:
    """Div ← Reshape ← Split along the last axis ← Gather along the first ← Gemm, nobody else reading in between."""
    target, divisor = division.inputs
    reshape = _only_producer(target, "Reshape")
    split = _only_producer(reshape.inputs[0], "Split") if reshape else None
    gather = _only_producer(split.inputs[0], "Gather") if split else None
    gemm = _only_producer(gather.inputs[0], "Gemm") if gather else None
    tensor = ir.convenience.get_const_tensor(divisor) if divisor is not None else None
    if reshape is None or split is None or gather is None or gemm is None or tensor is None or target is None:
        return None
    source = reshape.inputs[0]
    assert source is not None
    last = len(_shape(source)) - 1
    if _shape(target)[:last] != _shape(source)[:last] or _axis(split) not in (-1, last) or _axis(gather) != 0:
        return None
    if division.outputs[0].is_graph_output() or _shape(division.outputs[0]) != _shape(target):
        return None
    return Chain(gemm, split, target, split.outputs.index(source), tensor.numpy())


def _columns(chain: Chain) -> np.ndarray | None:
    """The divisor of each column of the part; None where it also depends on the rows."""
    shape, last = _shape(chain.target), len(_shape(chain.split.outputs[chain.part])) - 1
    divisor = chain.divisor.reshape((1,) * (len(shape) - chain.divisor.ndim) + chain.divisor.shape)
    if any(size != 1 for size in divisor.shape[:last]):
        return None
    return np.broadcast_to(divisor.reshape(divisor.shape[last:]), shape[last:]).astype(np.float64).reshape(-1)


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.shape is not None
    return value.shape.numpy()


def _only_producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes a value, if it is of this kind and nobody else reads the value."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    node = value.producer()
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 0


def _replace_constant(model: ir.Model, node: ir.Node, index: int, array: np.ndarray) -> None:
    old = node.inputs[index]
    assert old is not None
    name = f"{old.name}_scaled"
    while name in model.graph.initializers:
        name = f"{name}_again"
    new = ir.Value(name=name, const_value=ir.tensor(array, name=name), type=old.type, shape=old.shape)
    model.graph.register_initializer(new)
    node.replace_input_with(index, new)
