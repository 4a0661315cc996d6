"""Writing nodes into a graph: typed, named after the node they serve, and each constant only once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

AttributeValue = int | float | str | list[int]


class Builder:
    """Writes new nodes in front of one node after the other; constants and shared results are kept for the whole graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._constants: dict[tuple[bytes, str, tuple[int, ...], str], ir.Value] = {}
        self._shared: dict[tuple[str, str, tuple[int, ...]], ir.Value] = {}
        self._at: ir.Node | None = None
        self._taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
        self._taken |= {output.name for node in graph for output in node.outputs}

    def at(self, node: ir.Node) -> Builder:
        """From now on writes in front of this node."""
        self._at = node
        return self

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        suffix: str,
        dtype: ir.DataType | None = None,
        domain: str = "",
    ) -> ir.Value:
        """One node with one output of the given static shape; dtype is the first input's unless told."""
        assert self._at is not None and self._at.name is not None
        name = self._free(f"{self._at.name}_{suffix}")
        if dtype is None:
            first = inputs[0]
            assert first is not None and first.dtype is not None
            dtype = first.dtype
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        node = ir.Node(domain, op_type, inputs, _attributes(attributes or {}), outputs=[output], name=name)
        self.graph.insert_before(self._at, node)
        return output

    def reshape(self, value: ir.Value, shape: Sequence[int], suffix: str) -> ir.Value:
        """Reshape to a static shape."""
        return self.op("Reshape", [value, self.constant(np.array(shape, np.int64), "shape")], shape, suffix=suffix)

    def shared(self, op_type: str, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """A Reshape that several nodes want of the same value; made in front of the first of them."""
        assert op_type == "Reshape" and value.name is not None
        key = (op_type, value.name, tuple(shape))
        if key not in self._shared:
            self._shared[key] = self.reshape(value, shape, "reference")
        return self._shared[key]

    def constant(self, array: np.ndarray, suffix: str) -> ir.Value:
        """An initializer; equal ones are made once."""
        return self._constant(array, suffix, "initializer")

    def constant_node(self, array: np.ndarray, suffix: str) -> ir.Value:
        """A Constant node at the beginning of the graph; equal ones are made once."""
        return self._constant(array, suffix, "node")

    def replace(
        self, node: ir.Node, domain: str, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, AttributeValue]
    ) -> ir.Node:
        """Puts another one-output node in the place of `node`, with its name, output name, type and metadata."""
        old = node.outputs[0]
        output = ir.Value(name=old.name, type=old.type, shape=old.shape)
        notes = dict(node.metadata_props)
        new = ir.Node(domain, op_type, inputs, _attributes(attributes), outputs=[output], name=node.name, metadata_props=notes)
        ir.convenience.replace_nodes_and_values(self.graph, node, [node], [new], [old], [output])
        return new

    def _free(self, wanted: str) -> str:
        """The name, with a number behind it where the graph has it already."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name

    def _constant(self, array: np.ndarray, suffix: str, place: str) -> ir.Value:
        key = (array.tobytes(), str(array.dtype), array.shape, place)
        if key not in self._constants:
            name = self._free(f"const_{suffix}_{len(self._constants)}")
            tensor = ir.tensor(array, name=name)
            kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
            if place == "initializer":
                value = ir.Value(name=name, const_value=tensor, type=kind, shape=shape)
                self.graph.register_initializer(value)
            else:
                value = ir.Value(name=name, type=kind, shape=shape)
                node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[value], name=name)
                self.graph.insert_before(self.graph[0], node)
            self._constants[key] = value
        return self._constants[key]


def _attributes(values: Mapping[str, AttributeValue]) -> list[ir.Attr]:
    return ir.convenience.convert_attributes(dict(values))
