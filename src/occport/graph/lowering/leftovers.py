"""Constants that nothing reads any more are removed, so that a lowered model does not carry the inputs that became attributes.

Only initializers and Constant nodes go; other dead nodes are the exporter's business.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import bodies, body_nodes


def _unused(value: ir.Value) -> bool:
    return not value.uses() and not value.is_graph_output()


def remove_unused_constants(model: ir.Model) -> int:
    """Removes initializers and Constant nodes without a reader, in place. Initializers that are graph inputs stay.

    Returns: how many were removed.
    """
    count = 0
    for body in bodies(model):
        for node in body_nodes(body):
            if node.domain == "" and node.op_type == "Constant" and _unused(node.outputs[0]):
                assert node.graph is not None
                node.graph.remove(node, safe=True)
                count += 1
        for graph in (body, *body.subgraphs()):
            if not isinstance(graph, ir.Graph):
                continue
            for name, value in list(graph.initializers.items()):
                if _unused(value) and not value.is_graph_input():
                    del graph.initializers[name]
                    count += 1
    return count
