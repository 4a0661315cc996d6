"""The three ways of writing forms give the same numbers; each operation on shapes where an axis could be mixed up."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from occport.graph.arithmetic import Arrays, InBody, Static, full_shape
from occport.graph.bodies.body import Body
from occport.graph.build import Builder
from occport.graph.contract import Contract, Port
from small_graphs import by_name, graph, node, random, run

X = random(2, 3, 4, 5, 6)
SHAPES = np.array([[3, 5], [2, 4]])
OPERATIONS = {
    "reshape": lambda w, x: w.reshape(x, 0, 0, -1, 6, name="r"),
    "reshape to a size": lambda w, x: w.reshape(x, 0, -1, w.size(x, 3), name="r"),
    "add": lambda w, x: w.add(w.reshape(x, 0, 0, 4, 5, 6, 1, name="a"), w.reshape(x, 0, 0, 4, 5, 6, 1, name="b"), name="sum"),
    "divide": lambda w, x: w.divide(x, x, name="q"),
    "softmax": lambda w, x: w.softmax(x, name="s"),
    "concat": lambda w, x: w.concat([x, x], 2, name="c"),
    "take": lambda w, x: w.take(x, 3, 2, name="t"),
}


def in_graph(operation) -> np.ndarray:
    """With the static writer, in front of the last node of a graph."""
    model = graph([node("Identity", ["x"], "before"), node("Identity", ["before"], "y")], {"x": X}, ["y"])
    last = by_name(model)["Identity_y"]
    value = last.inputs[0]
    made = operation(Static(Builder(model.graph).at(last), levels=2), value)
    last.replace_input_with(0, made)
    last.outputs[0].shape = made.shape
    return run(model, {"x": X})[0]


def in_body(operation) -> np.ndarray:
    """With the writer of bodies, as a function."""
    body, value = Body(17), ir.Value(name="x")
    made = operation(InBody(body, levels=2), value)
    contract = Contract("test", 1, "Operation", (Port("value", "float32", 5, "x"),), Port("heads_merged", "float32", 3))
    function = body.function(contract, [value], made)
    proto = ir.to_proto(graph([node("Identity", ["x"], "y")], {"x": X}, ["y"], opset=17))
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "test", "Operation"
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.functions.append(ir.to_proto(function))
    proto.opset_import.add(domain="test", version=1)
    return run(proto, {"x": X})[0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_the_same_everywhere(name):
    want = OPERATIONS[name](Arrays(levels=2), X)
    for got in (in_graph(OPERATIONS[name]), in_body(OPERATIONS[name])):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_map_sizes_are_width_and_height():
    assert Arrays(2).map_size(SHAPES).tolist() == [[[5.0, 3.0]], [[4.0, 2.0]]]


def test_a_reshape_to_the_same_shape_writes_nothing():
    model = graph([node("Identity", ["x"], "y")], {"x": X}, ["y"])
    last = by_name(model)["Identity_y"]
    assert Static(Builder(model.graph).at(last), 1).reshape(last.inputs[0], 0, 3, 0, 5, -1, name="r") is last.inputs[0]


def test_floats_are_computed_wide():
    assert Arrays(1).softmax(X).dtype == Arrays(1).add(X, X).dtype == Arrays(1).divide(X, X).dtype == np.float64
    assert np.isfinite(Arrays(1).softmax(np.full((1, 1, 2), 1e30, np.float32))).all()


@pytest.mark.parametrize(("parts", "shape"), [((0, -1), (2, 60)), ((-1,), (120,)), ((2, 3, 4, 5, 1), (2, 3, 4, 5, 1))])
def test_full_shapes(parts, shape):
    assert full_shape((2, 3, 4, 5), parts) == shape
