"""Who reads what: values that nobody makes, nodes out of order, names that are taken twice, inputs that reach no output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx

from ..names import IDENTIFIER
from .finding import NOTE, Finding
from .scopes import Scope, label, scopes, subgraphs


def check_wiring(model: onnx.ModelProto) -> list[Finding]:
    """What makes a graph no graph: values without a maker, or with two, and nodes that stand before what they read."""
    return [finding for scope in scopes(model) for finding in _check_scope(scope)]


def check_names(model: onnx.ModelProto) -> Iterator[Finding]:
    """Notes on names that some compilers stumble over: nodes without one or with another's, and what is no C identifier."""
    nodes = Counter(node.name for scope in scopes(model) if scope.function is None for node in scope.nodes)
    for name, count in nodes.items():
        if not name:
            fix = "name them: compilers report by name"
            yield Finding("", "node names", "a name for every node", f"{count} without one", fix, NOTE)
        elif count > 1:
            yield Finding(name, "node name", "each name once", f"{count} nodes of this name", "rename all but one", NOTE)
    fix = "some compilers make variables of names: letters, digits and _ are safe"
    values = dict.fromkeys(name for scope in scopes(model) if scope.function is None for name in _values(scope))
    for what, names in (("name of a value", values), ("name of a node", nodes)):
        bad = [name for name in names if name and not IDENTIFIER.match(name)]
        if bad:
            yield Finding("", what, "a C identifier", f"{bad[0]!r}" + f" and {len(bad) - 1} more" * (len(bad) > 1), fix, NOTE)


def unreachable_inputs(model: onnx.ModelProto, besides: str = "dropped") -> list[str]:
    """Graph inputs from which no output can be reached; `besides` is the file's name of an output that does not count.

    Inputs that have an initializer too, as old files do, are weights and not looked at.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in _reads(node):
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output} - {besides}
    weights = {tensor.name for tensor in model.graph.initializer}
    lost = []
    for value in model.graph.input:
        seen, waiting = {value.name}, [value.name]
        while waiting:
            for node in readers.get(waiting.pop(), []):
                fresh = [name for name in node.output if name not in seen]
                seen.update(fresh)
                waiting += fresh
        if not outputs & seen and value.name not in weights:
            lost.append(value.name)
    return lost


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Every name that a node reads, those that its subgraphs take from outside too."""
    yield from node.input
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from _reads(inner)
        yield from (value.name for value in graph.output)


def _check_scope(scope: Scope) -> Iterator[Finding]:
    later = Counter(name for node in scope.nodes for name in node.output if name)
    ready = (scope.outer.visible() if scope.outer is not None else set()) | set(scope.inputs)
    for name, count in later.items():
        if count > 1 or name in scope.inputs:
            yield Finding(scope.where, f"value {name}", "one maker", "several", "no reader can tell which is meant: rename one")
    for node in scope.nodes:
        for name in dict.fromkeys(node.input):
            if name and name not in ready:
                yield _unready(node, name, later)
        ready.update(node.output)
    for name in scope.outputs:
        if name not in ready:
            yield Finding(scope.where, f"output {name}", "a node that makes it", "none")


def _unready(node: onnx.NodeProto, name: str, later: Iterable[str]) -> Finding:
    if name in later:
        return Finding(label(node), f"input {name}", "a node before this one that makes it", "one behind it", "sort the nodes")
    fix = "a value was renamed or a node lost"
    return Finding(label(node), f"input {name}", "a graph input, an initializer or a node that makes it", "none", fix)


def _values(scope: Scope) -> Iterator[str]:
    yield from scope.inputs
    for node in scope.nodes:
        yield from node.output
