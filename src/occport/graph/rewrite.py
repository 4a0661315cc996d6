"""From the canonical graph to a dialect at an opset: the passes in their order."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common as passes

from ..errors import ExportError
from . import canonical, forms
from .build import Builder
from .dialect import Dialect
from .functions import FIRST_DEFORM_CONV, OPSETS_IN_FILES, functions_for
from .lowering.old_exporter import reciprocal_as_division
from .opset import convert_opset, ir_version_for
from .passes.dcn_bias import fold_batch_norm
from .passes.fold_constants import drop_unused_initializers, fold_constants
from .passes.fold_scale import fold_scale
from .passes.group_norm_affine import group_norm_affine
from .passes.merge_reshapes import merge_reshapes

OPSETS = range(11, 23)
FIRST_GRID_SAMPLE = 16
FIRST_RECIPROCAL = 13  # exporters of opset 11 and 12 wrote a division
FUSED_GROUP_NORM = 21  # from here on one GroupNormalization node


def check_target(dialect: Dialect, opset: int, functions: bool) -> None:
    """ExportError for a combination that cannot be."""
    if opset not in OPSETS:
        raise ExportError("--opset", expected=f"{OPSETS[0]} to {OPSETS[-1]}", got=str(opset))
    if dialect.msda is None and functions:
        got = f"{dialect.name}, which has none"
        raise ExportError("--functions", expected="a dialect with custom nodes", got=got, fix="leave --functions out")
    if functions and opset not in OPSETS_IN_FILES:
        raise ExportError(
            "--functions", expected=f"an opset from {OPSETS_IN_FILES[0]} on, where GridSample is standard", got=f"opset {opset}",
            fix=f"give --opset {OPSETS_IN_FILES[0]}..{OPSETS_IN_FILES[-1]}, or leave --functions out",
        )  # fmt: skip
    if dialect.msda is None and opset < FIRST_GRID_SAMPLE:
        raise ExportError(
            f"--dialect {dialect.name} --opset {opset}", expected=f"an opset from {FIRST_GRID_SAMPLE} on, where GridSample is standard",
            got=str(opset), fix="raise --opset, or take a dialect with custom nodes",
        )  # fmt: skip


def to_dialect(model: ir.Model, dialect: Dialect, opset: int, *, functions: bool) -> None:
    """Rewrites a canonical graph (opset 18, named) in place: nodes of the dialect, the opset asked for, every value typed.

    Raises:
        ExportError: the combination cannot be, or an operator has no form at that opset.
    """
    check_target(dialect, opset, functions)
    fold_constants(model)
    if dialect.msda is None or dialect.dcn is None:
        _inline_standard(model, dialect, opset)
    else:
        fold_batch_norm(model, dialect.dcn.bias)
        _lower(model, dialect)
    merge_reshapes(model)
    if opset < FUSED_GROUP_NORM:
        group_norm_affine(model)
    convert_opset(model, opset)
    if opset < FIRST_RECIPROCAL:
        reciprocal_as_division(model)
    drop_unused_initializers(model)
    if functions:
        attach_functions(model, dialect, opset)
    model.ir_version = ir_version_for(opset)
    check_types(model)


def attach_functions(model: ir.Model, dialect: Dialect, opset: int) -> None:
    """Appends the bodies of the model's custom nodes."""
    for function in functions_for(model, dialect, opset):
        model.functions[function.identifier()] = function


def check_types(model: ir.Model) -> None:
    """Our own bug if any value of the main graph has no dtype or no static shape."""
    for node in model.graph:
        for output in node.outputs:
            if output.dtype is None or output.shape is None or not output.shape.is_static():
                raise AssertionError(f"{node.name}: {output.name} has type {output.dtype} and shape {output.shape}")


def _lower(model: ir.Model, dialect: Dialect) -> None:
    assert dialect.msda is not None and dialect.dcn is not None
    builder = Builder(model.graph)
    for node in list(model.graph):
        if node.domain != canonical.DOMAIN:
            continue
        if node.op_type == canonical.MSDA:
            forms.lower_attention(node, dialect.msda, builder.at(node))
        else:
            forms.lower_deform_conv(node, dialect.dcn, builder.at(node))
    fold_scale(model)
    model.opset_imports.pop(canonical.DOMAIN, None)
    used = {node.domain for node in model.graph}
    model.opset_imports.update({domain: version for domain, version in dialect.domains.items() if domain in used})


def _inline_standard(model: ir.Model, dialect: Dialect, opset: int) -> None:
    """Replaces the canonical nodes by the arithmetic of their bodies."""
    fold_batch_norm(model, "input")
    if opset >= FIRST_DEFORM_CONV:
        convert_opset(model, FIRST_DEFORM_CONV)
    bodies = {function.name: function for function in functions_for(model, dialect, model.opset_imports[""])}
    for node in list(model.graph):
        if node.domain == canonical.DOMAIN:
            _inline(model.graph, node, bodies[node.op_type])
    model.opset_imports.pop(canonical.DOMAIN, None)
    folded = 1
    while folded:  # sizes that bodies take from their inputs become known, are folded, and make further ones known
        passes.ShapeInferencePass(data_prop=True)(model)
        folded = fold_constants(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveUnusedNodesPass()(model)


def _inline(graph: ir.Graph, node: ir.Node, body: ir.Function) -> None:
    """Puts a copy of a body in the place of a node; everything in it is named after the node."""
    values = dict(zip(body.inputs, [*node.inputs, None], strict=False))
    copies = []
    for inner in body:
        copy = ir.Node(
            inner.domain, inner.op_type, [values[value] if value is not None else None for value in inner.inputs],
            list(inner.attributes.values()), name=f"{node.name}_{inner.name}",
        )  # fmt: skip
        copy.outputs[0].name = copy.name
        values[inner.outputs[0]] = copy.outputs[0]
        copies.append(copy)
    old, new = node.outputs[0], copies[-1].outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    ir.convenience.replace_nodes_and_values(graph, node, [node], copies, [old], [new])
