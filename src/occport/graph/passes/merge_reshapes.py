"""Two reshapes in a row are one.

    Reshape(Reshape(x, s), t)  =  Reshape(x, t)

for a target t that is written out (no 0 that copies a size of what is reshaped; a -1 means the same either way).
"""

from __future__ import annotations

import onnx_ir as ir


def merge_reshapes(model: ir.Model) -> int:
    """Skips inner reshapes in place, and removes those that nobody reads any more. Returns how many were skipped."""
    return sum(_merge(model.graph, node) for node in list(model.graph) if _is_reshape(node))


def _merge(graph: ir.Graph, outer: ir.Node) -> bool:
    middle, target = outer.inputs
    assert middle is not None and target is not None
    inner, sizes = middle.producer(), ir.convenience.get_const_tensor(target)
    if inner is None or not _is_reshape(inner) or sizes is None or 0 in sizes.numpy() or middle.is_graph_output():
        return False
    outer.replace_input_with(0, inner.inputs[0])
    if not middle.uses():
        graph.remove(inner, safe=True)
    return True


def _is_reshape(node: ir.Node) -> bool:
    return node.op_type == "Reshape" and not node.domain
