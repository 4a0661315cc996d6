"""Is every node of the default domain valid at an opset? Asked of ONNX's own operator schemas, all complaints at once.

Looked at: whether the operator exists at that opset and is not deprecated, names and types of the attributes, attribute values
that are younger or older than the operator (`VALUES`: schemas do not know them), the number of inputs and outputs, and whether
the element types are allowed, one type for each type variable. Values of the main graph must be typed; those of a function body
may be untyped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import onnx
import onnx_ir as ir

from .site import bodies, body_nodes

NEVER = 999
# (operator, attribute, value) → first opset that knows the value, first opset that no longer does.
VALUES: dict[tuple[str, str, str], tuple[int, int]] = {
    ("ScatterElements", "reduction", "max"): (18, NEVER),
    ("ScatterElements", "reduction", "min"): (18, NEVER),
    ("ScatterND", "reduction", "max"): (18, NEVER),
    ("ScatterND", "reduction", "min"): (18, NEVER),
    ("Pad", "mode", "wrap"): (19, NEVER),
    ("Resize", "coordinate_transformation_mode", "half_pixel_symmetric"): (19, NEVER),
    ("Resize", "coordinate_transformation_mode", "tf_half_pixel_for_nn"): (1, 13),
    ("GridSample", "mode", "linear"): (20, NEVER),
    ("GridSample", "mode", "cubic"): (20, NEVER),
    ("GridSample", "mode", "bilinear"): (1, 20),
    ("GridSample", "mode", "bicubic"): (1, 20),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with one node, in words."""

    node: str
    op: str
    reason: str

    def __str__(self) -> str:
        return f"node '{self.node}' ({self.op}): {self.reason}"


@cache
def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


@cache
def first_opset(op: str) -> int | None:
    """The opset at which `op` appeared, None for a name that ONNX does not know."""
    history = onnx.defs.get_all_schemas_with_history()
    return min((schema.since_version for schema in history if schema.domain == "" and schema.name == op), default=None)


def _type_name(known: onnx.defs.OpSchema.Attribute) -> str:
    """INT, FLOATS, …: the schema's enumeration prints as "AttrType.INT"."""
    return str(known.type).rpartition(".")[2]


def check_nodes_against_schema(model: ir.Model, opset: int) -> list[Violation]:
    """What is not valid at `opset`, over main graph, subgraphs and functions; an empty list when all is well."""
    found = []
    for body in bodies(model):
        typed = isinstance(body, ir.Graph)
        for node in body_nodes(body):
            if node.domain == "":
                name = node.name or node.outputs[0].name or ""
                found += [Violation(name, node.op_type, reason) for reason in _reasons(node, opset, typed)]
    return found


def _reasons(node: ir.Node, opset: int, typed: bool) -> Iterator[str]:
    schema = _schema(node.op_type, opset)
    if schema is None:
        since = first_opset(node.op_type)
        yield "no ONNX operator has this name" if since is None else f"the operator appeared at opset {since}"
        return
    if schema.deprecated:
        yield f"the operator is deprecated since opset {schema.since_version}"
        return
    yield from _attribute_reasons(node, schema, opset)
    yield from _arity_reasons(node, schema)
    yield from _type_reasons(node, schema, typed)


def _attribute_reasons(node: ir.Node, schema: onnx.defs.OpSchema, opset: int) -> Iterator[str]:
    for name, attribute in node.attributes.items():
        known = schema.attributes.get(name)
        if known is None:
            yield f"attribute '{name}' is not one of version {schema.since_version}"
        elif _type_name(known) != attribute.type.name:
            yield f"attribute '{name}' must be {_type_name(known)}, not {attribute.type.name}"
        elif attribute.type == ir.AttributeType.STRING and not attribute.is_ref():
            since, until = VALUES.get((node.op_type, name, attribute.as_string()), (1, NEVER))
            if not since <= opset < until:
                yield f"attribute '{name}' cannot be '{attribute.as_string()}' at opset {opset}"
    for name, known in schema.attributes.items():
        if known.required and name not in node.attributes:
            yield f"attribute '{name}' is missing"


def _arity_reasons(node: ir.Node, schema: onnx.defs.OpSchema) -> Iterator[str]:
    count = len(node.inputs)
    if not schema.min_input <= count <= schema.max_input:
        yield f"{count} inputs, where version {schema.since_version} has {schema.min_input} to {schema.max_input}"
    for formal, value in zip(schema.inputs, node.inputs, strict=False):
        if value is None and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
            yield f"input '{formal.name}' is missing"
    count = len(node.outputs)
    if not schema.min_output <= count <= schema.max_output:
        yield f"{count} outputs, where version {schema.since_version} has {schema.min_output} to {schema.max_output}"


def _type_reasons(node: ir.Node, schema: onnx.defs.OpSchema, typed: bool) -> Iterator[str]:
    allowed = {constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in schema.type_constraints}
    bound: dict[str, str] = {}
    for kind, formals, values in (("input", schema.inputs, node.inputs), ("output", schema.outputs, node.outputs)):
        for index, value in enumerate(values):
            if value is None or not value.name or not formals:
                continue
            formal = formals[min(index, len(formals) - 1)]
            if value.type is None:
                if typed:
                    yield f"{kind} '{value.name}' has no type"
                continue
            if not isinstance(value.type, ir.TensorType):
                continue
            got = f"tensor({value.type.dtype.name.lower()})"
            if got not in allowed.get(formal.type_str, {formal.type_str}):
                yield f"{kind} '{formal.name}' cannot be {got} in version {schema.since_version}"
            elif formal.is_homogeneous and bound.setdefault(formal.type_str, got) != got:
                yield f"{kind} '{formal.name}' is {got}, where another of the same type is {bound[formal.type_str]}"
