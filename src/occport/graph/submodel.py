"""Part of a model as a model of its own: the very nodes and weights between some tensors and others."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from ..errors import ModelFileError


def submodel(model: ModelProto, inputs: Iterable[str], outputs: Sequence[str], name: str) -> ModelProto:
    """The nodes that make `outputs` from `inputs`, with their weights, functions, types and opset.

    Args:
        model: whole or a skeleton; every tensor named here is typed in it.
        inputs: names of tensors where the part begins; those that nothing of it reads are left out. What the part reads beside them must
            be weights.
        outputs: names of tensors, in this order.
        name: of the new graph.

    Returns:
        A model whose big weights are still where those of `model` are; inputs in the order of `inputs`.
    Errors:
        ModelFileError for a tensor that the model does not have or that is a weight, and where the inputs do not suffice.
    """
    graph, begin = model.graph, list(dict.fromkeys(inputs))
    types = value_types(graph)
    for tensor in (*begin, *outputs):
        _check(tensor, types)
    nodes, read = needed(graph, begin, outputs)
    weights = [tensor for tensor in graph.initializer if tensor.name in read and tensor.name not in begin]
    known = {*begin, *(tensor.name for tensor in weights), *(made for node in nodes for made in node.output)}
    lost = [tensor for tensor in read if tensor not in known]
    if lost:
        expected = f"tensors from which {outputs[0]} follows"
        fix = f"begin at {', '.join(sorted(lost)[:5])}, too"
        raise ModelFileError(f"part {name}", expected=expected, got=", ".join(begin) or "none", fix=fix)
    made = {tensor for node in nodes for tensor in node.output}
    part = onnx.helper.make_graph(
        nodes, name,
        [types[tensor] for tensor in begin if tensor in read or tensor in outputs],
        [types[tensor] for tensor in outputs],
        weights,
        value_info=[info for info in types.values() if info.name in made and info.name not in outputs],
    )  # fmt: skip
    used = [(function.domain, function.name) for function in model.functions]
    functions = model.functions if {(node.domain, node.op_type) for node in nodes} & set(used) else []
    result = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version, functions=list(functions))
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    return result


def needed(graph: GraphProto, inputs: Iterable[str], outputs: Iterable[str]) -> tuple[list[NodeProto], set[str]]:
    """The nodes between some tensors and others, in graph order, and every tensor that they read, with outputs that are inputs too."""
    begin, wanted = set(inputs), set(outputs)
    nodes = []
    read = wanted & begin
    wanted -= begin
    for node in reversed(graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            read |= set(filter(None, node.input))
            wanted |= set(filter(None, node.input)) - begin
    return nodes[::-1], read


def value_types(graph: GraphProto) -> dict[str, ValueInfoProto]:
    """Name → type of every tensor of a main graph that is no weight, as far as it is told."""
    weights = {tensor.name for tensor in graph.initializer}
    return {info.name: info for info in (*graph.input, *graph.value_info, *graph.output) if info.name not in weights}


def _check(name: str, types: dict[str, ValueInfoProto]) -> None:
    if name in types:
        return
    near = difflib.get_close_matches(name, types, n=1)
    fix = f"did you mean {near[0]!r}?" if near else "`occport golden MODEL.onnx --list` prints the names"
    raise ModelFileError(f"tensor {name!r}", expected=f"one of the {len(types)} typed tensors of the graph", got="an unknown name", fix=fix)
