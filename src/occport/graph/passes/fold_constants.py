"""Computes nodes whose inputs are all constants, once, at export: joined weights, joined embeddings, zero rows, index ramps.

The exporter does this only for small tensors. Here a result may be as large as 64 MiB. Weights stay exact: only data movement and
single operations are done, in the dtype of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

MAX_BYTES = 64 << 20

Arrays = Sequence[np.ndarray]
EVALUATORS: dict[str, Callable[[Arrays, ir.Node], np.ndarray]] = {
    "Add": lambda x, _: x[0] + x[1],
    "Cast": lambda x, node: x[0].astype(ir.DataType(node.attributes["to"].as_int()).numpy()),
    "Sub": lambda x, _: x[0] - x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Div": lambda x, _: _quotient(x[0], x[1]),
    "Concat": lambda x, node: np.concatenate(x, axis=node.attributes["axis"].as_int()),
    "ConstantOfShape": lambda x, node: np.full(x[0], _fill(node)),
    "Expand": lambda x, _: np.broadcast_to(x[0], np.broadcast_shapes(x[0].shape, tuple(x[1]))).copy(),
    "Gather": lambda x, node: np.take(x[0], x[1], axis=node.attributes["axis"].as_int() if "axis" in node.attributes else 0),
    "Range": lambda x, _: np.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype),
    "Reshape": lambda x, _: x[0].reshape([x[0].shape[i] if size == 0 else int(size) for i, size in enumerate(x[1])]),
    "Slice": lambda x, _: _slice(*x),
    "Squeeze": lambda x, node: x[0].squeeze(_axes(x, node)),
    "Transpose": lambda x, node: np.ascontiguousarray(x[0].transpose(_permutation(node))),
    "Unsqueeze": lambda x, node: np.expand_dims(x[0], _axes(x, node) or ()),
}


def fold_constants(model: ir.Model) -> int:
    """Replaces every foldable node of the default domain by an initializer, in place. Returns how many."""
    graph = model.graph
    folded = 0
    for node in list(graph):
        output = node.outputs[0]
        result = None if node.domain or len(node.outputs) != 1 or output.is_graph_output() else _evaluate(node)
        if result is None or result.nbytes > MAX_BYTES:
            continue
        name = output.name
        assert name is not None
        output.name = f"{name}_folded_away"
        tensor = ir.tensor(result, name=name)
        constant = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(result.shape))
        output.replace_all_uses_with(constant)
        graph.remove(node, safe=True)  # so that it no longer counts as a reader of its inputs
        graph.register_initializer(constant)
        folded += 1
    drop_unused_initializers(model)
    return folded


def drop_unused_initializers(model: ir.Model) -> int:
    """Removes initializers that no node reads. Returns how many."""
    unused = [name for name, value in model.graph.initializers.items() if not value.uses() and not value.is_graph_output()]
    for name in unused:
        del model.graph.initializers[name]
    return len(unused)


def _slice(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, axes: np.ndarray | None = None, steps: np.ndarray | None = None
) -> np.ndarray:
    """Slice as exporters write it: from opset 10 on, with inputs."""
    cuts = [slice(None)] * data.ndim
    axes = np.arange(len(starts)) if axes is None else axes
    for axis, start, end, step in zip(axes, starts, ends, np.ones_like(axes) if steps is None else steps, strict=True):
        cuts[axis] = slice(int(start), int(end) if end > -np.iinfo(np.int64).max else None, int(step))
    return data[tuple(cuts)]


def _evaluate(node: ir.Node) -> np.ndarray | None:
    """The node's only output, or None where it cannot be known."""
    if node.op_type == "Shape":
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        first, last = (node.attributes[name].as_int() if name in node.attributes else None for name in ("start", "end"))
        return np.array(shape.numpy()[first:last], np.int64) if shape is not None and shape.is_static() else None
    tensors = [_constant(value) for value in node.inputs]
    if node.op_type not in EVALUATORS or any(tensor is None for tensor in tensors):
        return None
    return np.asarray(EVALUATORS[node.op_type]([tensor.numpy() for tensor in tensors if tensor is not None], node))


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    if value is None:
        return None
    node = value.producer()
    if (value.is_initializer() and not value.is_graph_input()) or (node is not None and node.op_type == "Constant"):
        return ir.convenience.get_const_tensor(value)
    return None


def _quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """ONNX's Div: integers are rounded towards zero."""
    return np.asarray(x / y if x.dtype.kind == "f" else (x - np.fmod(x, y)) // y)


def _axes(x: Arrays, node: ir.Node) -> tuple[int, ...] | None:
    """An input from opset 13 on, an attribute before; None where it is left out."""
    if len(x) > 1:
        return tuple(int(axis) for axis in x[1])
    return tuple(node.attributes["axes"].as_ints()) if "axes" in node.attributes else None


def _permutation(node: ir.Node) -> Sequence[int] | None:
    return node.attributes["perm"].as_ints() if "perm" in node.attributes else None


def _fill(node: ir.Node) -> np.generic:
    attribute = node.attributes.get("value")
    return np.float32(0) if attribute is None else attribute.as_tensor().numpy().reshape(-1)[0]
