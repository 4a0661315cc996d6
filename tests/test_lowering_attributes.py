"""Inputs that were attributes, attributes that were added: Split, Squeeze, reductions, Pad, Resize, Reshape, defaults, Constant."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.helper import make_node as node

from lowering_model import assert_every_opset, build, convert, ops, run
from occport.errors import ExportError
from occport.graph.lowering.constant_value import lower_constant_value
from occport.graph.lowering.reduce_axes import SINCE_18
from occport.graph.lowering.split_sizes import lower_split_num_outputs
from occport.graph.opset import convert_opset

rng = np.random.default_rng(5)
X = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)


def attributes_of(model, op):
    found = next(one for one in model.graph.node if one.op_type == op)
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in found.attribute}


@pytest.mark.parametrize("constant_nodes", [False, True])
@pytest.mark.parametrize(
    ("one", "constants"),
    [
        (node("Split", ["x"], ["y", "z"], axis=2, num_outputs=2), {}),  # 5 = 3 + 2: unequal
        (node("Split", ["x", "c"], ["y", "z"], axis=-1), {"c": np.int64([3, 1])}),
        (node("Unsqueeze", ["x", "c"], ["y"]), {"c": np.int64([0, -1])}),
        (node("Slice", ["x", "from", "to", "c"], ["y"]), {"from": np.int64([1]), "to": np.int64([9]), "c": np.int64([3])}),
        (node("ReduceSum", ["x", "c"], ["y"], keepdims=0), {"c": np.int64([1, -1])}),
        (node("ReduceSum", ["x"], ["y"], keepdims=1), {}),
        (node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1), {}),
        (node("ReduceSum", ["x", "c"], ["y"], noop_with_empty_axes=1), {"c": np.zeros(0, np.int64)}),
        (node("ReduceMean", ["x", "c"], ["y"], noop_with_empty_axes=1, keepdims=0), {"c": np.int64([2])}),
        (node("Pad", ["x", "c"], ["y"]), {"c": np.int64([0, 0, 1, 2, 0, 0, 0, 3])}),
        (node("Pad", ["x", "c", "v", "a"], ["y"]), {"c": np.int64([1, 2, 3, 0]), "v": np.float32(7), "a": np.int64([-1, 2])}),
        (node("Pad", ["x", "c", "", "a"], ["y"], mode="reflect"), {"c": np.int64([1, 2]), "a": np.int64([3])}),
        (node("Reshape", ["x", "c"], ["y"], allowzero=0), {"c": np.int64([0, -1])}),
        (node("Reshape", ["x", "c"], ["y"], allowzero=1), {"c": np.int64([6, -1])}),
        (node("ScatterElements", ["x", "c", "u"], ["y"], axis=1, reduction="none"), {"c": np.int64([[[[2]]]]), "u": np.float32([[[[9]]]])}),
        (node("ScatterND", ["x", "c", "u"], ["y"], reduction="none"), {"c": np.int64([[1, 2, 0, 0]]), "u": np.float32([9])}),
        (node("ArgMax", ["x"], ["y"], axis=1, keepdims=0, select_last_index=0), {}),
        (node("ArgMin", ["x"], ["y"], axis=3, select_last_index=0), {}),
        (node("GatherND", ["x", "c"], ["y"], batch_dims=0), {"c": np.int64([[1, 2]])}),
        (node("GatherElements", ["x", "c"], ["y"], axis=3), {"c": np.int64([[[[3, 0]]]])}),
    ],
    ids=lambda value: value.op_type if hasattr(value, "op_type") else None,
)  # fmt: skip
def test_is_the_same_at_every_opset(one, constants, constant_nodes):
    model = build([one], {"x": X}, list(one.output), constants, constant_nodes=constant_nodes)
    made = assert_every_opset(model, {"x": X})
    assert [output.name for output in made[11].graph.output] == list(one.output)
    only = next(found for found in made[11].graph.node if found.op_type != "Constant")
    assert only.name == one.name and len(ops(made[11])) == 1


def test_axes_and_sizes_become_attributes():
    lowest = convert(build([node("Split", ["x"], ["y", "z"], axis=2, num_outputs=2)], {"x": X}, ["y", "z"]), 11)
    assert attributes_of(lowest, "Split") == {"axis": 2, "split": [3, 2]}
    middle = convert(build([node("Split", ["x"], ["y", "z"], axis=2, num_outputs=2)], {"x": X}, ["y", "z"]), 13)
    assert attributes_of(middle, "Split") == {"axis": 2}
    assert middle.graph.initializer[0].name == "node_Split_split"
    reduced = build([node("ReduceMax", ["x", "c"], ["y"])], {"x": X}, ["y"], {"c": np.int64([1, -1])})
    assert attributes_of(convert(reduced, 17), "ReduceMax") == {"axes": [1, -1]}
    assert attributes_of(convert(reduced, 18), "ReduceMax") == {}
    everything = build([node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=0)], {"x": X}, ["y"])
    assert attributes_of(convert(everything, 11), "ReduceMean") == {}


@pytest.mark.parametrize("op", SINCE_18)
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_reductions(op, dtype):
    if dtype == np.int64 and "Log" in op:
        pytest.skip("a logarithm of integers is no longer defined")
    data = np.abs(X * 8).astype(dtype) + 1
    model = build([node(op, ["x", "c"], ["y"], keepdims=0)], {"x": data}, ["y"], {"c": np.int64([1, 3])})
    # ONNX Runtime has no kernel for some of the integers; the reference evaluator has.
    made = assert_every_opset(model, {"x": data}, reference=True, tolerance=1e-3 if dtype == np.float32 else 0)
    assert ops(made[11]) == {op: 1}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_reduction_over_any_axes(shape, data):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, max_size=len(shape)))
    signed = [axis - len(shape) if data.draw(st.booleans()) else axis for axis in axes]
    x = rng.standard_normal(shape).astype(np.float32)
    keep = data.draw(st.integers(0, 1))
    model = build([node("ReduceSum", ["x", "c"], ["y"], keepdims=keep)], {"x": x}, ["y"], {"c": np.asarray(signed, np.int64)})
    want = x.sum(axis=tuple(axes) if axes else None, keepdims=bool(keep))
    for opset in (11, 13):
        np.testing.assert_allclose(run(convert(model, opset), {"x": x})[0], want, atol=1e-5)


def test_reduction_that_cannot_hand_on():
    model = build([node("ReduceL2", ["x"], ["y"], noop_with_empty_axes=1)], {"x": X}, ["y"])
    with pytest.raises(ExportError, match=r"node 'node_ReduceL2' \(ReduceL2\): expected axes, got none, with noop_with_empty_axes"):
        convert(model, 17)


@pytest.mark.parametrize(
    ("one", "opset", "message"),
    [
        (node("ReduceSum", ["x", "c"], ["y"]), 11, r"'y' \(ReduceSum\): expected constant axes, got values that are computed"),
        (node("Unsqueeze", ["x", "c"], ["y"]), 12, r"'y' \(Unsqueeze\): expected constant axes"),
        (node("Split", ["x", "c"], ["y"]), 11, r"'y' \(Split\): expected constant sizes of the pieces"),
        (node("Pad", ["x", "p", "", "c"], ["y"]), 17, r"'y' \(Pad\): expected constant axes"),
    ],
)
def test_computed_axes_are_refused(one, opset, message):
    graph = helper.make_graph(
        [one], "small", [helper.make_tensor_value_info("x", 1, X.shape), helper.make_tensor_value_info("c", 7, [1])],
        [helper.make_tensor_value_info("y", 1, [2, 3])], [helper.make_tensor("p", 7, [2], [0, 1])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    with pytest.raises(ExportError, match=message):
        convert_opset(model, opset)


def test_split_of_unknown_shape_is_refused():
    graph = helper.make_graph([node("Split", ["x"], ["y", "z"], num_outputs=2)], "small", [helper.make_tensor_value_info("x", 1, ["n"])],
                              [helper.make_tensor_value_info(name, 1, None) for name in "yz"])  # fmt: skip
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    with pytest.raises(ExportError, match=r"expected static shapes of the outputs, got unknown ones; give Split its sizes as an input"):
        lower_split_num_outputs(model)


SPELLED_OUT = {"antialias": 0, "keep_aspect_ratio_policy": "stretch"}
NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


@pytest.mark.parametrize(
    ("one", "constants"),
    [
        (node("Resize", ["x", "", "", "c"], ["y"], **NEAREST, **SPELLED_OUT), {"c": np.int64([2, 3, 9, 11])}),
        (node("Resize", ["x", "", "c"], ["y"], **NEAREST), {"c": np.float32([1, 1, 2, 2])}),
        (node("Resize", ["x", "", "c"], ["y"], **NEAREST, axes=[3, 2]), {"c": np.float32([3, 2])}),
        (node("Resize", ["x", "", "", "c"], ["y"], **NEAREST, axes=[-1]), {"c": np.int64([7])}),
    ],
)
def test_resize(one, constants):
    model = build([one], {"x": X}, ["y"], constants)
    made = assert_every_opset(model, {"x": X})
    assert len(made[17].graph.initializer) == 1 and made[17].graph.node[0].input[1] == ""
    old = made[11].graph.node[0]
    assert old.input[1] == "node_Resize_roi" and all(old.input)  # opset 11 insists on roi and scales
    assert not {"antialias", "axes", "keep_aspect_ratio_policy"} & set(attributes_of(made[17], "Resize"))


def test_linear_resize():
    one = node("Resize", ["x", "", "", "c"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel")
    made = assert_every_opset(build([one], {"x": X}, ["y"], {"c": np.int64([2, 3, 10, 8])}), {"x": X}, tolerance=1e-6)
    assert ops(made[11]) == {"Resize": 1}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"antialias": 1}, "expected antialias = 0, got antialias = 1; choose opset 18 or later"),
        ({"keep_aspect_ratio_policy": "not_larger"}, "expected keep_aspect_ratio_policy = stretch, got not_larger"),
    ],
)
def test_resize_that_cannot_be_said(attributes, message):
    one = node("Resize", ["x", "", "", "c"], ["y"], mode="linear", **attributes)
    model = build([one], {"x": X}, ["y"], {"c": np.int64([2, 3, 4, 4])})
    with pytest.raises(ExportError, match=message):
        convert(model, 17)


def test_reshape_to_an_empty_tensor_is_refused_below_14():
    x = np.zeros((0, 3), np.float32)
    model = build([node("Reshape", ["x", "c"], ["y"], allowzero=1)], {"x": x}, ["y"], {"c": np.int64([3, 0])})
    assert run(convert(model, 14), {"x": x})[0].shape == (3, 0)
    with pytest.raises(ExportError, match=r"expected a target shape without zeros, got \[3, 0\]; choose opset 14 or later"):
        convert(model, 13)


def test_reshape_to_a_computed_shape_takes_the_static_one():
    nodes = [node("Shape", ["z"], ["s"]), node("Reshape", ["x", "s"], ["y"], allowzero=1)]
    feeds = {"x": X, "z": np.zeros((6, 20), np.float32)}
    made = assert_every_opset(build(nodes, feeds, ["y"]), feeds)
    assert made[11].graph.node[-1].input[1] == "node_Reshape_shape"


@pytest.mark.parametrize(
    ("attribute", "want"),
    [({"value_int": 3}, np.int64(3)), ({"value_ints": [3, 4, 5, 6]}, np.int64([3, 4, 5, 6])), ({"value_floats": [0.5]}, np.float32([0.5]))],
)
def test_constant_numbers_become_tensors(attribute, want):
    spelled = helper.make_node("Constant", [], ["c"], name="node_c", **attribute)
    feeds = {"x": X.astype(want.dtype)}
    made = assert_every_opset(build([spelled, node("Mul", ["x", "c"], ["y"])], feeds, ["y"]), feeds)
    inside = ir.from_proto(made[12])
    assert lower_constant_value(inside) == 1 and lower_constant_value(inside) == 0
    np.testing.assert_array_equal(inside.graph[0].attributes["value"].as_tensor().numpy(), want)


def test_batch_normalization_keeps_its_numbers():
    vectors = {name: rng.random(3).astype(np.float32) + 0.5 for name in ("scale", "bias", "mean", "variance")}
    model = build([node("BatchNormalization", ["x", *vectors], ["y"], training_mode=0, epsilon=1e-3)], {"x": X}, ["y"], vectors)
    made = assert_every_opset(model, {"x": X}, tolerance=1e-6)
    assert "training_mode" not in attributes_of(made[13], "BatchNormalization")


def test_values_other_than_the_default_are_refused():
    last = build([node("ArgMax", ["x"], ["y"], select_last_index=1)], {"x": X}, ["y"])
    with pytest.raises(ExportError, match="attribute 'select_last_index' is not one of version 11"):
        convert(last, 11)
    added = build([node("ScatterND", ["x", "c", "u"], ["y"], reduction="add")], {"x": X}, ["y"], {"c": np.int64([[0]]), "u": X[:1]})
    with pytest.raises(ExportError, match="attribute 'reduction' is not one of version 13"):
        convert(added, 15)
    larger = build([node("ScatterND", ["x", "c", "u"], ["y"], reduction="max")], {"x": X}, ["y"], {"c": np.int64([[0]]), "u": X[:1]})
    with pytest.raises(ExportError, match="attribute 'reduction' cannot be 'max' at opset 17"):
        convert(larger, 17)
