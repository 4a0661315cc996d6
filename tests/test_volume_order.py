"""Volumes in the order of their voxels: the same outputs, no turn left inside, and readers that want the old order get it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.graph.passes.volume_order import volume_order
from small_graphs import by_name, graph, node, random, run

Z, Y, X, C = 2, 3, 4, 8
TURN = [0, 4, 3, 2, 1]
FEEDS = {"tokens": random(1, Z, Y, X, C)}
CONSTANTS = {
    "w": random(C, C, 3, 2, 1), "b": random(C), "deconv": random(C, 6, 2, 2, 1), "occ": random(5, 6, 1, 1, 1),
    "groups": np.array([1, 4, -1]), "whole": np.array([1, C, X, Y, Z]), "ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32),
    "scale": random(C, 1, 1, 1), "shift": random(1, C, 1, 1, 1), "mean": np.zeros(6, np.float32), "var": np.ones(6, np.float32),
    "gamma": random(6), "one axis": random(X, 1, 1),
}  # fmt: skip
CONV = {"pads": [1, 1, 0, 1, 0, 0], "strides": [1, 1, 1]}


def chain(more=(), outputs=("labels",), feeds=FEEDS, *, axis=1, keepdims=0):
    """Tokens → volume → Conv → group norm → ReLU → plus the volume → ConvTranspose → BatchNormalization → 1x1 Conv → ArgMax."""
    nodes = [
        node("Transpose", ["tokens"], "volume", perm=TURN),
        node("Conv", ["volume", "w", "b"], "conv", **CONV),
        node("Reshape", ["conv", "groups"], "grouped"),
        node("InstanceNormalization", ["grouped", "ones", "zeros"], "normal"),
        node("Reshape", ["normal", "whole"], "norm"),
        node("Mul", ["norm", "scale"], "scaled"),
        node("Add", ["scaled", "shift"], "shifted"),
        node("Relu", ["shifted"], "relu"),
        node("Add", ["relu", "volume"], "sum"),
        node("ConvTranspose", ["sum", "deconv"], "up", strides=[2, 2, 1], output_padding=[1, 0, 0]),
        node("BatchNormalization", ["up", "gamma", "mean", "mean", "var"], "bn", epsilon=0.0),
        node("Conv", ["bn", "occ"], "logits_scale0"),
        node("ArgMax", ["logits_scale0"], "labels", axis=axis, keepdims=keepdims),
    ]
    return graph([*nodes, *more], feeds, list(outputs), CONSTANTS)


def sizes_of(infos):
    return {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos}


def assert_same(model, feeds=FEEDS, turns=1):
    names = [value.name for value in model.graph.outputs]
    want = run(model, feeds)
    assert volume_order(model) == turns
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    made = {name for inner in proto.graph.node for name in inner.output}
    declared = {name: shape for name, shape in sizes_of(proto.graph.value_info).items() if name in made}
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph.value_info
    assert sizes_of(inferred) == declared
    assert [value.name for value in model.graph.outputs] == names
    for got, right in zip(run(model, feeds), want, strict=True):
        assert got.shape == right.shape
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)


def turns(model):
    """The Transposes that are left, by name."""
    return {found.name: list(found.attributes["perm"].as_ints()) for found in model.graph if found.op_type == "Transpose"}


def test_labels_are_turned_and_nothing_else():
    model = chain()
    assert_same(model)
    assert turns(model) == {"Transpose_volume": [0, 4, 1, 2, 3], "labels_Transpose": [0, 3, 2, 1]}
    logits = by_name(model)["Conv_logits_scale0"].outputs[0]
    assert logits.name == "logits_scale0_zyx" and list(logits.shape) == [1, 5, Z, 2 * Y, 2 * X + 1]


def test_the_kernel_is_turned_with_its_window():
    model = chain()
    volume_order(model)
    conv = by_name(model)["Conv_conv"]
    assert conv.inputs[1].name == "w_zyx"
    np.testing.assert_array_equal(conv.inputs[1].const_value.numpy(), CONSTANTS["w"].transpose(0, 1, 4, 3, 2))
    assert list(conv.attributes["pads"].as_ints()) == [0, 1, 1, 0, 0, 1]
    assert by_name(model)["Conv_logits_scale0"].inputs[1].name == "occ"  # 1x1x1 has no order


def test_logits_that_are_an_output():
    model = chain(outputs=["logits_scale0", "labels"])
    assert_same(model)
    assert turns(model)["logits_scale0_Transpose"] == [0, 1, 4, 3, 2]


def test_labels_that_keep_their_channel_axis():
    assert_same(chain(keepdims=1))


def test_tokens_of_a_volume_for_the_next_layer():
    model = chain(more=[node("Transpose", ["sum"], "again", perm=TURN)], outputs=["labels", "again"])
    assert_same(model, turns=2)
    assert turns(model)["Transpose_again"] == [0, 2, 3, 4, 1]


def test_a_value_for_every_voxel_beside_it():
    other = random(1, C, X, Y, Z)
    model = chain(more=[node("Mul", ["sum", "other"], "y")], outputs=["labels", "y"], feeds={**FEEDS, "other": other})
    assert_same(model, {**FEEDS, "other": other})
    assert turns(model)["Mul_y_in_order"] == [0, 1, 4, 3, 2]


READERS = {
    "an operator that it does not know": node("ReduceMax", ["sum", "first"], "y", keepdims=0),
    "channels elsewhere": node("Softmax", ["sum"], "y", axis=2),
    "a number for each row": node("Add", ["sum", "one axis"], "y"),
    "a Reshape of another kind": node("Reshape", ["sum", "flat"], "y"),
    "groups without their norm": node("Reshape", ["sum", "groups"], "y"),
    "a transpose of another kind": node("Transpose", ["sum"], "y", perm=[0, 1, 3, 2, 4]),
}


@pytest.mark.parametrize("case", READERS)
def test_a_reader_that_wants_the_old_order(case):
    constants = {**CONSTANTS, "first": np.array([2]), "flat": np.array([C * X, Y * Z])}
    nodes = [
        node("Transpose", ["tokens"], "volume", perm=TURN), node("Relu", ["volume"], "sum"), READERS[case],
        node("Identity", ["sum"], "same"),
    ]  # fmt: skip
    model = graph(nodes, FEEDS, ["y", "same"], constants)
    assert_same(model)
    assert sum(perm == [0, 1, 4, 3, 2] for perm in turns(model).values()) == 2


def test_a_weight_that_a_run_can_change():
    feeds = {**FEEDS, "w": CONSTANTS["w"]}
    known = {name: array for name, array in CONSTANTS.items() if name != "w"}
    nodes = [node("Transpose", ["tokens"], "volume", perm=TURN), node("Conv", ["volume", "w"], "y", **CONV)]
    assert_same(graph(nodes, feeds, ["y"], known), feeds)


def test_a_weight_that_two_convolutions_share():
    nodes = [
        node("Transpose", ["tokens"], "volume", perm=TURN),
        node("Conv", ["volume", "w"], "y", **CONV),
        node("Conv", ["volume", "w"], "z", **CONV),
    ]
    model = graph(nodes, FEEDS, ["y", "z"], CONSTANTS)
    assert_same(model)
    assert sorted(name for name in model.graph.initializers if name.startswith("w")) == ["w", "w_zyx", "whole"]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 3), min_size=9, max_size=9), st.lists(st.integers(0, 1), min_size=6, max_size=6))
def test_any_window(sizes, pads):
    kernel, strides, dilations = sizes[:3], sizes[3:6], [1 + size % 2 for size in sizes[6:]]
    feeds = {"tokens": random(1, 7, 8, 9, 2)}
    window = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    nodes = [node("Transpose", ["tokens"], "volume", perm=TURN), node("Conv", ["volume", "w"], "y", **window)]
    assert_same(graph(nodes, feeds, ["y"], {"w": random(3, 2, *kernel)}), feeds)


def test_a_graph_without_volumes_stays():
    model = graph([node("Transpose", ["tokens"], "y", perm=[0, 4, 1, 2, 3])], FEEDS, ["y"])
    before = ir.to_proto(model).SerializeToString()
    assert volume_order(model) == 0
    assert ir.to_proto(model).SerializeToString() == before
