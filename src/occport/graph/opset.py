"""An ONNX model to another opset, exactly: our own table of lowerings, because the stock converters stop at 16.

`convert_opset` changes a model of opset 18 to 22 in place to any opset 11 to 22. What a version changed is one row of a table: the version,
the operator, and a function `(model) -> number of rewrites` that says the same in the words of the version before. Rows run from
the newest version down to the target. Most operators need no row: only their version number changes. Whatever no row could
translate is found by comparing every node with ONNX's own schemas at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import onnx_ir as ir

from ..errors import ExportError
from .lowering.cast_like import lower_cast_like
from .lowering.compare import lower_or_equal
from .lowering.constant_value import lower_constant_value
from .lowering.cum_sum import lower_half_cum_sum
from .lowering.defaults import drop_default
from .lowering.dropout import drop_dropout
from .lowering.grid_sample import new_mode_names, old_mode_names
from .lowering.group_norm import fuse_group_norm, lower_group_norm
from .lowering.hard_swish import lower_hard_swish
from .lowering.layer_norm import lower_layer_norm
from .lowering.leftovers import remove_unused_constants
from .lowering.min_max import lower_integer_clip, lower_integer_min_max, lower_integer_relu
from .lowering.pad_axes import lower_pad_axes
from .lowering.power import lower_pow_types
from .lowering.reduce_axes import lower_reduce, lower_reduce_sum
from .lowering.reshape_zero import lower_reshape_allowzero
from .lowering.resize import lower_resize_attributes, lower_resize_inputs
from .lowering.schema_check import check_nodes_against_schema
from .lowering.shape_range import lower_shape_range
from .lowering.site import bodies, body_nodes
from .lowering.softmax import lower_softmax
from .lowering.split_sizes import lower_split_input, lower_split_num_outputs
from .lowering.squeeze_axes import lower_squeeze

OPSETS = range(11, 23)
SOURCES = range(18, 23)

# The IR version that a file of each opset's time had.
IR_VERSIONS = {11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}


class Step(NamedTuple):
    """What opset `version` changed about `op`, and the function that translates it."""

    version: int
    op: str
    apply: Callable[[ir.Model], int]


def _default(version: int, op: str, attribute: str, default: int | str) -> Step:
    return Step(version, op, partial(drop_default, op=op, attribute=attribute, default=default))


# Newest first: the form of `version` → the form before it. Where one row makes work for another (Relu → Max), it stands above it.
LOWERINGS: tuple[Step, ...] = (
    Step(21, "GroupNormalization", lower_group_norm),
    Step(20, "GridSample", old_mode_names),
    _default(19, "AveragePool", "dilations", 1),
    _default(19, "Cast", "saturate", 1),
    _default(19, "CastLike", "saturate", 1),
    Step(18, "Pad", lower_pad_axes),
    Step(18, "Reduce*", lower_reduce),
    Step(18, "Resize", lower_resize_attributes),
    Step(18, "Split", lower_split_num_outputs),
    Step(17, "LayerNormalization", lower_layer_norm),
    _default(16, "ScatterElements", "reduction", "none"),
    _default(16, "ScatterND", "reduction", "none"),
    Step(15, "CastLike", lower_cast_like),
    Step(15, "Shape", lower_shape_range),
    _default(14, "BatchNormalization", "training_mode", 0),
    Step(14, "CumSum", lower_half_cum_sum),
    Step(14, "HardSwish", lower_hard_swish),
    Step(14, "Relu", lower_integer_relu),
    Step(14, "Reshape", lower_reshape_allowzero),
    Step(13, "ReduceSum", lower_reduce_sum),
    Step(13, "Resize", lower_resize_inputs),
    Step(13, "Softmax, LogSoftmax", lower_softmax),
    Step(13, "Split", lower_split_input),
    Step(13, "Squeeze, Unsqueeze", lower_squeeze),
    _default(12, "ArgMax", "select_last_index", 0),
    _default(12, "ArgMin", "select_last_index", 0),
    Step(12, "Clip", lower_integer_clip),
    Step(12, "Constant", lower_constant_value),
    Step(12, "Dropout", drop_dropout),
    _default(12, "GatherND", "batch_dims", 0),
    Step(12, "GreaterOrEqual, LessOrEqual", lower_or_equal),
    Step(12, "Max, Min", lower_integer_min_max),
    Step(12, "Pow", lower_pow_types),
)

# Oldest first: the form before `version` → the form of `version`.
RAISINGS: tuple[Step, ...] = (
    Step(20, "GridSample", new_mode_names),
    Step(21, "InstanceNormalization", fuse_group_norm),
)


FIRST_IR_WITH_FUNCTIONS = 8


def ir_version_for(opset: int) -> int:
    """The IR version that files of this opset's time had. Errors: ExportError for an opset outside 11 to 22."""
    _check_target(opset)
    return IR_VERSIONS[opset]


def convert_opset(model: ir.Model, opset: int) -> None:
    """Brings `model` to `opset` in place: main graph, subgraphs and model-local functions.

    Afterwards every node of the default domain is valid at `opset` (operator, attributes, number of inputs, element types), names
    and types of inputs and outputs are as before, every new value has a type and a shape, and constants without a reader are gone.
    Nodes of other domains, `model.ir_version` (see `ir_version_for`) and weights are left alone. From opset 21 on, emulated
    group normalisations become GroupNormalization. A model that was refused is spoiled: convert a clone to keep it.

    Args:
        model: opset 18 to 22, static shapes, every value of the main graph typed. Function bodies import the same opset.
        opset: 11 to 22.

    Errors: ExportError that names node, operator and opset where something cannot be said at `opset`.
    """
    _check_target(opset)
    source = _source(model)
    for step in LOWERINGS:
        if step.version > min(opset, source):
            step.apply(model)
    for step in RAISINGS:
        if source < step.version <= opset:
            step.apply(model)
    remove_unused_constants(model)
    _stamp(model, opset)
    _check(model, opset)


def _check_target(opset: int) -> None:
    if opset not in OPSETS:
        raise ExportError("opset", expected=f"{OPSETS[0]} to {OPSETS[-1]}", got=str(opset), fix="choose another with --opset")


def _source(model: ir.Model) -> int:
    """The model's opset; functions must have the same, or use no operator of the default domain."""
    source = model.graph.opset_imports.get("")
    if source is None or source not in SOURCES:
        raise ExportError(
            "opset of the model", expected=f"{SOURCES[0]} to {SOURCES[-1]}", got="none" if source is None else str(source),
            fix="export it at opset 18 first",
        )
    for function in model.functions.values():
        own = function.opset_imports.get("", source)
        if own != source:
            raise ExportError(
                f"function {function.domain}::{function.name}", expected=f"opset {source}, as in the model", got=f"opset {own}",
                fix="convert the model before functions are attached",
            )
    return source


def _stamp(model: ir.Model, opset: int) -> None:
    """Writes the opset wherever it stands: imports of the model and its functions, and the note on each node."""
    model.graph.opset_imports[""] = opset
    for body in bodies(model):
        if "" in body.opset_imports:
            body.opset_imports[""] = opset
        for node in body_nodes(body):
            if node.domain == "":
                node.version = opset


def _check(model: ir.Model, opset: int) -> None:
    found = check_nodes_against_schema(model, opset)
    if found:
        first, more = found[0], len(found) - 1
        raise ExportError(
            f"node '{first.node}' ({first.op})" + (f" and {more} more" if more else ""), expected=f"an operator as opset {opset} has it",
            got=first.reason, fix="choose a later opset, or another form of this operator",
        )
