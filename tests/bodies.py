"""Function bodies for tests: one node that has a body, run as a function and inlined, at any opset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, inliner
from onnx_ir.passes import common as passes

from lowering_model import run
from occport.graph.attributes import Window
from occport.graph.bodies.attention import sample_attention
from occport.graph.bodies.body import Body
from occport.graph.bodies.deform_conv import deform_conv
from occport.graph.contract import Contract, Port
from occport.graph.opset import convert_opset, ir_version_for
from occport.graph.passes.fold_constants import fold_constants

Arrays = Mapping[str, np.ndarray]
Writer = Callable[[Body, list[ir.Value]], ir.Value]
DOMAIN, NAME = "occport.test", "Node"
MIN_IR_FOR_FUNCTIONS = 8
DATA_DEPENDENT = {"NonZero", "If", "Loop", "Scan", "GatherND", "GatherElements", "ScatterND", "ScatterElements"}


def attention_writer(levels: int, form: str) -> Writer:
    """Attention of inputs value, shapes, starts, locations, weights."""
    return lambda b, values: sample_attention(b, *values, levels, form)


class Case(NamedTuple):
    """A window, and whether there is a bias."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int
    with_bias: bool


def conv_writer(case: Case, form: str) -> Writer:
    """Convolution of inputs input, offset, mask, weight and, where the case says so, bias."""
    return lambda b, values: deform_conv(b, *values[:4], values[4] if case.with_bias else None, Window(*case[:-1]), form)


def function_of(writer: Writer, names: Sequence[str], opset: int) -> ir.Function:
    """What the writer writes, as a function."""
    body = Body(opset)
    values = [ir.Value(name=name) for name in names]
    contract = Contract(DOMAIN, 1, NAME, tuple(Port("", "", 0, name=name) for name in names), Port("", "", 0))
    return body.function(contract, values, writer(body, values))


def node_model(writer: Writer, feeds: Arrays, shape: Sequence[int], opset: int, constants: Arrays | None = None) -> onnx.ModelProto:
    """One node with its body as a function; `shape` is the output's."""
    constants = constants or {}
    names = [*feeds, *constants]
    graph = helper.make_graph(
        [helper.make_node(NAME, names, ["out"], name="node", domain=DOMAIN)], "one_node",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in feeds.items()],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, list(shape))],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    function = ir.to_proto(function_of(writer, names, opset))
    imports = {"": opset, DOMAIN: 1} | {entry.domain: entry.version for entry in function.opset_import}
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*item) for item in imports.items()],
        ir_version=max(ir_version_for(opset), MIN_IR_FOR_FUNCTIONS),
    )  # fmt: skip
    model.functions.append(function)
    return model


def inlined(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model with its function inlined, its sizes folded, brought to another opset: as an export of standard operators does it."""
    inside = ir.from_proto(inliner.inline_local_functions(model))
    inside.opset_imports.pop(DOMAIN, None)
    folded = 1
    while folded:
        passes.ShapeInferencePass(data_prop=True)(inside)
        folded = fold_constants(inside)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(inside)
    passes.RemoveUnusedNodesPass()(inside)
    convert_opset(inside, opset)
    inside.ir_version = ir_version_for(opset)
    return ir.to_proto(inside)


def run_node(writer: Writer, feeds: Arrays, shape: Sequence[int], opset: int, constants: Arrays | None = None) -> np.ndarray:
    """The output of one node with this body, in ONNX Runtime."""
    model = node_model(writer, feeds, shape, opset, constants)
    if opset >= 16 or not any(node.domain for node in model.functions[0].node):
        onnx.checker.check_model(model, full_check=True)
    return run(model, feeds)[0]
