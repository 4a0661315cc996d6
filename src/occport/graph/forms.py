"""Forms: the closed list of what a port or attribute of a custom node can hold, and how each is made of the canonical node.

`lower_*` writes a contract's node for a canonical one. The other direction, from a contract's ports to what the arithmetic
needs, is `functions.py`. Letters as in `canonical.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from . import canonical
from .build import Builder
from .contract import Contract, Port

SCALARS = ("num_images", "num_queries", "num_embed")
ATTRIBUTE_FORMS = ("stride", "padding", "dilation", "groups", "deform_groups")


class Attention:
    """A canonical attention node while it is lowered: its inputs and sizes, and a builder that writes in front of it."""

    def __init__(self, node: ir.Node, builder: Builder, contract: Contract) -> None:
        self.builder, self.contract = builder, contract
        inputs = [value for value in node.inputs if value is not None]
        self.value, self.spatial_shapes, self.level_start_index, self.reference_points, self.offsets, self.logits = inputs
        self.A, _, self.M, self.D = sizes_of(self.value)
        _, self.Q, _, self.L, self.P = sizes_of(self.logits)

    def scalar(self, form: str) -> int:
        """The number that a scalar port of this form holds."""
        embed = self.M * self.D if self.contract.num_embed == "all" else self.D
        return {"num_images": self.A, "num_queries": self.Q, "num_embed": embed}[form]


def sizes_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value; it is our own bug when there is none."""
    assert value.shape is not None and value.shape.is_static(), value
    return value.shape.numpy()


def _locations(node: Attention, port: Port) -> ir.Value:
    """location = reference + offset / (w, h)."""
    b = node.builder
    reference = b.shared("Reshape", node.reference_points, [node.A, node.Q, 1, node.L, 1, 2])
    sizes = ir.convenience.get_const_tensor(node.spatial_shapes)
    assert sizes is not None
    divisor = sizes.numpy()[:, ::-1].astype(np.float32).reshape(node.L, 1, 2)
    offset = b.op("Div", [node.offsets, b.constant(divisor, "map_size")], sizes_of(node.offsets), suffix="offset_in_maps")
    return b.op("Add", [reference, offset], sizes_of(node.offsets), suffix="locations")


def _weights(node: Attention, port: Port) -> ir.Value:
    """Softmax over levels and points."""
    b, full = node.builder, sizes_of(node.logits)
    if node.L == 1:
        return b.op("Softmax", [node.logits], full, {"axis": 4}, suffix="weights")
    flat = b.reshape(node.logits, [node.A, node.Q, node.M, node.L * node.P], "logits_flat")
    return b.reshape(b.op("Softmax", [flat], sizes_of(flat), {"axis": 3}, suffix="softmax"), list(full), "weights")


def _sizes(which: str) -> Callable[[Attention, Port], ir.Value]:
    def lower(node: Attention, port: Port) -> ir.Value:
        source: ir.Value = getattr(node, which)
        tensor = ir.convenience.get_const_tensor(source)
        assert tensor is not None
        return _placed(node, port, tensor.numpy().astype(port.dtype), which)

    return lower


def _scalar(form: str) -> Callable[[Attention, Port], ir.Value]:
    def lower(node: Attention, port: Port) -> ir.Value:
        return _placed(node, port, np.full((1,) * port.rank, node.scalar(form), port.dtype), form)

    return lower


def _placed(node: Attention, port: Port, array: np.ndarray, suffix: str) -> ir.Value:
    """A number where the contract wants it: a Constant node, or else an initializer."""
    make = node.builder.constant_node if port.place == "constant" else node.builder.constant
    return make(array, suffix)


# what an attention port can hold → how it is made; deformable convolution's ports are the canonical ones
PORT_FORMS: dict[str, Callable[[Attention, Port], ir.Value] | None] = {
    "value": lambda node, _: node.value,
    "spatial_shapes": _sizes("spatial_shapes"),
    "level_start_index": _sizes("level_start_index"),
    "sampling_locations": _locations,
    "attention_weights": _weights,
    "reference_points": lambda node, _: node.reference_points,
    "sampling_offsets": lambda node, _: node.offsets,
    "attention_logits": lambda node, _: node.logits,
    "num_images": _scalar("num_images"),
    "num_queries": _scalar("num_queries"),
    "num_embed": _scalar("num_embed"),
    "heads_merged": None,  # output (A, Q, M*D)
    "input": None,
    "offset": None,
    "mask": None,
    "weight": None,
    "bias": None,
    "map": None,  # output (A, O, Ho, Wo)
}


def lower_attention(node: ir.Node, contract: Contract, builder: Builder) -> None:
    """Puts the contract's node in the place of a canonical attention node."""
    source = Attention(node, builder, contract)
    inputs = []
    for port in contract.inputs:
        lower = PORT_FORMS[port.form]
        assert lower is not None, f"{port.form} is no attention form"
        inputs.append(lower(source, port))
    attributes = {attribute.name: attribute.default for attribute in contract.attributes}
    builder.replace(node, contract.domain, contract.op_type, inputs, attributes)


def lower_deform_conv(node: ir.Node, contract: Contract, builder: Builder) -> None:
    """Puts the contract's node in the place of a canonical deformable convolution."""
    ports = {name: value for name, value in zip(canonical.DCN_INPUTS, node.inputs, strict=False) if value is not None}
    inputs = [ports[port.form] for port in contract.inputs if port.form in ports]
    attributes: dict[str, int | list[int]] = {}
    for attribute in contract.attributes:
        source = node.attributes[attribute.form] if attribute.form else None
        if source is None:
            attributes[attribute.name] = attribute.default
        else:
            attributes[attribute.name] = source.as_int() if attribute.type == "int" else [int(size) for size in source.as_ints()]
    builder.replace(node, contract.domain, contract.op_type, inputs, attributes)
