"""The part of a graph around one custom node that a rewrite has changed, as a small model of its own.

Two graphs of the same network share most nodes. A region begins at values that both have and ends at one that both have: fed with
the same numbers, both regions must give the same.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

import onnx
from onnx import ModelProto, NodeProto, TypeProto

from ..forms import PORT_FORMS

_KEEP_ORDER = ("Reshape", "Unsqueeze", "Squeeze", "Identity")


class Region(NamedTuple):
    """Nodes in graph order, the values that are fed, and the value that comes out."""

    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    output: str


class Whole:
    """A model's main graph, to cut regions from."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self.order = {id(node): place for place, node in enumerate(graph.node)}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.types: dict[str, TypeProto] = {info.name: info.type for info in (*graph.input, *graph.value_info, *graph.output)}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def region(self, output: str, stop: Container[str]) -> Region:
        """What makes `output`, up to the values in `stop`; constants are inside."""
        waiting, seen, inputs = [output], set(), []
        nodes: dict[int, NodeProto] = {}
        while waiting:
            name = waiting.pop()
            if name in seen or not name or name in self.initializers:
                continue
            seen.add(name)
            node = self.producers.get(name)
            if node is None or (name in stop and name != output and node.op_type != "Constant"):
                inputs.append(name)
                continue
            nodes[self.order[id(node)]] = node
            waiting += node.input
        return Region(tuple(nodes[place] for place in sorted(nodes)), tuple(sorted(inputs)), output)

    def cut(self, region: Region, types: Whole) -> ModelProto:
        """A region as a model; what `types` knows of its values stands for what this graph does not tell."""
        def info(name: str) -> onnx.ValueInfoProto:
            return onnx.ValueInfoProto(name=name, type=self.types.get(name) or types.types[name])

        made = [name for node in region.nodes for name in node.output if name and name != region.output]
        read = {name for node in region.nodes for name in node.input}
        graph = onnx.helper.make_graph(
            list(region.nodes), "region", [info(name) for name in region.inputs], [info(region.output)],
            [self.initializers[name] for name in sorted(read & set(self.initializers))],
            value_info=[info(name) for name in made if name in self.types or name in types.types],
        )  # fmt: skip
        return onnx.helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version, functions=self.model.functions
        )

    def same_values(self, other: Whole) -> set[str]:
        """Names of values that the same node makes in both graphs, and of inputs that both have."""
        same = {info.name for info in self.model.graph.input} & {info.name for info in other.model.graph.input}
        same |= {name for name, node in self.producers.items() if name in other.producers and _key(node) == _key(other.producers[name])}
        return same


def holds(form: str) -> str:
    """What a port of this form holds, whatever its shape: `sampling_offsets_merged` → `sampling_offsets`."""
    base = form.removesuffix("_merged").removesuffix("_shared").removesuffix("_x").removesuffix("_y")
    return base if base in PORT_FORMS else form


def roles(whole: Whole, region: Region, ports: dict[str, str]) -> dict[str, str]:
    """Value → what it holds, for those that a custom node of the region reads, also further up through reshapes."""
    found: dict[str, str] = {}
    for name, form in ports.items():
        for above in _above(whole, name):
            found[above] = holds(form)
    return {name: found[name] for name in region.inputs if name in found}


def _above(whole: Whole, name: str) -> Iterator[str]:
    while True:
        yield name
        node = whole.producers.get(name)
        if node is None or node.domain or node.op_type not in _KEEP_ORDER:
            return
        name = node.input[0]


def _key(node: NodeProto) -> tuple[object, ...]:
    attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
    return node.domain, node.op_type, tuple(node.input), tuple(node.output), tuple(attributes)
