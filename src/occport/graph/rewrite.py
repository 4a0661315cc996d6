"""From the canonical graph to a dialect at an opset: the passes in their order."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common as passes

from ..errors import ExportError
from . import canonical
from .bodies.body import FIRST_DEFORM_CONV, check_form, default_form
from .dialect import Dialect
from .functions import BEST, OPSETS_IN_FILES, Arithmetics, body_of, functions_for, kinds
from .lower import lower
from .lowering.old_exporter import reciprocal_as_division
from .opset import convert_opset, ir_version_for
from .passes.dcn_bias import fold_batch_norm
from .passes.fold_constants import drop_unused_initializers, fold_constants
from .passes.fold_pointwise import fold_pointwise
from .passes.fold_scale import fold_scale
from .passes.group_norm_affine import group_norm_affine
from .passes.merge_reshapes import merge_reshapes
from .passes.volume_order import volume_order
from .twin import from_twin

OPSETS = range(11, 23)
FIRST_RECIPROCAL = 13  # exporters of opset 11 and 12 wrote a division
FUSED_GROUP_NORM = 21  # from here on one GroupNormalization node
STANDARD = Dialect("standard", "", "", 0, False)  # without contracts: its nodes are the canonical ones


def check_target(dialect: Dialect, opset: int, functions: bool, arithmetics: Arithmetics = BEST) -> None:
    """ExportError for a combination that cannot be. `arithmetics`: what the user chose, "" where it is left to the opset."""
    if opset not in OPSETS:
        raise ExportError("--opset", expected=f"{OPSETS[0]} to {OPSETS[-1]}", got=str(opset))
    if dialect.msda is None and functions:
        got = f"{dialect.name}, which has none"
        raise ExportError("--functions", expected="a dialect with custom nodes", got=got, fix="leave --functions out")
    if functions and dialect.in_empty_domain:
        raise ExportError(
            "--functions", expected="a dialect whose nodes have a domain", got=f"{dialect.name}: no body can stand in ONNX's own",
            fix="leave --functions out: verification runs a twin of the file in memory",
        )  # fmt: skip
    if functions and opset not in OPSETS_IN_FILES:
        raise ExportError(
            "--functions", expected=f"an opset from {OPSETS_IN_FILES[0]} on, where GridSample is standard", got=f"opset {opset}",
            fix=f"give --opset {OPSETS_IN_FILES[0]}..{OPSETS_IN_FILES[-1]}, or leave --functions out",
        )  # fmt: skip
    for operator, form in arithmetics._asdict().items():
        if form and dialect.msda is not None and not functions:
            raise ExportError(
                f"--{operator} {form}", expected="a file that holds arithmetic", got=f"dialect {dialect.name} without --functions",
                fix="give --dialect standard, or --functions",
            )  # fmt: skip
        if form:
            check_form(operator, form, opset, what=f"--{operator}")


def to_dialect(
    model: ir.Model,
    dialect: Dialect,
    opset: int,
    *,
    functions: bool,
    arithmetics: Arithmetics = BEST,
) -> None:
    """Rewrites a canonical graph (opset 18, named) in place: nodes of the dialect, the opset asked for, every value typed.

    Raises:
        ExportError: the combination cannot be, or an operator has no form at that opset.
    """
    check_target(dialect, opset, functions, arithmetics)
    fold_constants(model)
    fold_pointwise(model)
    if dialect.msda is None or dialect.dcn is None:
        fold_batch_norm(model, "input")
        inline_standard(model, opset, arithmetics)
    else:
        fold_batch_norm(model, dialect.dcn.bias)
        lower(model, dialect)
        fold_scale(model)
    merge_reshapes(model)
    if opset < FUSED_GROUP_NORM:
        group_norm_affine(model)
    volume_order(model)
    convert_opset(model, opset)
    if opset < FIRST_RECIPROCAL:
        reciprocal_as_division(model)
    drop_unused_initializers(model)
    if functions:
        attach_functions(model, dialect, opset, arithmetics)
    model.ir_version = dialect.ir or ir_version_for(opset)
    check_types(model)
    from_twin(model)


def attach_functions(model: ir.Model, dialect: Dialect, opset: int, arithmetics: Arithmetics = BEST) -> None:
    """Appends the bodies of the model's custom nodes, for a file."""
    for function in functions_for(model, dialect, opset, chosen(opset, arithmetics)):
        model.functions[function.identifier()] = function


def chosen(opset: int, arithmetics: Arithmetics) -> Arithmetics:
    """The user's choice, with the best that a file of this opset can have in the place of ""."""
    return Arithmetics(arithmetics.msda or default_form("msda", opset), arithmetics.dcn or default_form("dcn", opset))


def check_types(model: ir.Model) -> None:
    """Our own bug if any value of the main graph has no dtype or no static shape."""
    for node in model.graph:
        for output in node.outputs:
            if output.dtype is None or output.shape is None or not output.shape.is_static():
                raise AssertionError(f"{node.name}: {output.name} has type {output.dtype} and shape {output.shape}")


def inline_standard(model: ir.Model, opset: int, arithmetics: Arithmetics = BEST) -> None:
    """Replaces canonical nodes, in place, by arithmetic that stands at `opset`; the model is brought there by `convert_opset`.

    The opset of the model itself rises to that of DeformConv where it is used.
    """
    forms = chosen(opset, arithmetics)
    if forms.dcn == "deformconv" and model.opset_imports[""] < FIRST_DEFORM_CONV:
        convert_opset(model, FIRST_DEFORM_CONV)
    for contract, kind_of in kinds(STANDARD):
        for node in list(model.graph):
            if (node.domain, node.op_type) == (contract.domain, contract.op_type):
                _inline(model.graph, node, body_of(contract, model.opset_imports[""], kind_of(node, contract), forms))
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
