"""Folding constants: the same numbers as ONNX Runtime, and what is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from occport.graph.passes import fold_constants as module
from occport.graph.passes.fold_constants import drop_unused_initializers, fold_constants
from small_graphs import graph, node, operators, random, run


def int64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


T = random(2, 3, 4)
CASES = {
    "Add": (node("Add", ["t", "u"], "r"), {"t": T, "u": random(3, 1)}),
    "Sub": (node("Sub", ["t", "u"], "r"), {"t": T, "u": random(4)}),
    "Mul": (node("Mul", ["t", "u"], "r"), {"t": T, "u": random(2, 1, 1)}),
    "Div": (node("Div", ["t", "u"], "r"), {"t": T, "u": np.float32(3)}),
    "Div of integers goes towards zero": (node("Div", ["t", "u"], "r"), {"t": int64(7, -7, 7, -7, 6), "u": int64(2, 2, -2, -2, 3)}),
    "Cast to integers": (node("Cast", ["t"], "r", to=7), {"t": T * 9}),
    "Cast to float": (node("Cast", ["t"], "r", to=1), {"t": int64(1, -2)}),
    "Concat": (node("Concat", ["t", "u"], "r", axis=-2), {"t": T, "u": random(2, 5, 4)}),
    "ConstantOfShape": (
        node("ConstantOfShape", ["t"], "r", value=numpy_helper.from_array(np.array([3], np.int32))), {"t": int64(2, 3)},
    ),
    "ConstantOfShape without value": (node("ConstantOfShape", ["t"], "r"), {"t": int64(4)}),
    "Expand": (node("Expand", ["t", "u"], "r"), {"t": random(3, 1), "u": int64(2, 1, 4)}),
    "Gather": (node("Gather", ["t", "u"], "r", axis=1), {"t": T, "u": np.array([[0, -1], [2, 1]])}),
    "Gather along the first axis": (node("Gather", ["t", "u"], "r"), {"t": T, "u": np.array(1)}),
    "Range": (node("Range", ["t", "u", "v"], "r"), {"t": np.array(2), "u": np.array(11), "v": np.array(3)}),
    "Reshape": (node("Reshape", ["t", "u"], "r"), {"t": T, "u": int64(0, -1)}),
    "Shape": (node("Shape", ["t"], "r"), {"t": T}),
    "Shape from start to end": (node("Shape", ["t"], "r", start=1, end=-1), {"t": T}),
    "Squeeze": (node("Squeeze", ["t", "u"], "r"), {"t": random(1, 2, 1), "u": int64(2)}),
    "Squeeze of all": (node("Squeeze", ["t"], "r"), {"t": random(1, 2, 1)}),
    "Transpose": (node("Transpose", ["t"], "r", perm=[2, 0, 1]), {"t": T}),
    "Transpose without perm": (node("Transpose", ["t"], "r"), {"t": T}),
    "Unsqueeze": (node("Unsqueeze", ["t", "u"], "r"), {"t": T, "u": int64(0, -1)}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_operator_gives_the_numbers_of_onnx_runtime(case):
    made, constants = CASES[case]
    model = graph([made, node("Identity", ["r"], "y")], {}, ["y"], constants)
    want = run(model, {})[0]
    assert fold_constants(model) == 1
    assert operators(model) == ["Identity"]
    folded = model.graph.initializers["r"]
    assert (folded.dtype.numpy(), folded.shape.numpy()) == (want.dtype, want.shape)
    assert list(model.graph.initializers) == ["r"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_array_equal(run(model, {})[0], want)


@pytest.mark.parametrize("operator", ["Squeeze", "Unsqueeze"])
def test_axes_were_an_attribute_before_opset_13(operator):
    model = graph([node(operator, ["t"], "r", axes=[0, -1]), node("Identity", ["r"], "y")], {}, ["y"], {"t": random(1, 2, 1)}, opset=12)
    want = run(model, {})[0]
    assert fold_constants(model) == 1
    np.testing.assert_array_equal(run(model, {})[0], want)


def test_a_slice_without_axes_is_of_the_first():
    model = graph(
        [node("Slice", ["t", "a", "b"], "r"), node("Identity", ["r"], "y")], {}, ["y"], {"t": T, "a": int64(1, 0), "b": int64(2, 1)}
    )
    want = run(model, {})[0]
    assert fold_constants(model) == 1
    np.testing.assert_array_equal(run(model, {})[0], want)


@settings(deadline=None, max_examples=20)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_any_reshape_transpose_gather_chain(shape, data):
    perm = data.draw(st.permutations(range(len(shape))))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = [shape[axis_] for axis_ in perm][axis]
    index = np.array(data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=3)))
    nodes = [
        node("Transpose", ["t"], "a", perm=perm), node("Gather", ["a", "index"], "b", axis=axis), node("Reshape", ["b", "flat"], "c"),
        node("Identity", ["c"], "y"),
    ]  # fmt: skip
    model = graph(nodes, {}, ["y"], {"t": random(*shape), "index": index, "flat": int64(-1)})
    want = run(model, {})[0]
    assert fold_constants(model) == 3
    np.testing.assert_array_equal(run(model, {})[0], want)


def test_a_chain_is_folded_to_its_end_and_shared_values_serve_all_readers():
    nodes = [
        node("Concat", ["t", "u"], "joined", axis=0),
        node("Transpose", ["joined"], "turned", perm=[1, 0]),
        node("MatMul", ["x", "turned"], "y"),
        node("Mul", ["joined", "joined"], "square"),
        node("MatMul", ["y", "square"], "z"),
    ]
    feeds = {"x": random(5, 4)}
    model = graph(nodes, feeds, ["z"], {"t": random(2, 4), "u": random(1, 4, seed=1)})
    want = run(model, feeds)
    assert fold_constants(model) == 3
    assert operators(model) == ["MatMul", "MatMul"]
    assert sorted(model.graph.initializers) == ["square", "turned"]
    np.testing.assert_array_equal(run(model, feeds)[0], want[0])


def test_constant_nodes_count_as_constants():
    spelled = helper.make_node("Constant", [], ["two"], value_float=2.0)
    model = graph([spelled, node("Mul", ["t", "two"], "m"), node("Add", ["x", "m"], "y")], {"x": T}, ["y"], {"t": T})
    assert fold_constants(model) == 1
    np.testing.assert_array_equal(run(model, {"x": T})[0], T + T * 2)


def test_what_depends_on_an_input_is_left_alone():
    model = graph([node("Add", ["x", "t"], "a"), node("Transpose", ["a"], "y")], {"x": T}, ["y"], {"t": T})
    assert fold_constants(model) == 0
    assert operators(model) == ["Add", "Transpose"]


def test_a_static_shape_is_known_and_a_dynamic_one_is_not():
    model = graph([node("Shape", ["x"], "s"), node("Identity", ["s"], "y")], {"x": T}, ["y"])
    dynamic = model.clone()
    dynamic.graph.inputs[0].shape = ir.Shape(["n", 3, 4])
    assert (fold_constants(model), fold_constants(dynamic)) == (1, 0)
    assert model.graph.initializers["s"].const_value.numpy().tolist() == [2, 3, 4]


def test_outputs_other_operators_and_other_domains_are_left_alone():
    other = helper.make_node("Add", ["t", "t"], ["o"], domain="chip")
    nodes = [node("Add", ["t", "t"], "y"), node("Sin", ["t"], "s"), other, node("Add", ["s", "o"], "z")]
    model = graph(nodes, {}, ["y", "z"], {"t": T}, known={"o": T.shape, "z": T.shape})
    assert fold_constants(model) == 0
    assert operators(model) == ["Add", "Sin", "Add", "Add"]


def test_an_initializer_that_is_an_input_is_no_constant():
    model = graph([node("Add", ["t", "t"], "a"), node("Identity", ["a"], "y")], {"t": T}, ["y"], {"t": T})
    assert model.graph.inputs[0].is_initializer()
    assert fold_constants(model) == 0


def test_a_result_over_the_limit_is_left_alone(monkeypatch):
    def made():
        nodes = [node("Expand", ["t", "size"], "big"), node("Identity", ["big"], "y")]
        return graph(nodes, {}, ["y"], {"t": random(1), "size": int64(100)})

    monkeypatch.setattr(module, "MAX_BYTES", 399)
    assert fold_constants(made()) == 0
    monkeypatch.setattr(module, "MAX_BYTES", 400)
    assert fold_constants(made()) == 1


def test_unused_initializers_are_dropped_and_outputs_are_kept():
    model = graph([node("Add", ["x", "t"], "y")], {"x": T}, ["y"], {"t": T, "unused": T})
    assert drop_unused_initializers(model) == 1
    assert list(model.graph.initializers) == ["t"]
    assert drop_unused_initializers(model) == 0
