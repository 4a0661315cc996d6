"""Attention whose points share several reference points in turn, from one dialect to another that cuts it the same way.

The canonical form has one reference point for each query and level: such a node can be narrowed, but not lowered again. Between
dialects with the very same ports only the name, the order and the numbers' dtype change.
"""

from __future__ import annotations

import onnx_ir as ir

from ..build import Builder
from ..contract import TWIN_DOMAIN, Contract
from ..forms import NUMBERS, SCALARS
from .custom_node import attention_sizes, check_attributes, constant_in, ports_of, title_of
from .raising import drop_unread


def same_cut(origin: Contract | None, goal: Contract | None) -> bool:
    """True for two contracts that hold shared reference points and otherwise the same, and have no scalars."""
    if origin is None or goal is None:
        return False
    before, after = ({port.form for port in contract.inputs} for contract in (origin, goal))
    return before == after and "reference_points_shared" in before and not before & set(SCALARS) and origin.output.form == goal.output.form


def rename_attention(model: ir.Model, origin: Contract, goal: Contract) -> int:
    """Puts the goal's nodes in the place of the origin's, in place. Returns how many. ModelFileError as `raise_model`."""
    builder = Builder(model.graph)
    found = [node for node in model.graph if (node.domain, node.op_type) == (origin.domain or TWIN_DOMAIN, origin.op_type)]
    for node in found:
        check_attributes(node, origin)
        ports = ports_of(node, origin)
        attention_sizes(node, origin, ports)
        builder.at(node)
        inputs = []
        for port in goal.inputs:
            value = ports[port.form]
            if port.form in NUMBERS:
                value = builder.constant(constant_in(value, f"{title_of(node, origin)}: {port.name}").astype(port.dtype), port.form)
            inputs.append(value)
        old = [value for value in node.inputs if value is not None]
        defaults = {attribute.name: attribute.default for attribute in goal.attributes}
        builder.replace(node, goal.domain or TWIN_DOMAIN, goal.op_type, inputs, defaults)
        drop_unread(model.graph, old)
    return len(found)
