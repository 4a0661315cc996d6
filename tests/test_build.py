"""The builder: names, types, and constants made once."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from occport.graph.build import Builder
from small_graphs import by_name, constant_of, graph, node, operators, random, run

FEEDS = {"x": random(2, 3, 4)}


def two_nodes():
    return graph([node("Relu", ["x"], "a"), node("Neg", ["a"], "y")], FEEDS, ["y"])


def test_a_new_node_stands_in_front_and_is_named_after_the_one_it_serves():
    model = two_nodes()
    last = by_name(model)["Neg_y"]
    made = Builder(model.graph).at(last).op("Softmax", [last.inputs[0]], [2, 3, 4], {"axis": 1}, suffix="weights")
    last.replace_input_with(0, made)
    assert operators(model) == ["Relu", "Softmax", "Neg"]
    assert made.name == made.producer().name == "Neg_y_weights"
    assert (made.dtype, made.shape.numpy()) == (ir.DataType.FLOAT, (2, 3, 4))
    assert made.producer().attributes["axis"].as_int() == 1
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    x = np.maximum(FEEDS["x"], 0)
    power = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(run(model, FEEDS)[0], -power / power.sum(1, keepdims=True), atol=1e-6)


def test_dtype_and_domain_can_be_told():
    model = two_nodes()
    made = Builder(model.graph).at(by_name(model)["Neg_y"]).op("Cut", [None], [5], suffix="cut", dtype=ir.DataType.INT32, domain="chip")
    assert (made.dtype, made.producer().domain, made.producer().inputs) == (ir.DataType.INT32, "chip", (None,))


def test_equal_constants_are_made_once_and_others_are_not():
    model = two_nodes()
    builder = Builder(model.graph)
    one = builder.constant(np.array([1, 2], np.int64), "shape")
    assert builder.constant(np.array([1, 2], np.int64), "other") is one
    different = [
        builder.constant(np.array([1, 2], np.int32), "shape"), builder.constant(np.array([[1, 2]], np.int64), "shape"),
        builder.constant(np.array([1, 3], np.int64), "shape"), builder.constant_node(np.array([1, 2], np.int64), "shape"),
    ]  # fmt: skip
    assert len({id(value) for value in (one, *different)}) == 5
    assert len({value.name for value in (one, *different)}) == 5
    assert set(model.graph.initializers) == {value.name for value in (one, *different[:3])}
    assert [constant_of(value).dtype for value in (one, different[0])] == [np.int64, np.int32]


def test_a_constant_node_stands_at_the_beginning_and_is_made_once():
    model = two_nodes()
    builder = Builder(model.graph)
    value = builder.constant_node(np.array(7, np.int64), "bs")
    assert builder.constant_node(np.array(7, np.int64), "other") is value
    assert [each.op_type for each in model.graph] == ["Constant", "Relu", "Neg"]
    assert (value.shape.numpy(), value.dtype, constant_of(value).item()) == ((), ir.DataType.INT64, 7)
    proto = ir.to_proto(model)
    assert helper.get_attribute_value(proto.graph.node[0].attribute[0]).dims == []
    onnx.checker.check_model(proto, full_check=True)


def test_shared_reshapes_are_made_once():
    model = two_nodes()
    builder = Builder(model.graph).at(by_name(model)["Relu_a"])
    source = model.graph.inputs[0]
    first = builder.shared("Reshape", source, [6, 4])
    assert builder.at(by_name(model)["Neg_y"]).shared("Reshape", source, [6, 4]) is first
    assert builder.shared("Reshape", source, [4, 6]) is not first
    assert operators(model) == ["Reshape", "Relu", "Reshape", "Neg"]


@pytest.mark.parametrize("name", ["Relu_a", "Neg_y"])
def test_replace_keeps_name_type_metadata_and_users(name):
    model = two_nodes()
    old = by_name(model)[name]
    old.metadata_props["scope"] = "somewhere"
    before = (old.outputs[0].name, old.outputs[0].dtype, old.outputs[0].shape.numpy())
    new = Builder(model.graph).replace(old, "", "Abs", [old.inputs[0]], {})
    assert (new.outputs[0].name, new.outputs[0].dtype, new.outputs[0].shape.numpy()) == before
    assert (new.name, new.metadata_props["scope"]) == (name, "somewhere")
    assert [value.name for value in model.graph.outputs] == ["y"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    want = -np.abs(FEEDS["x"]) if name == "Relu_a" else np.maximum(FEEDS["x"], 0)
    np.testing.assert_array_equal(run(model, FEEDS)[0], want)
