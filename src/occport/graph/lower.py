"""From canonical nodes to a dialect's: each port made by its form, each attribute by its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..errors import ExportError
from . import canonical
from .arithmetic import Static, constant_of, shape_of
from .attributes import Window, lower_window, read_window
from .build import Builder
from .contract import TWIN_DOMAIN, Contract, Port
from .dialect import Dialect
from .forms import NUMBERS, PORT_FORMS, SCALARS, Raised, scalar

_ATTENTION_INPUTS = {canonical.MSDA: canonical.MSDA_INPUTS, canonical.SAMPLED: canonical.SAMPLED_INPUTS}


def lower(model: ir.Model, dialect: Dialect) -> None:
    """Puts the dialect's nodes in the place of all canonical ones, in place. Nodes of the empty domain stand in their twin's.

    Raises:
        ExportError: a port cannot hold what a node computes with.
    """
    assert dialect.msda is not None and dialect.dcn is not None
    builder = Builder(model.graph)
    for node in list(model.graph):
        if node.domain != canonical.DOMAIN:
            continue
        if node.op_type == canonical.DCN:
            lower_deform_conv(node, dialect.dcn, builder.at(node))
        else:
            lower_attention(node, dialect.msda, builder.at(node))
    model.opset_imports.pop(canonical.DOMAIN, None)
    used = {node.domain for node in model.graph}
    domains = {domain or TWIN_DOMAIN: version for domain, version in dialect.domains.items()}
    model.opset_imports.update({domain: version for domain, version in domains.items() if domain in used})


def lower_attention(node: ir.Node, contract: Contract, builder: Builder) -> None:
    """Puts the contract's node in the place of a canonical attention node, wide or narrow."""
    named = zip(_ATTENTION_INPUTS[node.op_type], node.inputs, strict=True)
    quantities: dict[str, Any] = {name: value for name, value in named if value is not None}
    A, _, M, D = shape_of(quantities["value"])
    weights = quantities["attention_logits" if node.op_type == canonical.MSDA else "attention_weights"]
    sizes = {"A": A, "M": M, "D": D, "Q": shape_of(weights)[1]}
    w = Static(builder, levels=shape_of(weights)[3])
    known = Raised(quantities, w)
    inputs = []
    for port in contract.inputs:
        if port.form in SCALARS:
            array = np.full((1,) * port.rank, scalar(port.form, contract, sizes), port.dtype)
            inputs.append(_placed(builder, port, array))
        elif port.form in NUMBERS:
            inputs.append(_placed(builder, port, constant_of(quantities[port.form]).astype(port.dtype)))
        else:
            inputs.append(_held(node, contract, port, known, w))
    attributes = {attribute.name: attribute.default for attribute in contract.attributes}
    _put(node, contract, builder, inputs, attributes)


def _held(node: ir.Node, contract: Contract, port: Port, known: Raised, w: Static) -> ir.Value:
    """The value of a port. ExportError where the node's quantities cannot be had in this form."""
    form = PORT_FORMS[port.form]
    missing = [need for need in form.needs if known.get_or_none(need) is None]
    value: ir.Value | None = None if missing else form.lower(w, known)
    if value is None:
        got = f"a node without {' and '.join(missing)}" if missing else f"{w.levels} levels"
        expected = f"what its port {port.name} holds: {form.what}" if missing else f"one level for its port {port.name}"
        raise ExportError(f"{node.name} as {contract.title}", expected=expected, got=got)
    return value


def lower_deform_conv(node: ir.Node, contract: Contract, builder: Builder) -> None:
    """Puts the contract's node in the place of a canonical deformable convolution. A bias that the contract cannot take is added behind."""
    quantities: dict[str, Any] = {name: value for name, value in zip(canonical.DCN_INPUTS, node.inputs, strict=False) if value is not None}
    w = Static(builder, levels=1)
    known = Raised(quantities, w)
    inputs: list[ir.Value | None] = []
    for port in contract.inputs:
        if port.form == "bias" and "bias" not in quantities:
            if not port.optional:
                zeros = np.zeros(shape_of(quantities["weight"])[0], port.dtype)
                inputs.append(_placed(builder, port, zeros))
            else:
                inputs.append(None)
            continue
        inputs.append(_held(node, contract, port, known, w))
    window = window_of(node, canonical.DCN_CONTRACT, quantities["weight"])
    if "bias" in quantities and all(port.form != "bias" for port in contract.inputs):
        bias = w.reshape(quantities["bias"], 1, -1, 1, 1, name="bias")
        _add_behind(node, builder, bias)
    while inputs and inputs[-1] is None:
        inputs.pop()
    _put(node, contract, builder, inputs, lower_window(contract, window))


def window_of(node: ir.Node, contract: Contract, weight: ir.Value) -> Window:
    """The window of a deformable convolution of this contract. ModelFileError for attributes that it does not allow."""
    values = {name: attribute.value for name, attribute in node.attributes.items()}
    values = {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in values.items()}
    kernel = shape_of(weight)[2:]
    return read_window(contract, values, (kernel[0], kernel[1]), node.name or contract.title)


def _add_behind(node: ir.Node, builder: Builder, bias: ir.Value) -> None:
    """Adds a bias to the node's output, under the output's old name."""
    old = node.outputs[0]
    name, readers, is_output = old.name, list(old.uses()), old.is_graph_output()
    added = ir.Node("", "Add", [old, bias], name=f"{node.name}_bias_added")
    builder.graph.insert_after(node, added)
    new = added.outputs[0]
    new.type, new.shape = old.type, old.shape
    for reader, index in readers:
        reader.replace_input_with(index, new)
    if is_output:
        builder.graph.outputs[builder.graph.outputs.index(old)] = new
    old.name, new.name = f"{name}_without_bias", name


def _put(node: ir.Node, contract: Contract, builder: Builder, inputs: Sequence[ir.Value | None], attributes: dict[str, Any]) -> None:
    """The contract's node under the old node's name, and a Reshape behind it where its output has another form."""
    domain = contract.domain or TWIN_DOMAIN
    if contract.output.form != "heads_split":
        builder.replace(node, domain, contract.op_type, inputs, attributes)
        return
    A, _, M, D = shape_of(node.inputs[0]) if node.inputs[0] is not None else (0, 0, 0, 0)
    Q = shape_of(node.outputs[0])[1]
    heads = builder.op(contract.op_type, inputs, (A, Q, M, D), attributes, suffix="heads", dtype=node.outputs[0].dtype, domain=domain)
    producer = heads.producer()
    assert producer is not None
    producer.name = node.name
    producer.metadata_props.update(node.metadata_props)
    shape = builder.constant(np.array((A, Q, M * D), np.int64), "shape")
    merged = builder.replace(node, "", "Reshape", [heads, shape], {})
    merged.name = f"{node.name}_merged"


def _placed(builder: Builder, port: Port, array: np.ndarray) -> ir.Value:
    """A number where the contract wants it: a Constant node, or else an initializer."""
    make = builder.constant_node if port.place == "constant" else builder.constant
    return make(array, port.form)
