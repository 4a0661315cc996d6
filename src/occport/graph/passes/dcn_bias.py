"""What follows a deformable convolution: BatchNormalization as upstream has it, or the normalisation folded into the weights.

    BN(conv(x; W)) = conv(x; W * s) + t,    s = gamma / sqrt(var + epsilon),    t = beta - mean * s

as a fifth input ("input") or as an Add behind the node ("add"). The sampling depends on offset and mask alone, so the algebra of
ordinary convolutions holds.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .. import canonical
from ..build import Builder

DEFAULT_EPSILON = 1e-5  # of ONNX


def fold_batch_norm(model: ir.Model, policy: str) -> int:
    """Applies the policy "batchnorm" (does nothing), "add" or "input" to canonical nodes, in place. Returns how many."""
    if policy == "batchnorm":
        return 0
    builder = Builder(model.graph)
    nodes = [node for node in model.graph if (node.domain, node.op_type) == (canonical.DOMAIN, canonical.DCN)]
    return sum(_fold(builder, node, policy) for node in nodes)


def _fold(builder: Builder, node: ir.Node, policy: str) -> bool:
    norm = _only_reader(node)
    if norm is None or (len(node.inputs) > 4 and node.inputs[4] is not None):
        return False
    values = (node.inputs[3], *norm.inputs[1:5])
    tensors = [ir.convenience.get_const_tensor(value) for value in values if value is not None]
    known = [tensor.numpy().astype(np.float64) for tensor in tensors if tensor is not None]
    if len(known) != len(values):
        return False
    weight, gamma, beta, mean, variance = known
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else DEFAULT_EPSILON
    scale = gamma / np.sqrt(variance + epsilon)
    builder.at(node)
    folded = builder.constant((weight * scale[:, None, None, None]).astype(np.float32), f"{node.name}_weight")
    shift = (beta - mean * scale).astype(np.float32)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    if policy == "input":
        bias = builder.constant(shift, f"{node.name}_bias")
        if norm.outputs[0].is_graph_output():
            node.outputs[0].name = norm.outputs[0].name
        norm.outputs[0].replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
        builder.graph.remove(norm, safe=True)
        builder.replace(node, node.domain, node.op_type, [*node.inputs[:3], folded, bias], attributes)
        return True
    node.replace_input_with(3, folded)
    builder.at(norm).replace(norm, "", "Add", [node.outputs[0], builder.constant(shift.reshape(1, -1, 1, 1), f"{node.name}_bias")], {})
    return True


def _only_reader(node: ir.Node) -> ir.Node | None:
    """The BatchNormalization behind a node, if nobody else sees the node's output."""
    output = node.outputs[0]
    users = list(output.uses())
    if len(users) != 1 or output.is_graph_output() or users[0].node.op_type != "BatchNormalization" or users[0].node.domain:
        return None
    return users[0].node
