"""Nodes of an empty-domain dialect, in memory under a domain of their own.

Some compilers look an operator up by its name alone, so that it stands in ONNX's own domain in the file. No function body can stand
there, and no checker knows the operator. In memory such nodes have `TWIN_DOMAIN` instead; nothing else differs.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from .contract import TWIN_DOMAIN
from .dialect import Dialect


def empty_domain_names(dialect: Dialect) -> set[str]:
    """The dialect's operators that stand in the empty domain."""
    return {contract.op_type for contract in (dialect.msda, dialect.dcn) if contract is not None and not contract.domain}


def proto_to_twin(model: onnx.ModelProto, dialect: Dialect) -> int:
    """Moves the dialect's nodes from the empty domain to their twin's, in place. Returns how many."""
    names = empty_domain_names(dialect)
    moved = [node for node in model.graph.node if not node.domain and node.op_type in names]
    for node in moved:
        node.domain = TWIN_DOMAIN
    if moved and all(entry.domain != TWIN_DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(TWIN_DOMAIN, 1))
    return len(moved)


def to_twin(model: ir.Model, dialect: Dialect) -> int:
    """As `proto_to_twin`, on the representation that the passes work on."""
    names = empty_domain_names(dialect)
    moved = [node for node in model.graph if not node.domain and node.op_type in names]
    for node in moved:
        node.domain = TWIN_DOMAIN
    if moved:
        model.opset_imports[TWIN_DOMAIN] = 1
    return len(moved)


def from_twin(model: ir.Model) -> int:
    """Moves them back, in place: the last thing before a file is written. Returns how many."""
    moved = [node for node in model.graph if node.domain == TWIN_DOMAIN]
    for node in moved:
        node.domain = ""
    model.opset_imports.pop(TWIN_DOMAIN, None)
    return len(moved)


def checkable(skeleton: onnx.ModelProto, dialect: Dialect) -> onnx.ModelProto:
    """A copy that ONNX's checker can judge: empty-domain nodes in their twin's domain, weights that stayed on disk as inputs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(skeleton)
    proto_to_twin(proto, dialect)
    on_disk = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in on_disk:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    kept = [tensor for tensor in proto.graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto
