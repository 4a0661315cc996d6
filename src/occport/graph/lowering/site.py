"""The place where one node is rewritten: what it reads, and how new nodes are put in front of it.

A node is never thrown away. Helper nodes are put before it, and then it *becomes* the last operator of its replacement: its
name, its outputs (names, types, shapes, places among the graph outputs) and its metadata stay as they were. Helpers are called
`<name>_<suffix>`, carry the same metadata, and every one of their values has a type and, where the node's shapes are known, a shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ExportError

Shape: TypeAlias = tuple[int, ...]
AttributeValue: TypeAlias = int | float | str | Sequence[int]
Array: TypeAlias = npt.NDArray[np.generic]


def bodies(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    """The main graph, then every model-local function. Subgraphs (If, Loop) are inside of these."""
    yield model.graph
    yield from model.functions.values()


def body_nodes(body: ir.Graph | ir.Function) -> list[ir.Node]:
    """Every node of `body` and its subgraphs, in order, as a list that stays right while nodes are added or removed."""
    return list(ir.traversal.RecursiveGraphIterator(body))


def static_shape(value: ir.Value | None) -> Shape | None:
    """The shape as integers, or None where the value is absent or a dimension is unknown."""
    if value is None or value.shape is None:
        return None
    dims = tuple(dim for dim in value.shape if isinstance(dim, int))
    return dims if len(dims) == len(value.shape) else None


def constant_array(value: ir.Value | None) -> Array | None:
    """The numbers of an initializer or a Constant node; None for anything a run could change."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def _names(model: ir.Model) -> set[str]:
    names: set[str] = set()
    for body in bodies(model):
        names.update(value.name for value in body.inputs if value.name)
        for graph in (body, *body.subgraphs()):
            if isinstance(graph, ir.Graph):
                names.update(graph.initializers)
        for node in body_nodes(body):
            names.add(node.name or "")
            names.update(value.name for value in node.outputs if value.name)
    return names


def sites(model: ir.Model, *ops: str) -> Iterator[Site]:
    """A `Site` for each node of the default domain whose operator is in `ops`: main graph, subgraphs, functions."""
    names = _names(model)
    for body in bodies(model):
        for node in body_nodes(body):
            if node.domain == "" and node.op_type in ops:
                yield Site(node, isinstance(body, ir.Function), names)


@dataclass(frozen=True, slots=True)
class Site:
    """One node to rewrite. `names` holds every name of the model, so that new ones are free."""

    node: ir.Node
    in_function: bool
    names: set[str]

    @property
    def name(self) -> str:
        """The node's name; that of its first output where it has none."""
        return self.node.name or self.node.outputs[0].name or self.node.op_type

    def refuse(self, *, expected: str, got: str, fix: str) -> ExportError:
        """The error that says why this node cannot be rewritten."""
        return ExportError(f"node '{self.name}' ({self.node.op_type})", expected=expected, got=got, fix=fix)

    def input(self, index: int) -> ir.Value | None:
        """Input `index`, None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def required(self, index: int) -> ir.Value:
        """Input `index`. Errors: ExportError where it is left out."""
        value = self.input(index)
        if value is None:
            raise self.refuse(expected=f"an input {index}", got="none", fix="the model is not valid ONNX; export it again")
        return value

    def shape(self, index: int, why: str) -> Shape:
        """Static shape of input `index`. Errors: ExportError where a dimension is unknown; `why` says what it is needed for."""
        shape = static_shape(self.required(index))
        if shape is None:
            raise self.refuse(expected=f"a static shape of input {index} ({why})", got="an unknown one", fix="run shape inference before")
        return shape

    def constant_ints(self, index: int, what: str) -> tuple[int, ...]:
        """Input `index` as integers. Errors: ExportError where it is not a constant."""
        array = constant_array(self.required(index))
        if array is None:
            fix = "export with fixed values, or choose a later opset"
            raise self.refuse(expected=f"constant {what}", got="values that are computed", fix=fix)
        return tuple(int(number) for number in array.reshape(-1))

    def attribute(self, name: str) -> ir.Attr | None:
        """An attribute, None where it is absent. Errors: ExportError where it is a function's parameter (`@name`)."""
        attribute = self.node.attributes.get(name)
        if attribute is not None and attribute.is_ref():
            raise self.refuse(expected=f"a value of attribute {name}", got="a function parameter", fix="write the value into the function")
        return attribute

    def int_attribute(self, name: str, default: int) -> int:
        """An INT attribute or its default."""
        attribute = self.attribute(name)
        return default if attribute is None else attribute.as_int()

    def constant(self, suffix: str, array: Array) -> ir.Value:
        """A new constant `<name>_<suffix>`: an initializer, or inside a function (which has none) a Constant node."""
        name = self._free(suffix)
        tensor = ir.tensor(array, name=name)
        if not self.in_function:
            value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
            graph = self.node.graph
            assert isinstance(graph, ir.Graph), "a node of the main graph or of a subgraph belongs to a graph"
            graph.register_initializer(value)
            return value
        output = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
        self.node.prepend(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[output], name=name))
        return output

    def scalar(self, suffix: str, number: float, dtype: ir.DataType) -> ir.Value:
        """A new rank-0 constant of `dtype`."""
        return self.constant(suffix, np.asarray(number).astype(dtype.numpy()))

    def scalar_row(self, suffix: str, number: float, length: int, dtype: ir.DataType) -> ir.Value:
        """A new constant (length,) of `dtype`, the same number everywhere."""
        return self.constant(suffix, np.full(length, number).astype(dtype.numpy()))

    def before(
        self, suffix: str, op: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, AttributeValue] | None = None, *,
        dtype: ir.DataType | None, shape: Shape | None,
    ) -> ir.Value:
        """A new node `<name>_<suffix>` in front of this one. Returns its output, which is called the same."""
        name = self._free(suffix)
        output = ir.Value(
            name=name, shape=None if shape is None else ir.Shape(shape), type=None if dtype is None else ir.TensorType(dtype),
        )
        made = ir.Node(
            "", op, inputs, ir.convenience.convert_attributes(dict(attributes or {})), outputs=[output], name=name,
            metadata_props=dict(self.node.metadata_props),
        )
        self.node.prepend(made)
        return output

    def become(self, op: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """This node turns into operator `op` with these inputs and attributes; name, outputs and metadata stay."""
        self.node.op_type = op
        self.set_inputs(inputs)
        self.node.attributes.clear()
        for attribute in ir.convenience.convert_attributes(dict(attributes or {})):
            self.node.attributes[attribute.name] = attribute

    def set_inputs(self, inputs: Sequence[ir.Value | None]) -> None:
        """Replaces all inputs."""
        self.node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            self.node.replace_input_with(index, value)

    def only_output(self, fix: str) -> None:
        """Errors: ExportError where an output other than the first is used."""
        for output in self.node.outputs[1:]:
            if output.name and (output.uses() or output.is_graph_output()):
                raise self.refuse(expected="only the first output in use", got=f"a use of '{output.name}'", fix=fix)
        self.node.resize_outputs(1)

    def _free(self, suffix: str) -> str:
        name = stem = f"{self.name}_{suffix}"
        number = 1
        while name in self.names:
            number += 1
            name = f"{stem}_{number}"
        self.names.add(name)
        return name
