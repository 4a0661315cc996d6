"""Dropout at inference hands its input on, so it is removed. (Ratio and mode are inputs from opset 12, an attribute before.)"""

from __future__ import annotations

import onnx_ir as ir

from .site import constant_array, sites


def drop_dropout(model: ir.Model) -> int:
    """Removes Dropout, in place; one whose output leaves the graph becomes an Identity. Returns the number of nodes.

    Errors: ExportError for training mode, or where the mask is used.
    """
    count = 0
    for site in sites(model, "Dropout"):
        training = site.input(2)
        if training is not None:
            mode = constant_array(training)
            if mode is None or mode.any():
                raise site.refuse(expected="inference", got="training mode", fix="export the model after model.eval()")
        site.only_output(fix="export the model after model.eval()")
        output, graph = site.node.outputs[0], site.node.graph
        if output.is_graph_output():
            site.become("Identity", [site.required(0)])
        else:
            assert graph is not None
            output.replace_all_uses_with(site.required(0))
            graph.remove(site.node, safe=True)
        count += 1
    return count
