"""Function bodies: each custom node computed with standard operators, so that stock ONNX Runtime can run it.

A body raises a contract's ports to what the arithmetic needs (locations and weights; input, offset, mask) and goes on from
there. Sizes are taken from the inputs at run time, since one body serves all nodes of its name; ONNX Runtime folds them.

| operator | opset 11..15 | 16..18 | 19.. |
|---|---|---|---|
| bilinear sampling | com.microsoft::GridSample | GridSample | GridSample |
| deformable convolution | GridSample + Conv | GridSample + Conv | DeformConv |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import onnx_ir as ir

from . import canonical
from .build import AttributeValue
from .contract import Attribute, Contract, Port
from .dialect import Dialect

_T = TypeVar("_T")
FIRST_DEFORM_CONV = 19  # opset
OPSETS_IN_FILES = range(16, 23)  # below 16 a body needs com.microsoft, which a file for another runtime cannot have

CANONICAL_MSDA = Contract(
    canonical.DOMAIN,
    canonical.VERSION,
    canonical.MSDA,
    inputs=tuple(Port(form, "float32", 0, name=form) for form in canonical.MSDA_INPUTS),
    output=Port("heads_merged", "float32", 3),
)
CANONICAL_DCN = Contract(
    canonical.DOMAIN,
    canonical.VERSION,
    canonical.DCN,
    inputs=tuple(Port(form, "float32", 0, name=form, optional=form == "bias") for form in canonical.DCN_INPUTS),
    output=Port("map", "float32", 4),
    attributes=tuple(Attribute(form, "int" if form.endswith("groups") else "ints", form) for form in canonical.DCN_ATTRIBUTES),
)


class Body:
    """The nodes of one function body, in order."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[ir.Node] = []

    def op(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", attributes: Mapping[str, AttributeValue] | None = None
    ) -> ir.Value:
        """A node with one output."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        node = ir.Node(domain, op_type, list(inputs), ir.convenience.convert_attributes(dict(attributes or {})), name=name)
        node.outputs[0].name = name
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, values: object, dtype: str = "int64") -> ir.Value:
        """A Constant node."""
        array = np.array(values, dtype)
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(array))], name=f"constant_{len(self.nodes)}")
        node.outputs[0].name = node.name
        self.nodes.append(node)
        return node.outputs[0]

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """(1) int64: the size along an axis."""
        return self.op("Gather", self.op("Shape", value), self.constant([axis]), attributes={"axis": 0})

    def reshape(self, value: ir.Value, *parts: int | ir.Value) -> ir.Value:
        """Reshape to sizes that are numbers (0 copies, -1 is the rest) or (n) int64 values."""
        if all(isinstance(part, int) for part in parts):
            return self.op("Reshape", value, self.constant(list(parts)))
        joined = [self.constant([part]) if isinstance(part, int) else part for part in parts]
        return self.op("Reshape", value, self.op("Concat", *joined, attributes={"axis": 0}))

    def transpose(self, value: ir.Value, *perm: int) -> ir.Value:
        """Permutes the axes."""
        return self.op("Transpose", value, attributes={"perm": list(perm)})

    def on_axes(
        self, op_type: str, value: ir.Value, axes: Sequence[int], attributes: Mapping[str, AttributeValue] | None = None
    ) -> ir.Value:
        """Unsqueeze, Squeeze or ReduceSum, whose axes became an input at opset 13."""
        if self.opset >= 13:
            return self.op(op_type, value, self.constant(list(axes)), attributes=attributes)
        return self.op(op_type, value, attributes={**(attributes or {}), "axes": list(axes)})

    def grid_sample(self, image: ir.Value, grid: ir.Value) -> ir.Value:
        """Bilinear, zeros outside, align_corners 0. (X, C, H, W), (X, h, w, 2) → (X, C, h, w)."""
        domain, mode = ("com.microsoft", "bilinear") if self.opset < 16 else ("", "bilinear" if self.opset < 20 else "linear")
        return self.op("GridSample", image, grid, domain=domain, attributes={"mode": mode, "padding_mode": "zeros", "align_corners": 0})

    def function(self, contract: Contract, inputs: Sequence[ir.Value], output: ir.Value) -> ir.Function:
        """The finished function under the contract's name."""
        output.name = "output"
        imports = {"": self.opset}
        if any(node.domain for node in self.nodes):
            imports["com.microsoft"] = 1
        graph = ir.Graph(list(inputs), [output], nodes=self.nodes, opset_imports=imports)
        parameters = [ir.Attr(attribute.name, ir.AttributeType.UNDEFINED, None) for attribute in contract.attributes]
        return ir.Function(contract.domain, contract.op_type, "", graph=graph, attributes=parameters)


def attention_body(contract: Contract, opset: int, levels: int) -> ir.Function:
    """The attention of a contract as a function: one GridSample per level."""
    b = Body(opset)
    inputs = {port.form: ir.Value(name=port.name) for port in contract.inputs}
    # Reshape and Slice take int64 alone
    narrow = [port.form for port in contract.inputs if port.dtype == "int32" and port.form in ("spatial_shapes", "level_start_index")]
    ports = inputs | {form: b.op("Cast", inputs[form], attributes={"to": int(ir.DataType.INT64)}) for form in narrow}
    value, shapes = ports["value"], ports["spatial_shapes"]
    locations = ports["sampling_locations"] if "sampling_locations" in ports else _raise_locations(b, ports)
    weights = ports["attention_weights"] if "attention_weights" in ports else _raise_weights(b, ports["attention_logits"])
    images, queries, points = b.size(value, 0), b.size(locations, 1), b.size(locations, 4)
    maps = b.transpose(value, 0, 2, 3, 1)  # (A, M, D, S)
    grid = b.op("Sub", b.op("Mul", locations, b.constant(2, "float32")), b.constant(1, "float32"))
    total: ir.Value | None = None
    for level in range(levels):
        level_maps, level_grid, level_weights, hw = maps, grid, weights, shapes
        if levels > 1:
            hw = b.op("Slice", shapes, b.constant([level]), b.constant([level + 1]), b.constant([0]))
            start = b.op("Slice", ports["level_start_index"], b.constant([level]), b.constant([level + 1]))
            area = b.op("Mul", b.op("Gather", b.reshape(hw, 2), b.constant([0])), b.op("Gather", b.reshape(hw, 2), b.constant([1])))
            level_maps = b.op("Slice", maps, start, b.op("Add", start, area), b.constant([3]))
            level_grid = b.op("Slice", grid, b.constant([level]), b.constant([level + 1]), b.constant([3]))
            level_weights = b.op("Slice", weights, b.constant([level]), b.constant([level + 1]), b.constant([3]))
        image = b.reshape(level_maps, -1, b.size(value, 3), b.reshape(hw, 2))  # (A*M, D, h, w)
        where = b.reshape(b.transpose(b.reshape(level_grid, 0, 0, 0, -1, 2), 0, 2, 1, 3, 4), -1, queries, points, 2)
        share = b.reshape(b.transpose(b.reshape(level_weights, 0, 0, 0, -1), 0, 2, 1, 3), -1, 1, queries, points)
        found = b.on_axes("ReduceSum", b.op("Mul", b.grid_sample(image, where), share), [3], {"keepdims": 0})  # (A*M, D, Q)
        total = found if total is None else b.op("Add", total, found)
    assert total is not None
    return b.function(contract, list(inputs.values()), b.transpose(b.reshape(total, images, -1, queries), 0, 2, 1))


def _raise_locations(b: Body, ports: Mapping[str, ir.Value]) -> ir.Value:
    """reference (A, Q, L, 2) + offsets (A, Q, M, L, P, 2) / (w, h)."""
    hw = b.op("Cast", ports["spatial_shapes"], attributes={"to": int(ir.DataType.FLOAT)})  # (L, 2)
    wh = b.on_axes("Unsqueeze", b.op("Gather", hw, b.constant([1, 0]), attributes={"axis": 1}), [1])  # (L, 1, 2)
    reference = b.on_axes("Unsqueeze", ports["reference_points"], [2, 4])
    return b.op("Add", reference, b.op("Div", ports["sampling_offsets"], wh))


def _raise_weights(b: Body, logits: ir.Value) -> ir.Value:
    """Softmax over levels and points of (A, Q, M, L, P)."""
    return b.op("Reshape", b.op("Softmax", b.reshape(logits, 0, 0, 0, -1), attributes={"axis": 3}), b.op("Shape", logits))


class Window(NamedTuple):
    """What a deformable convolution's body has written into it, read off a node."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    deform_groups: int
    with_bias: bool


def _window(node: ir.Node, contract: Contract) -> Window:
    forms = [port.form for port in contract.inputs]
    weight = node.inputs[forms.index("weight")]
    assert weight is not None and weight.shape is not None
    at = {attribute.form: node.attributes[attribute.name] for attribute in contract.attributes if attribute.form}
    stride, padding, dilation = (tuple(int(size) for size in at[form].as_ints()) for form in ("stride", "padding", "dilation"))
    bias = dict(zip(forms, node.inputs, strict=False)).get("bias")
    groups, deform_groups = at["groups"].as_int(), at["deform_groups"].as_int()
    return Window(weight.shape.numpy()[2:], stride, padding, dilation, groups, deform_groups, bias is not None)


def deform_conv_body(contract: Contract, opset: int, window: Window) -> ir.Function:
    """The deformable convolution of a contract as a function, for nodes that have this window.

    Sizes are written into the body: the padding of DeformConv cannot be taken from a two-number attribute.
    """
    b = Body(opset)
    ports = {port.form: ir.Value(name=port.name) for port in contract.inputs if port.form != "bias" or window.with_bias}
    if opset < FIRST_DEFORM_CONV:
        return b.function(contract, list(ports.values()), _sampled_conv(b, ports, window))
    output = b.op(
        "DeformConv", ports["input"], ports["weight"], ports["offset"], ports.get("bias"), ports["mask"],
        attributes={
            "strides": list(window.stride), "pads": list(window.padding * 2), "dilations": list(window.dilation),
            "group": window.groups, "offset_group": window.deform_groups,
        },
    )  # fmt: skip
    return b.function(contract, list(ports.values()), output)


def _sampled_conv(b: Body, ports: Mapping[str, ir.Value], window: Window) -> ir.Value:
    """GridSample over the stacked taps, times the mask, then a 1x1 Conv over channels x taps."""
    kh, kw = window.kernel
    T = kh * kw
    rows, columns = b.size(ports["offset"], 2), b.size(ports["offset"], 3)
    offset = b.reshape(ports["offset"], -1, T, 2, rows, columns)  # (A*G, T, 2, Ho, Wo)
    axes = []
    for axis, (name, taps) in enumerate((("y", np.repeat(np.arange(kh), kw)), ("x", np.tile(np.arange(kw), kh)))):
        count, size = (rows, b.size(ports["input"], 2)) if name == "y" else (columns, b.size(ports["input"], 3))
        steps = b.op("Range", b.constant(0), b.on_axes("Squeeze", count, [0]), b.constant(1))
        base = b.op("Mul", b.op("Cast", steps, attributes={"to": int(ir.DataType.FLOAT)}), b.constant(window.stride[axis], "float32"))
        base = b.reshape(base, -1, 1) if name == "y" else base  # (Ho, 1) or (Wo)
        tap = b.constant((taps * window.dilation[axis] - window.padding[axis]).reshape(T, 1, 1), "float32")
        moved = b.op("Gather", offset, b.constant(axis), attributes={"axis": 2})  # (A*G, T, Ho, Wo)
        position = b.op("Add", moved, b.op("Add", base, tap))
        # pixel p is grid (2p + 1) / size - 1
        doubled = b.op("Add", b.op("Mul", position, b.constant(2, "float32")), b.constant(1, "float32"))
        length = b.op("Cast", size, attributes={"to": int(ir.DataType.FLOAT)})
        axes.append(b.on_axes("Unsqueeze", b.op("Sub", b.op("Div", doubled, length), b.constant(1, "float32")), [4]))
    grid = b.reshape(b.op("Concat", axes[1], axes[0], attributes={"axis": 4}), 0, -1, columns, 2)  # (A*G, T*Ho, Wo, 2)
    image = ports["input"]
    if window.deform_groups > 1:
        per_group = b.op("Div", b.size(image, 1), b.constant([window.deform_groups]))
        image = b.reshape(image, -1, per_group, b.size(image, 2), b.size(image, 3))
    found = b.op("Mul", b.grid_sample(image, grid), b.reshape(ports["mask"], b.size(grid, 0), 1, -1, columns))
    channels = b.op("Mul", b.size(ports["input"], 1), b.constant([T]))
    stacked = b.reshape(found, b.size(ports["input"], 0), channels, rows, columns)  # channels outer, taps inner
    kernel = b.reshape(ports["weight"], 0, -1, 1, 1)
    convolved = [stacked, kernel, *([ports["bias"]] if "bias" in ports else [])]
    return b.op("Conv", *convolved, attributes={"group": window.groups})


def functions_for(model: ir.Model, dialect: Dialect, opset: int) -> list[ir.Function]:
    """The bodies for every custom node of a model in this dialect (or in the canonical form, for a dialect without contracts).

    Nodes of one name share one body; it is our own bug if they differ in what the body cannot take from its inputs.
    """
    contracts = (dialect.msda or CANONICAL_MSDA, dialect.dcn or CANONICAL_DCN)
    bodies = []
    for contract, is_attention in zip(contracts, (True, False), strict=True):
        nodes = [node for node in model.graph if (node.domain, node.op_type) == (contract.domain, contract.op_type)]
        if nodes and is_attention:
            bodies.append(attention_body(contract, opset, _shared([_levels(node, contract) for node in nodes])))
        elif nodes:
            bodies.append(deform_conv_body(contract, opset, _shared([_window(node, contract) for node in nodes])))
    return bodies


def _shared(found: list[_T]) -> _T:
    assert len(set(found)) == 1, f"one body for nodes that differ: {sorted(map(str, set(found)))}"
    return found[0]


def _levels(node: ir.Node, contract: Contract) -> int:
    shapes = node.inputs[[port.form for port in contract.inputs].index("spatial_shapes")]
    assert shapes is not None and shapes.shape is not None
    return shapes.shape.numpy()[0]
