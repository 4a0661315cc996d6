"""Which nodes of a graph keep computing in float32 when everything else becomes 16 bits wide, and why.

    geometry     what follows from the calibration or its tables alone
    locations    from where a prediction's offset is added to a reference point, up to the sampling node's port
    statistics   means and squares of a LayerNormalization that stands in single operators (later opsets keep them in float32, too)
    no type      an operator that has no such type at this opset, and a custom node whose kernel has none
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ..contract import Contract
from ..dialect import Dialect
from ..stages import stage_of_node
from .types import Ports, Precision, standard_ports

LOCATION_FORMS = (
    "sampling_locations", "sampling_locations_merged", "sampling_locations_x", "sampling_locations_y", "reference_points",
    "reference_points_shared",
)  # fmt: skip
_GRID = 1  # input of GridSample
_MOVING = ("Reshape", "Transpose", "Concat", "Split", "Slice", "Squeeze", "Unsqueeze", "Identity", "Expand")
_JOINING = ("Add", "Sub")
_SCALING = ("Mul", "Div")
_STATISTICS = "LayerNormalization"
_IMAGES = "img"
_FEW = 16  # numbers of a constant that scales or shifts; a table of reference points has more


def contract_of(node: ir.Node, dialect: Dialect) -> Contract | None:
    """The contract of a custom node; None for ONNX's own."""
    contracts = (dialect.msda, dialect.dcn)
    return next((one for one in contracts if one is not None and (node.domain, node.op_type) == (one.domain, one.op_type)), None)


def narrow_ports(node: ir.Node, dialect: Dialect, opset: int, precision: Precision) -> Ports | None:
    """Which ports of a node take the 16-bit type; None where it cannot compute in it."""
    contract = contract_of(node, dialect)
    if contract is not None:
        if precision.name not in contract.dtypes:
            return None
        return Ports(tuple(port.dtype == "float32" and not port.wide for port in contract.inputs), (True,), False)
    if node.domain:
        return None
    return standard_ports(node.op_type, opset, precision.dtype)


def wide_nodes(model: ir.Model, dialect: Dialect, precision: Precision) -> set[ir.Node]:
    """The nodes that keep float32."""
    opset = model.opset_imports[""]
    geometry = _geometry(model.graph)
    wide = geometry | {node for node in model.graph if narrow_ports(node, dialect, opset, precision) is None}
    wide |= {node for node in model.graph if _STATISTICS in (node.name or "") and node.op_type != _STATISTICS}
    for value in _location_ports(model.graph, dialect):
        wide |= set(_way_to(value, geometry))
    return wide


def is_float(value: ir.Value | None) -> bool:
    """A value of float32."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def is_constant(value: ir.Value) -> bool:
    """A weight, or what a Constant node gives."""
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def _geometry(graph: ir.Graph) -> set[ir.Node]:
    """Nodes of the projection, and those behind it that read nothing else."""
    values = {value for value in graph.inputs if is_float(value) and value.name != _IMAGES}
    found: set[ir.Node] = set()
    for node in graph:
        read = [value for value in node.inputs if value is not None and is_float(value) and not is_constant(value)]
        if stage_of_node(node.name or "") == "tables" or (read and all(value in values for value in read)):
            found.add(node)
            values.update(node.outputs)
    return found


def _location_ports(graph: ir.Graph, dialect: Dialect) -> Iterator[ir.Value]:
    for node in graph:
        contract = contract_of(node, dialect)
        if contract is not None:
            for value, port in zip(node.inputs, contract.inputs, strict=False):
                if port.form in LOCATION_FORMS and value is not None:
                    yield value
        elif node.op_type == "GridSample" and not node.domain:
            grid = node.inputs[_GRID]
            assert grid is not None
            yield grid


def _way_to(value: ir.Value, geometry: set[ir.Node]) -> Iterator[ir.Node]:
    """From a port back to the sum of reference points and offsets, that one included."""
    node = value.producer()
    if node is None or node in geometry or node.domain or node.op_type not in (*_MOVING, *_JOINING, *_SCALING):
        return
    yield node
    read = [one for one in node.inputs if one is not None and is_float(one)]
    if node.op_type in _JOINING and any(_is_reference(one, geometry) for one in read):
        return
    for one in read:
        if not is_constant(one):
            yield from _way_to(one, geometry)


def _is_reference(value: ir.Value, geometry: set[ir.Node]) -> bool:
    """Reference points: they follow from the geometry alone, or are a constant of many numbers where it is baked in."""
    if is_constant(value):
        return value.shape is not None and value.shape.is_static() and int(_numbers(value)) > _FEW
    producer = value.producer()
    return producer is None or producer in geometry


def _numbers(value: ir.Value) -> int:
    count = 1
    for size in value.shape.numpy() if value.shape is not None else ():
        count *= size
    return count
