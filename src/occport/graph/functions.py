"""Function bodies: each custom node computed with standard operators, so that stock ONNX Runtime can run it.

A body raises a contract's ports to the quantities that the arithmetic needs (`forms.py`), computes (`bodies/`), and brings the
output into the contract's form. Sizes are taken from the inputs at run time, since one body serves all nodes of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import onnx_ir as ir

from ..errors import ExportError
from . import canonical
from .arithmetic import InBody
from .attributes import Window
from .bodies.attention import sample_attention
from .bodies.body import Body, default_form
from .bodies.deform_conv import deform_conv
from .contract import TWIN_DOMAIN, Contract, Port
from .dialect import Dialect
from .forms import PORT_FORMS, Raised
from .lower import window_of

OPSETS_IN_FILES = range(16, 23)  # below 16 the fast bodies need com.microsoft, which a file for another runtime cannot have


class Arithmetics(NamedTuple):
    """Which arithmetic stands for each operator (`bodies/`); "" = the best that the opset has."""

    msda: str = ""
    dcn: str = ""


BEST = Arithmetics()


class Kind(NamedTuple):
    """What a body has written into it, read off a node."""

    levels: int = 1
    references: int = 1
    window: Window | None = None
    inputs: int = 0


def attention_kind(node: ir.Node, contract: Contract) -> Kind:
    """Levels and shared reference points of an attention node."""
    ports = {port.form: value for port, value in zip(contract.inputs, node.inputs, strict=False)}
    shared = ports.get("reference_points_shared")
    references = _size(shared, 3) // 2 if shared is not None else 1
    return Kind(_size(ports["spatial_shapes"], 0), references, inputs=len(node.inputs))


def deform_conv_kind(node: ir.Node, contract: Contract) -> Kind:
    """The window of a deformable convolution, and how many inputs it has."""
    weight = node.inputs[[port.form for port in contract.inputs].index("weight")]
    assert weight is not None
    return Kind(window=window_of(node, contract, weight), inputs=len(node.inputs))


def attention_body(contract: Contract, opset: int, kind: Kind, arithmetic: str) -> ir.Function:
    """The attention of a contract as a function.

    Args:
        contract: the node's; its domain must not be the empty one.
        opset: of the body.
        kind: of the nodes that it serves.
        arithmetic: a form of `bodies/`.
    """
    b = Body(opset)
    ports = {port.form: ir.Value(name=port.name) for port in contract.inputs}
    q = Raised(_widened(b, contract.inputs, ports), InBody(b, kind.levels, kind.references))
    value, shapes, starts, locations, weights = (q.get_or_none(name) for name in canonical.SAMPLED_INPUTS)
    starts = _starts(b, shapes) if starts is None else starts
    merged = sample_attention(b, value, shapes, starts, locations, weights, kind.levels, arithmetic)
    output = PORT_FORMS[contract.output.form].lower(InBody(b, kind.levels), {"output": merged, "value": value})
    return b.function(contract, list(ports.values()), output)


def deform_conv_body(contract: Contract, opset: int, kind: Kind, arithmetic: str) -> ir.Function:
    """The deformable convolution of a contract as a function, for nodes that have this window.

    The window is written into the body: the padding of DeformConv cannot be taken from a two-number attribute.
    """
    assert kind.window is not None
    b = Body(opset)
    ports = {port.form: ir.Value(name=port.name) for port in contract.inputs[: kind.inputs]}
    q = Raised(ports, InBody(b, 1))
    image, offset, mask, weight, bias = (q.get_or_none(name) for name in canonical.DCN_INPUTS)
    output = deform_conv(b, image, offset, mask, weight, bias, kind.window, arithmetic)
    return b.function(contract, list(ports.values()), output)


def _starts(b: Body, shapes: ir.Value) -> ir.Value:
    """(L) where each level starts: the sum of the areas before it. CumSum takes int64 from opset 11 on."""
    areas = b.op("Mul", b.pick(shapes, 0, axis=1), b.pick(shapes, 1, axis=1))
    return b.op("CumSum", areas, b.constant(0), attributes={"exclusive": 1})


def _widened(b: Body, contract: Sequence[Port], ports: dict[str, Any]) -> dict[str, Any]:
    """Sizes as int64, as Reshape and Slice take no other; scalars are nobody's."""
    narrow = [port.form for port in contract if port.dtype == "int32" and port.form in ("spatial_shapes", "level_start_index")]
    return ports | {form: b.op("Cast", ports[form], attributes={"to": int(ir.DataType.INT64)}) for form in narrow}


def functions_for(model: ir.Model, dialect: Dialect, opset: int, arithmetics: Arithmetics | None = None) -> list[ir.Function]:
    """The bodies for every custom node of a model in this dialect (or in the canonical form, for a dialect without contracts).

    Nodes of an empty-domain dialect must stand in their twin's domain (`twin.py`), as the bodies do.

    Raises:
        ExportError: nodes of one name differ in what the body cannot take from its inputs.
    """
    chosen = arithmetics or Arithmetics(*(default_form(operator, opset, in_file=False) for operator in Arithmetics._fields))
    bodies = []
    for contract, kind_of in kinds(dialect):
        nodes = [node for node in model.graph if (node.domain, node.op_type) == (contract.domain, contract.op_type)]
        if nodes:
            found = {kind_of(node, contract) for node in nodes}
            if len(found) > 1:
                raise ExportError(f"{contract.title} with a body", expected="nodes of one kind", got=" and ".join(sorted(map(str, found))))
            bodies.append(body_of(contract, opset, found.pop(), chosen))
    return bodies


def kinds(dialect: Dialect) -> list[tuple[Contract, Callable[[ir.Node, Contract], Kind]]]:
    """The contracts whose nodes need bodies, as they stand in memory, and how to read the kind of a node."""
    attention = [dialect.msda] if dialect.msda is not None else [canonical.MSDA_CONTRACT, canonical.SAMPLED_CONTRACT]
    conv = dialect.dcn or canonical.DCN_CONTRACT
    in_memory = [(replace(contract, domain=contract.domain or TWIN_DOMAIN), attention_kind) for contract in attention]
    return [*in_memory, (replace(conv, domain=conv.domain or TWIN_DOMAIN), deform_conv_kind)]


def body_of(contract: Contract, opset: int, kind: Kind, arithmetics: Arithmetics) -> ir.Function:
    """The body of one kind of node."""
    if kind.window is None:
        return attention_body(contract, opset, kind, arithmetics.msda)
    return deform_conv_body(contract, opset, kind, arithmetics.dcn)


def _size(value: ir.Value | None, axis: int) -> int:
    assert value is not None and value.shape is not None
    size = value.shape[axis]
    assert isinstance(size, int), f"{value.name}: {value.shape}"
    return size
