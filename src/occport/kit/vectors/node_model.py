"""A model that is one custom node and nothing else: what a compiler and a kernel are tried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from ...graph.contract import Contract, Port
from ...graph.dialect import Dialect
from ...graph.forms import NUMBERS
from ...graph.functions import Arithmetics
from ...graph.opset import ir_version_for
from ...graph.rewrite import attach_functions
from ..cases.folder import Held

OPSET_OF_BODIES = 17  # the least that a model with function bodies has here; IR 8 goes with it
OUTPUT = "output"
# ONNX Runtime's GridSample reads inside the map for places beyond 1e18, where an integer overflows; bodies of Gather are right there too.
_BODIES = Arithmetics("gather", "gather")


class Style(NamedTuple):
    """How the models of all cases are written."""

    dialect: Dialect
    opset: int
    ir_version: int
    functions: bool


def style_of(dialect: Dialect, opset: int, ir_version: int, functions: bool) -> Style:
    """The source file's opset and IR version, raised to what function bodies need where they are wanted."""
    if not functions or opset >= OPSET_OF_BODIES:
        return Style(dialect, opset, max(ir_version, 8) if functions else ir_version, functions)
    return Style(dialect, OPSET_OF_BODIES, max(ir_version, ir_version_for(OPSET_OF_BODIES)), functions)


def held(contract: Contract, ports: Mapping[str, np.ndarray]) -> list[Held]:
    """The ports of a node in its order; those that the contract wants as constants are no inputs of the model."""
    found = []
    for port in contract.inputs:
        if port.name in ports:
            found.append(Held(port.name, port.form, ports[port.name], not _is_constant(port)))
    return found


def _is_constant(port: Port) -> bool:
    return port.form in NUMBERS and port.place != "value"


def node_model(
    name: str, contract: Contract, ports: Mapping[str, np.ndarray], attributes: Mapping[str, Any], shape: tuple[int, ...], style: Style
) -> onnx.ModelProto:
    """The model of one node.

    Args:
        name: of the graph and the node.
        contract: the node's, as it stands in a file (its domain may be empty).
        ports: port name → array, in any order. An optional one may be absent at the end only.
        attributes: name → int, list of ints, float or text.
        shape: of the output, in the contract's form.
        style: opset, IR version, and whether a function body is put in (not in the empty domain).

    Returns:
        Inputs under the ports' names, in the node's order, weights too; constants as the contract places them; one output `output`.
    """
    inputs, nodes, constants, infos = [], [], [], []
    for port in contract.inputs:
        if port.name not in ports:
            continue
        info = _typed(port.name, ports[port.name])
        tensor = numpy_helper.from_array(np.asarray(ports[port.name]), port.name)
        if not _is_constant(port):
            inputs.append(info)
        elif port.place == "constant":
            nodes.append(helper.make_node("Constant", [], [port.name], name=f"{name}_{port.name}", value=tensor))
            infos.append(info)
        else:
            constants.append(tensor)
    names = [port.name if port.name in ports else "" for port in contract.inputs]
    while names and not names[-1]:
        names.pop()
    node = helper.make_node(contract.op_type, names, [OUTPUT], name=name, domain=contract.domain)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    output = helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, list(shape))
    graph = helper.make_graph([*nodes, node], name, inputs, [output], constants, value_info=infos)
    imports = [helper.make_opsetid("", style.opset)]
    if contract.domain:
        imports.append(helper.make_opsetid(contract.domain, contract.version))
    model = helper.make_model(graph, opset_imports=imports, ir_version=style.ir_version, producer_name="occport")
    return _with_body(model, style) if style.functions else model


def _with_body(model: onnx.ModelProto, style: Style) -> onnx.ModelProto:
    with_body = ir.from_proto(model)
    attach_functions(with_body, style.dialect, style.opset, _BODIES)
    return ir.to_proto(with_body)


def _typed(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
