"""Canonical nodes of a foreign graph as standard operators, with everything around them left as it is."""

from __future__ import annotations

import onnx_ir as ir

from .. import canonical
from ..functions import Arithmetics
from ..opset import SOURCES, convert_opset
from ..rewrite import inline_standard
from .raising import drop_unread

_WRITTEN_AT = SOURCES[0]  # where arithmetic is inlined and folded; brought to the file's opset then


def inline_alone(model: ir.Model, opset: int, arithmetics: Arithmetics) -> int:
    """Replaces each canonical node by its arithmetic, in place. Returns how many.

    Args:
        opset: the model's.
        arithmetics: forms that stand at this opset.
    """
    found = [node for node in model.graph if node.domain == canonical.DOMAIN]
    for node in found:
        alone = _alone(node)
        inline_standard(alone, opset, arithmetics)
        convert_opset(alone, opset)
        _put_back(model.graph, node, alone.graph)
    model.opset_imports.pop(canonical.DOMAIN, None)
    return len(found)


def _alone(node: ir.Node) -> ir.Model:
    """The node as a model of its own; its constants are the same tensors."""
    values: dict[ir.Value, ir.Value] = {}
    for value in node.inputs:
        if value is not None and value not in values:
            tensor = ir.convenience.get_const_tensor(value)
            values[value] = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=tensor)
    old = node.outputs[0]
    output = ir.Value(name=old.name, type=old.type, shape=old.shape)
    inputs = [None if value is None else values[value] for value in node.inputs]
    copy = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=[output], name=node.name)
    graph = ir.Graph(
        [value for value in values.values() if value.const_value is None], [output], nodes=[copy],
        initializers=[value for value in values.values() if value.const_value is not None],
        opset_imports={"": _WRITTEN_AT, canonical.DOMAIN: canonical.VERSION}, name="alone",
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)


def _put_back(graph: ir.Graph, node: ir.Node, part: ir.Graph) -> None:
    """Moves the nodes and constants of `part` into the place of `node`."""
    inputs = [value for value in node.inputs if value is not None]
    known = {value.name: value for value in inputs}
    for value in part.inputs:
        value.replace_all_uses_with(known[value.name])
    for name, value in list(part.initializers.items()):
        del part.initializers[name]
        if name in known:
            value.replace_all_uses_with(known[name])
        else:
            value.name = _free(graph, name)
            graph.register_initializer(value)
    new = part.outputs[0]
    part.outputs.clear()
    moved = list(part)
    part.remove(moved)
    old = node.outputs[0]
    ir.convenience.replace_nodes_and_values(graph, node, [node], moved, [old], [new])
    drop_unread(graph, inputs)


def _free(graph: ir.Graph, wanted: str) -> str:
    name, count = wanted, 1
    while name in graph.initializers:
        count += 1
        name = f"{wanted}_{count}"
    return name
