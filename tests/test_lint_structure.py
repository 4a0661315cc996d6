"""What a whole file must be, whatever its dialect: structure, reachable inputs, and the lists of what it holds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from occport.graph import dialect
from occport.graph.lint.census import census, signatures
from occport.graph.lint.structure import check_old_operators, check_structure
from occport.graph.lint.wiring import unreachable_inputs
from occport.graph.rewrite import to_dialect
from small_graphs import graph, network, node, random

DL = dialect.load("dl")


@pytest.fixture
def proto(small_dl_bytes):
    """A right dl file at opset 11."""
    return onnx.ModelProto.FromString(small_dl_bytes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((12, 6, False), "opset_import: expected 12, got 11"),
        ((11, 7, False), "ir_version: expected 7, got 6"),
        ((11, 6, True), "functions: expected some, got 0"),
    ],
)
def test_opset_ir_version_and_functions(proto, arguments, message):
    assert check_structure(proto, *arguments) == [message]


def test_functions_that_should_not_be_there():
    model, _ = network()
    to_dialect(model, DL, 16, functions=True)
    proto = ir.to_proto(model)
    assert check_structure(proto, 16, 8, True) == []
    assert check_structure(proto, 16, 8, False) == ["functions: expected none, got 2"]


def test_an_opset_that_is_missing(proto):
    del proto.opset_import[:]
    assert check_structure(proto, 11, 6, False) == ["opset_import: expected 11, got None"]


@pytest.mark.parametrize("op", ["NonZero", "ScatterND", "If", "Loop", "Scan"])
def test_data_dependent_operators(proto, op):
    proto.graph.node.append(helper.make_node(op, ["img"], [], name="bad"))
    assert check_structure(proto, 11, 6, False) == [f"bad: {op}: expected no data-dependent operator"]
    proto.graph.node[-1].domain = "chip"
    assert check_structure(proto, 11, 6, False) == []


@pytest.mark.parametrize("reduction", [b"add", b"mul", b"max"])
def test_a_scatter_with_a_reduction(proto, reduction):
    proto.graph.node.append(helper.make_node("ScatterElements", ["img"], [], name="bad", reduction=reduction))
    assert check_structure(proto, 11, 6, False) == ["bad: ScatterElements: expected no reduction; it races in ONNX Runtime"]


def test_a_scatter_without_reduction_and_an_output_that_is_left_out(proto):
    proto.graph.node.append(helper.make_node("ScatterElements", ["img"], [""], name="good", reduction="none"))
    assert check_structure(proto, 11, 6, False) == []


def test_operators_that_an_old_exporter_did_not_write(proto):
    for op in ("Reciprocal", "GreaterOrEqual", "Reciprocal"):
        proto.graph.node.append(helper.make_node(op, ["img"], ["new"]))
    assert check_old_operators(proto, 11) == [
        "GreaterOrEqual: torch 1.10's opset-11 exporter does not write it",
        "Reciprocal: torch 1.10's opset-11 exporter does not write it",
    ]
    assert check_old_operators(proto, 12) == []


def test_an_input_that_reaches_nothing(proto):
    for each in proto.graph.node:
        for i, name in enumerate(each.input):
            if name == "slots":
                each.input[i] = "elsewhere"
    assert unreachable_inputs(proto) == ["slots"]


def test_an_input_that_reaches_dropped_alone():
    nodes = [node("Neg", ["img"], "labels"), node("Abs", ["lidar2img"], "dropped")]
    proto = ir.to_proto(graph(nodes, {"img": random(2), "lidar2img": random(2)}, ["labels", "dropped"]))
    assert unreachable_inputs(proto) == ["lidar2img"]
    assert unreachable_inputs(proto, besides="") == []


def test_census(proto):
    counts = census(proto)
    assert sum(counts.values()) == len(proto.graph.node)
    assert counts["DL::MultiScaleDeformableAttnFunction"] == 2 and counts["DL::ModulatedDeformConv2d"] == 1
    assert counts["Constant"] == 5 and counts["BatchNormalization"] == 2
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_signatures(proto):
    rows = {(row["operator"], row["inputs"]): row for row in signatures(proto)}
    assert sum(row["count"] for row in signatures(proto)) == len(proto.graph.node)
    scalars = ", ".join(["int64[0] const"] * 3)
    attention = rows[
        "DL::MultiScaleDeformableAttnFunction", f"float32[4], int64[2] const, int64[1] const, float32[6], float32[5], {scalars}"
    ]
    assert attention == {
        "operator": "DL::MultiScaleDeformableAttnFunction", "attributes": "im2col_step=64", "inputs": attention["inputs"],
        "outputs": "float32[3]", "count": 2,
    }  # fmt: skip
    conv = rows["DL::ModulatedDeformConv2d", "float32[4], float32[4], float32[4], float32[4] const"]
    assert conv["attributes"] == "deform_groups=1, dilation=[1, 1], groups=1, padding=[1, 1], stride=[1, 1]"
    assert rows["Gather", "float32[2], int64[2]"]["count"] == 2
    constants = [row["attributes"] for row in signatures(proto) if row["operator"] == "Constant"]
    assert constants == ["value=tensor [1, 2]", "value=tensor [1]", "value=tensor []"]


def test_missing_inputs_and_types_have_signatures_too():
    proto = ir.to_proto(graph([node("Resize", ["x", "", "", "sizes"], "y")], {"x": random(1, 2)}, ["y"], {"sizes": np.array([2, 4])}))
    assert signatures(proto)[0]["inputs"] == "float32[2], -, -, int64[1] const"
    del proto.graph.input[:]
    assert signatures(proto)[0]["inputs"] == "?[?], -, -, int64[1] const"
