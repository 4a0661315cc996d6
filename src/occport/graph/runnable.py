"""A model with custom nodes, made runnable in memory: stock ONNX Runtime knows none of them and gets their bodies."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from .dialect import Dialect
from .functions import Arithmetics, functions_for
from .opset import FIRST_IR_WITH_FUNCTIONS
from .twin import proto_to_twin


def make_runnable(model: onnx.ModelProto, dialect: Dialect, arithmetics: Arithmetics | None = None) -> None:
    """Appends a body for every custom node that has none yet, in place; nodes of the empty domain move to their twin's (`twin.py`).

    Args:
        model: whole, a skeleton or a part; the inputs of its custom nodes have static shapes.
        dialect: of its custom nodes; without contracts: the canonical ones.
        arithmetics: of the bodies; None takes the fastest that ONNX Runtime has.

    Raises:
        ExportError: nodes of one name need different bodies.
    """
    proto_to_twin(model, dialect)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    known = {(function.domain, function.name) for function in model.functions}
    for function in functions_for(ir.from_proto(model), dialect, opset, arithmetics):
        if (function.domain, function.name) not in known:
            model.functions.append(ir.to_proto(function))
    if model.functions:
        model.ir_version = max(model.ir_version, FIRST_IR_WITH_FUNCTIONS)
    # ONNX Runtime wants the domains of what is inside a body among the model's own, too.
    imported = {entry.domain for entry in model.opset_import} | {"", "ai.onnx"}
    needed = {node.domain for body in model.functions for node in body.node} | {node.domain for node in model.graph.node}
    model.opset_import.extend(onnx.helper.make_opsetid(domain, 1) for domain in sorted(needed - imported))
