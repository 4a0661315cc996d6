"""A chip's list of operators: what is read, what is refused, and what of a file is not on it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from linting import clean, run_lint, saved
from occport.errors import ModelFileError
from occport.graph import dialect as dialects
from occport.graph.lint.support import Support, read_support
from occport.graph.lint.whole import lint

DL = dialects.load("dl")
CUSTOM_LINES = "DL::MultiScaleDeformableAttnFunction\nDL::ModulatedDeformConv2d\n"


def listed(folder, text):
    path = folder / "chip.txt"
    path.write_text(text)
    return read_support(path)


def told(folder, text, model=None):
    return [str(each) for each in lint(model or clean(DL), DL, support=listed(folder, text))]


def test_what_a_list_says(tmp_path):
    text = "# a chip\n\nConv  # plain\nGather int64,float32\nResize >=13 float32 <=17\nResize >=20\nDL::Own_Name2\n"
    assert listed(tmp_path, text) == {
        "Conv": [Support()],
        "Gather": [Support(frozenset({"int64", "float32"}))],
        "Resize": [Support(frozenset({"float32"}), 13, 17), Support(least=20)],
        "DL::Own_Name2": [Support()],
    }
    assert listed(tmp_path, "ai.onnx::Relu\ntrt.plugins::Op") == {"Relu": [Support()], "trt.plugins::Op": [Support()]}


def test_a_line_covers():
    line = Support(frozenset({"float32", "int64"}), 13, 17)
    assert line.covers({"float32"}, 13) and line.covers(set(), 17) and line.covers({"int64", "float32"}, 15)
    assert not line.covers({"float32", "bool"}, 15) and not line.covers({"float32"}, 12) and not line.covers({"float32"}, 18)
    assert line.describe() == "float32, int64 and opset >= 13 and opset <= 17" and Support().describe() == "any"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": expected one operator a line, got none; name the operators of the chip"),
        ("# only words\n", ": expected one operator a line, got none; name the operators of the chip"),
        ("Conv\n3Conv\n", ", line 2: expected NAME or DOMAIN::NAME first, got '3Conv'"),
        ("Conv,Relu\n", ", line 1: expected NAME or DOMAIN::NAME first, got 'Conv,Relu'"),
        ("Conv fp32\n", ", line 1: expected element types or a bound on the opset, got 'fp32'; write `Add float32,int64` or `Resize >=13`"),
        ("Conv float32, int64\n", ", line 1: expected element types or a bound on the opset, got 'float32,'; write `Add"),
        ("Conv >=x\n", ", line 1: expected element types or a bound on the opset, got '>=x'; write `Add"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(ModelFileError) as caught:
        listed(tmp_path, text)
    assert f"{tmp_path / 'chip.txt'}{message}" in str(caught.value)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(ModelFileError, match=r"support list .*none.txt: expected a text file.*, got No such file or directory"):
        read_support(tmp_path / "none.txt")
    (tmp_path / "chip.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelFileError, match="expected a text file, one operator a line, got 'utf-8' codec"):
        read_support(tmp_path / "chip.txt")


def test_a_list_that_has_everything(tmp_path):
    assert told(tmp_path, CUSTOM_LINES + "Relu float32 >=11\nConstant\n") == []


def test_operators_that_are_not_on_the_list(tmp_path):
    assert told(tmp_path, "Constant\nDL::ModulatedDeformConv2d\nmmcv::Relu\n") == [
        "DL::MultiScaleDeformableAttnFunction: expected an operator of the support list, got 1 node: msda",
        "Relu: expected an operator of the support list, got 2 nodes: msda_relu_node, conv_relu_node",
    ]


def test_element_types_and_opsets_that_are_not_on_the_list(tmp_path):
    assert told(tmp_path, CUSTOM_LINES + "Relu int8\nRelu >=13\nConstant float32,int64\n") == [
        "Relu: expected int8 or opset >= 13, got float32 at opset 11 in 2 nodes: msda_relu_node, conv_relu_node"
    ]


def test_many_nodes_are_counted_and_three_are_named(tmp_path):
    model = clean(DL)
    last = "conv_relu"
    for i in range(4):
        model.graph.node.append(helper.make_node("Abs", [last], [f"abs{i}"], f"abs_node{i}"))
        last = f"abs{i}"
        model.graph.value_info.append(helper.make_tensor_value_info(last, 1, [2, 12, 5, 7]))
    found = told(tmp_path, CUSTOM_LINES + "Relu\nConstant\n", model)
    assert found == ["Abs: expected an operator of the support list, got 4 nodes: abs_node0, abs_node1, abs_node2, …"]


def test_nodes_of_subgraphs_count_and_nodes_of_functions_do_not(tmp_path):
    model = clean(DL)
    branch = helper.make_graph(
        [helper.make_node("Exp", ["conv_relu"], ["e"], "inner")], "b", [], [helper.make_tensor_value_info("e", 1, [2, 12, 5, 7])]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    model.graph.node.append(helper.make_node("If", ["flag"], ["chosen"], "choice", then_branch=branch, else_branch=branch))
    model.graph.value_info.append(helper.make_tensor_value_info("chosen", 1, [2, 12, 5, 7]))
    body = [helper.make_node("Log", ["x"], ["y"])]
    model.functions.append(helper.make_function("DL", "ModulatedDeformConv2d", ["x"], ["y"], body, [onnx.helper.make_opsetid("", 11)]))
    model.ir_version = 8
    found = told(tmp_path, CUSTOM_LINES + "Relu\nConstant\nIf\n", model)
    assert "Exp: expected an operator of the support list, got 2 nodes: inner, inner" in found
    assert not any(line.startswith("Log") for line in found)


def test_on_the_command_line(tmp_path):
    path = saved(clean(DL), tmp_path)
    (tmp_path / "chip.txt").write_text(CUSTOM_LINES + "Constant\n")
    status, out, _ = run_lint(path, "--dialect", "dl", "--support-list", tmp_path / "chip.txt")
    assert status == 1 and out.splitlines() == [
        "error: Relu",
        "    expected an operator of the support list",
        "    got      2 nodes: msda_relu_node, conv_relu_node",
        "1 error, 0 notes",
    ]
    (tmp_path / "chip.txt").write_text("Conv fp32\n")
    status, out, err = run_lint(path, "--dialect", "dl", "--support-list", tmp_path / "chip.txt")
    assert status == 2 and out == "" and err.count("\n") == 1 and "line 1: expected element types" in err
