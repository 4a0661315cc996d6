"""The places of a model in which nodes stand: the main graph, the subgraphs of its nodes, and the bodies of functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Scope:
    """One list of nodes and what it can read besides."""

    where: str  # "" for the main graph
    nodes: Sequence[onnx.NodeProto]
    graph: onnx.GraphProto | None  # None for a function
    function: onnx.FunctionProto | None = None
    outer: Scope | None = None

    @property
    def inputs(self) -> list[str]:
        """Names that it can read before its first node: inputs and initializers."""
        if self.graph is None:
            assert self.function is not None
            return list(self.function.input)
        sparse = [tensor.values.name for tensor in self.graph.sparse_initializer]
        return [*(value.name for value in self.graph.input), *(tensor.name for tensor in self.graph.initializer), *sparse]

    @property
    def outputs(self) -> list[str]:
        """Names that it gives."""
        if self.graph is None:
            assert self.function is not None
            return list(self.function.output)
        return [value.name for value in self.graph.output]

    def visible(self) -> set[str]:
        """Every name that a subgraph in it may read."""
        around = self.outer.visible() if self.outer is not None else set()
        return around | set(self.inputs) | {name for node in self.nodes for name in node.output}


def scopes(model: onnx.ModelProto) -> Iterator[Scope]:
    """Every scope, the main graph first, a scope before those inside it."""
    yield from _with_subgraphs(Scope("", model.graph.node, model.graph))
    for function in model.functions:
        yield from _with_subgraphs(Scope(f"function {function.domain}::{function.name}", function.node, None, function))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def operator_of(node: onnx.NodeProto) -> str:
    """DOMAIN::NAME, or NAME alone for ONNX's own domain."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"


def label(node: onnx.NodeProto) -> str:
    """What to call a node: its name, or that of its first output where it has none."""
    return node.name or next(filter(None, node.output), "") or operator_of(node)


def is_custom(node: onnx.NodeProto) -> bool:
    """True for a node of another domain, and for one in ONNX's own that ONNX does not know at any opset."""
    return node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, "")


def _with_subgraphs(scope: Scope) -> Iterator[Scope]:
    yield scope
    for node in scope.nodes:
        for graph in subgraphs(node):
            yield from _with_subgraphs(Scope(f"in {label(node)}", graph.node, graph, scope.function, scope))
