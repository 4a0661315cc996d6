"""Lint of whole files of every dialect: nothing in clean ones, types behind custom nodes, functions, subgraphs, and any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from linting import CUSTOM, clean, findings, node, set_attribute, set_constant, set_type
from occport.graph import dialect as dialects
from occport.graph.attributes import Window
from occport.graph.forms import PORT_FORMS
from occport.graph.lint.finding import ERROR, NOTE
from occport.graph.lint.whole import lint


@pytest.mark.parametrize("name", CUSTOM)
def test_nothing_is_found_in_a_clean_file(name):
    assert findings(name) == []


@pytest.mark.parametrize("name", CUSTOM)
@pytest.mark.parametrize("opset", [11, 17, 22])
def test_nothing_but_a_later_opset_is_told_at_other_opsets(name, opset):
    dialect = dialects.load(name)
    assert lint(clean(dialect, opset), dialect, opset=opset) == []
    told = [str(finding) for finding in lint(clean(dialect, opset), dialect)]
    later = [f"opset_import: expected {dialect.opset}, the dialect's own, or less, got {opset}"]
    assert told == (later if opset > dialect.opset else [])


@pytest.mark.parametrize("name", CUSTOM)
def test_the_optional_bias_may_be_missing(name):
    def without_bias(model):
        if dialects.load(name).dcn.inputs[-1].optional:
            node(model, "conv").input.pop()

    assert findings(name, without_bias) == []


def test_an_ir_version_that_the_dialect_fixes():
    dialect = replace(dialects.load("dl"), ir=6)
    model = clean(dialect)
    assert lint(model, dialect) == []
    model.ir_version = 7
    (told,) = lint(model, dialect)
    assert str(told) == "ir_version: expected 6, as the dialect says, or less, got 7" and told.severity == ERROR


def test_a_file_of_standard_operators():
    dialect = dialects.load("standard")
    relu = helper.make_node("Relu", ["x"], ["y"], "relu")
    typed = [helper.make_tensor_value_info(name, 1, [1, 2]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([relu], "g", typed[:1], typed[1:]), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    assert lint(model, dialect) == []
    assert [str(each) for each in lint(model, dialects.load("dl")) if each.severity == ERROR] == [
        "custom nodes: expected nodes of dialect dl: DL::MultiScaleDeformableAttnFunction or DL::ModulatedDeformConv2d, got none"
    ]
    told = lint(clean(dialects.load("mmcv")), dialect)
    assert [str(each) for each in told] == [
        "msda: operator: expected standard operators only, got mmcv::MMCVMultiScaleDeformableAttention",
        "conv: operator: expected standard operators only, got mmcv::MMCVModulatedDeformConv2d",
    ]


def test_functions_that_a_dialect_wants():
    dialect = replace(dialects.load("dl"), functions=True)
    told = [str(each) for each in lint(clean(dialect), dialect)]
    assert told == [
        "msda: function: expected a body for DL::MultiScaleDeformableAttnFunction in the file, got none",
        "conv: function: expected a body for DL::ModulatedDeformConv2d in the file, got none",
    ]


def test_a_function_that_imports_too_little():
    dialect = dialects.load("dl")
    model = clean(dialect)
    body = [helper.make_node("Gone", ["x"], ["y"], domain="chip")]
    model.functions.append(helper.make_function("DL", "Own", ["x"], ["y"], body, [helper.make_opsetid("", 13)]))
    model.ir_version = 8
    told = [str(each) for each in lint(model, dialect)]
    assert "function DL::Own: opset_import: expected 11, as in the model, got 13" in told
    assert "function DL::Own: opset_import: expected domain 'chip', which its nodes have, got none" in told


@pytest.mark.parametrize("name", CUSTOM)
def test_types_are_worked_out_behind_custom_nodes(name):
    """Without value_info, and with outputs of unknown shape: notes only, and the shapes are the right ones."""
    dialect = dialects.load(name)
    model = clean(dialect)
    right = {info.name: info.SerializeToString() for info in model.graph.output}
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    told = lint(model, dialect)
    outputs = ["conv_out", "conv_relu", "msda_out", "msda_relu"]
    assert sorted(each.what for each in told) == [f"type of output ({output})" for output in outputs]
    assert {(each.severity, each.expected, each.got) for each in told} == {(NOTE, "in the file", "none; it was worked out")}
    assert {output.name for output in model.graph.output} == set(right)
    set_type(model, "conv_input", (2, 4, 50, 7))
    assert any(each.severity == ERROR and each.node == "conv" for each in lint(model, dialect))


def test_types_that_cannot_be_worked_out():
    def edit(model):
        del model.graph.value_info[:]
        set_type(model, "conv_relu", ["n", "c", "h", "w"])
        set_type(model, "conv_input", ["n", 4, "h", "w"])

    told = [str(each) for each in findings("dl", edit) if each.severity == ERROR]
    assert "input (conv_input): expected a static shape, got float32 [?, 4, ?, ?]" in told
    assert "conv: output (conv_out): expected a static shape, got float32 [?, 12, ?, ?]" in told
    assert "conv_relu_node: output (conv_relu): expected a static shape, got float32 [?, 12, ?, ?]" in told


def test_a_custom_node_in_a_subgraph():
    dialect = dialects.load("dl")
    model = clean(dialect)
    inner = onnx.NodeProto.FromString(node(model, "conv").SerializeToString())
    inner.name, inner.output[0] = "inner", "inner_out"
    set_attribute(model, "groups", 2)
    inner.attribute.remove(next(each for each in inner.attribute if each.name == "padding"))
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("inner_out", 1, [2, 12, 5, 7])])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    model.graph.node.append(helper.make_node("If", ["flag"], ["chosen"], "choice", then_branch=branch, else_branch=branch))
    model.graph.output.append(helper.make_tensor_value_info("chosen", 1, [2, 12, 5, 7]))
    told = [str(each) for each in lint(model, dialect)]
    assert told.count("inner: attribute padding: expected ints, padding (h, w), got none") == 2
    assert "choice: If: expected no data-dependent operator, got one" in told


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CUSTOM), st.data())
def test_any_other_size_of_any_port_is_found(name, data):
    """One axis of one port that the file declares: whatever its new size, the node is named."""
    dialect = dialects.load(name)
    model = clean(dialect)
    infos = [info for info in (*model.graph.input, *model.graph.value_info) if info.name.startswith(("msda_", "conv_"))]
    info = data.draw(st.sampled_from(infos))
    on = info.name.partition("_")[0]
    contract = dialect.msda if on == "msda" else dialect.dcn
    port = next((port for port in contract.inputs if f"{on}_{port.name}" == info.name), contract.output)
    terms = PORT_FORMS[port.form].shape.split()
    axis = data.draw(st.integers(0, len(terms) - 1))
    old = info.type.tensor_type.shape.dim[axis].dim_value
    size = data.draw(st.integers(1, 60).filter(lambda size: size != old))
    assume(terms[axis] != "2*R" or size not in (2, 8))  # one or four reference points are as good as two
    info.type.tensor_type.shape.dim[axis].dim_value = size
    told = [each for each in lint(model, dialect) if each.severity == ERROR]
    assert any(each.node == on for each in told), (info.name, terms[axis], size)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.sampled_from([1, 2]), st.integers(1, 3))
def test_a_window_that_fits_its_maps_is_clean(stride, padding, dilation, groups, kernel):
    """Any window, with maps computed here from the definition: nothing is found; the output one row taller is."""
    dialect = dialects.load("dl")
    model = clean(dialect)
    H, W = 9, 11
    window = Window((kernel, kernel), (stride, stride), (padding, padding), (dilation, dilation), groups, 1)
    places = [len(range(-padding, size + padding - dilation * (kernel - 1), stride)) for size in (H, W)]
    values = {"stride": [stride] * 2, "padding": [padding] * 2, "dilation": [dilation] * 2, "groups": groups, "deform_groups": 1}
    for name, value in values.items():
        set_attribute(model, name, value)
    set_type(model, "conv_input", (2, 4, H, W))
    set_type(model, "conv_offset", (2, 2 * kernel**2, *places))
    set_type(model, "conv_mask", (2, kernel**2, *places))
    set_constant(model, "conv_weight", np.ones((12, 4 // groups, kernel, kernel)), "float32")
    for name in ("conv_out", "conv_relu"):
        set_type(model, name, (2, 12, *places))
    assert lint(model, dialect) == [], window
    set_type(model, "conv_out", (2, 12, places[0] + 1, places[1]))
    told = [each for each in lint(model, dialect) if each.node == "conv"]
    assert told and told[0].what == "output (conv_out)"
