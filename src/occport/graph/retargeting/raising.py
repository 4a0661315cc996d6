"""From a dialect's nodes to canonical ones: the reverse of `lower.py`, for files of any origin.

Every node is first held against its contract (`custom_node.py`). What the new node does not read any longer is removed; everything
else stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from .. import canonical
from ..arithmetic import constant_of, shape_of
from ..attributes import lower_window
from ..build import Builder
from ..contract import TWIN_DOMAIN, Contract
from ..dialect import Dialect
from ..forms import SCALARS, Raised, obtainable
from .custom_node import attention_sizes, check_attributes, constant_in, deform_conv_sizes, level_starts, output_shape, ports_of, title_of
from .retracing import Retracing, ancestors_in_order
from .widening import around, logits_of


def raise_model(model: ir.Model, dialect: Dialect, *, wide: bool) -> int:
    """Puts canonical nodes in the place of the dialect's, in place; every value in front of them must have a static shape.

    Args:
        dialect: one without `msda` leaves attention as it is.
        model: nodes of an empty-domain dialect stand in their twin's domain (`twin.py`).
        wide: give attention its wide form also where the ports hold locations and weights, if a Softmax and an Add stand directly in
            front; else it is wide only where the ports are.

    Returns:
        How many nodes.

    Raises:
        ModelFileError: a node is not as its contract says.
    """
    both = [contract for contract in (dialect.msda, dialect.dcn) if contract is not None]
    contracts = {(contract.domain or TWIN_DOMAIN, contract.op_type): contract for contract in both}
    graph = model.graph
    before = set(graph)
    found = [node for node in graph if (node.domain, node.op_type) in contracts]
    builder = Builder(graph)
    unread: list[ir.Value] = []
    for node in found:
        contract = contracts[node.domain, node.op_type]
        unread += [value for value in node.inputs if value is not None]
        if contract is dialect.msda:
            raise_attention(node, contract, builder.at(node), wide=wide, opset=model.opset_imports[""])
        else:
            raise_deform_conv(node, contract, builder.at(node))
    unread += [output for node in graph if node not in before for output in node.outputs]
    drop_unread(graph, unread)
    used = {node.domain for node in model.graph.all_nodes()} | {function.domain for function in model.functions.values()}
    for domain, _ in contracts:
        if domain not in used:
            model.opset_imports.pop(domain, None)
    if found:
        model.opset_imports[canonical.DOMAIN] = canonical.VERSION
    return len(found)


def raise_attention(node: ir.Node, contract: Contract, builder: Builder, *, wide: bool, opset: int) -> None:
    """Puts a canonical attention node, wide or narrow, in the place of a contract's. ModelFileError as `raise_model`."""
    check_attributes(node, contract)
    ports = ports_of(node, contract)
    letters = attention_sizes(node, contract, ports)
    where = title_of(node, contract)
    shapes = constant_in(ports["spatial_shapes"], f"{where}: spatial_shapes").astype(np.int64)
    w = Retracing(builder, letters["L"], letters.get("R", 1))
    forms: dict[str, Any] = {form: value for form, value in ports.items() if form not in SCALARS}
    forms["spatial_shapes"] = _as_int64(ports["spatial_shapes"], shapes, builder, "spatial_shapes")
    forms["level_start_index"] = _as_int64(ports.get("level_start_index"), level_starts(shapes), builder, "level_start_index")
    found = _widest(Raised(forms, w), obtainable(forms), w, shapes, wide=wide, opset=opset)
    op_type, names = (
        (canonical.MSDA, canonical.MSDA_INPUTS) if "attention_logits" in found else (canonical.SAMPLED, canonical.SAMPLED_INPUTS)
    )
    inputs = [{**forms, **found}[name] for name in names]
    merged = output_shape(contract, letters, "heads_merged")
    assert merged is not None, where
    if contract.output.form == "heads_split":
        _merge_heads(node, op_type, inputs, merged, builder)
        return
    _set_type(node.outputs[0], merged, ports["value"])
    builder.replace(node, canonical.DOMAIN, op_type, inputs, {})


def _widest(q: Raised, known: set[str], w: Retracing, shapes: np.ndarray, *, wide: bool, opset: int) -> dict[str, ir.Value]:
    """Reference, offsets and logits where they can be had, else locations and weights."""
    place: dict[str, ir.Value] = {name: q.get_or_none(name) for name in ("reference_points", "sampling_offsets") if name in known}
    logits = q.get_or_none("attention_logits") if "attention_logits" in known else None
    if len(place) < 2 or None in place.values():
        place = {}
    if wide and not place:
        beside = around(q.get_or_none("sampling_locations"), w, shapes[:, ::-1].astype(np.float64))
        place = {} if beside is None else {"reference_points": beside.reference, "sampling_offsets": beside.offsets}
    if wide and logits is None:
        logits = logits_of(q.get_or_none("attention_weights"), w, opset)
    if place and logits is not None:
        return {**place, "attention_logits": logits}
    return {name: q.get_or_none(name) for name in ("sampling_locations", "attention_weights")}


def raise_deform_conv(node: ir.Node, contract: Contract, builder: Builder) -> None:
    """Puts a canonical deformable convolution in the place of a contract's. ModelFileError as `raise_model`."""
    check_attributes(node, contract)
    ports = ports_of(node, contract)
    letters, window = deform_conv_sizes(node, contract, ports)
    q = Raised(ports, Retracing(builder, levels=1))
    inputs = [q.get_or_none(name) for name in canonical.DCN_INPUTS[:4]]
    if "bias" in ports and not _is_placeholder(ports["bias"], contract):
        inputs.append(ports["bias"])
    shape = output_shape(contract, letters)
    assert shape is not None, title_of(node, contract)
    _set_type(node.outputs[0], shape, ports["input"])
    builder.replace(node, canonical.DOMAIN, canonical.DCN, inputs, lower_window(canonical.DCN_CONTRACT, window))


def drop_unread(graph: ir.Graph, values: Iterable[ir.Value]) -> None:
    """Removes what makes these values, as far up as nothing else reads it; graph inputs and outputs stay."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        if node is None:
            if value.name is not None and value.name in graph.initializers:
                del graph.initializers[value.name]
        elif node.graph is graph and not any(output.uses() or output.is_graph_output() for output in node.outputs):
            waiting += [one for one in node.inputs if one is not None]
            graph.remove(node, safe=True)


def skip_reshapes(graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
    """Of these nodes, removes the reshapes that only undo or follow another: what one target flattens, the next takes apart again."""
    for node in nodes:
        if node.graph is not graph or node.domain or node.op_type != "Reshape":
            continue
        value, above = node.outputs[0], list(ancestors_in_order(node.inputs[0])) if node.inputs[0] is not None else []
        same = next((one for one in above if one.shape == value.shape), None)
        if same is not None and not value.is_graph_output():
            value.replace_all_uses_with(same)
            drop_unread(graph, [value])
        elif len(above) > 1 and node.inputs[0] is not None:
            old = node.inputs[0]
            node.replace_input_with(0, above[-1])
            drop_unread(graph, [old])


def _as_int64(value: ir.Value | None, array: np.ndarray, builder: Builder, name: str) -> ir.Value:
    """The value itself where it is such a constant, else a new one."""
    if value is not None and value.dtype == ir.DataType.INT64 and ir.convenience.get_const_tensor(value) is not None:
        return value
    return builder.constant(array, name)


def _is_placeholder(bias: ir.Value, contract: Contract) -> bool:
    """True for the zeros that stand where a contract demands a bias and the convolution has none."""
    demanded = any(port.form == "bias" and not port.optional for port in contract.inputs)
    return demanded and ir.convenience.get_const_tensor(bias) is not None and not constant_of(bias).any()


def _set_type(value: ir.Value, shape: tuple[int, ...], like: ir.Value) -> None:
    value.shape, value.type = ir.Shape(shape), like.type


def _merge_heads(node: ir.Node, op_type: str, inputs: list[ir.Value], merged: tuple[int, ...], builder: Builder) -> None:
    """The canonical node for one whose output has the heads on an axis of their own.

    A Reshape behind it that merges them is what the canonical output already is; any other reader gets them split again.
    """
    heads, graph = node.outputs[0], builder.graph
    _set_type(heads, (*merged[:2], *shape_of(inputs[0])[2:]), inputs[0])
    mergers = [reader for reader, index in heads.uses() if index == 0 and _merges(reader, merged)]
    output = ir.Value(name=mergers[0].outputs[0].name if mergers else f"{heads.name}_merged", type=heads.type, shape=ir.Shape(merged))
    notes = dict(node.metadata_props)
    new = ir.Node(canonical.DOMAIN, op_type, inputs, outputs=[output], name=node.name, metadata_props=notes)
    graph.insert_before(node, new)
    if mergers:
        old, shape = mergers[0].outputs[0], mergers[0].inputs[1]
        old.replace_all_uses_with(output, replace_graph_outputs=True)
        graph.remove(mergers[0], safe=True)
        drop_unread(graph, [shape] if shape is not None else [])
    if heads.uses() or heads.is_graph_output():
        sizes = builder.constant(np.array(shape_of(heads), np.int64), "shape")
        split = ir.Node("", "Reshape", [output, sizes], name=f"{node.name}_split")
        split.outputs[0].name, split.outputs[0].type, split.outputs[0].shape = heads.name, heads.type, heads.shape
        graph.insert_before(node, split)
        heads.replace_all_uses_with(split.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _merges(reader: ir.Node, merged: tuple[int, ...]) -> bool:
    shape = reader.outputs[0].shape
    return reader.op_type == "Reshape" and not reader.domain and shape is not None and shape.is_static() and shape.numpy() == merged
