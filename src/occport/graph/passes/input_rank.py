"""Takes the batch axis of size 1 off a graph input, for compilers that want (N, 3, H, W) images or (N, 4, 4) matrices."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..build import Builder


def drop_batch_axis(model: ir.Model, name: str) -> None:
    """Changes the input `name` from (1, …) to (…), in place. A Reshape reads it directly; others read it through a Reshape of their own."""
    value = next(value for value in model.graph.inputs if value.name == name)
    assert value.shape is not None and value.shape[0] == 1
    full = list(value.shape.numpy())
    others = [use for use in value.uses() if not _sizes_are_spelled(use.node)]
    value.shape = ir.Shape(full[1:])
    if others:
        builder = Builder(model.graph)
        first = next(node for node in model.graph if any(use.node is node for use in others))
        shape = builder.constant(np.array(full, np.int64), f"{name}_shape")  # a name that no other pass gives
        batched = builder.at(first).op("Reshape", [value, shape], full, suffix=f"batched_{name}")  # Reshape: the same at every opset
        for use in others:
            use.node.replace_input_with(use.idx, batched)


def _sizes_are_spelled(node: ir.Node) -> bool:
    """Whether a node is a Reshape that does not care about the axes of what it reads: no size is copied from them."""
    sizes = node.inputs[1] if node.op_type == "Reshape" and not node.domain else None
    tensor = ir.convenience.get_const_tensor(sizes) if sizes is not None else None
    return tensor is not None and bool((tensor.numpy() != 0).all())
