"""Graph inputs without their batch axis."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from occport.graph.opset import convert_opset, ir_version_for
from occport.graph.passes.input_rank import drop_batch_axis
from small_graphs import graph, node, operators, random, run

FEEDS = {"img": random(1, 6, 3, 2, 4), "lidar2img": random(1, 6, 4, 4)}
FLAT = {name: array[0] for name, array in FEEDS.items()}
CONSTANTS = {"images": np.array([6, 3, 2, 4]), "rest": np.array([0, 0, -1]), "size": np.float32([[4], [2], [1], [1]])}


def both():
    """img is read by a Reshape; lidar2img by two others, as where the projection divides its rows."""
    nodes = [
        node("Reshape", ["img", "images"], "x"), node("Neg", ["x"], "y"), node("Div", ["lidar2img", "size"], "rows"),
        node("MatMul", ["rows", "lidar2img"], "z"),
    ]  # fmt: skip
    return graph(nodes, FEEDS, ["y", "z"], CONSTANTS)


@pytest.mark.parametrize("opset", [11, 13, 18, 22])
def test_both_inputs_at_every_opset(opset):
    model = both()
    want = run(model, FEEDS)
    convert_opset(model, opset)
    model.ir_version = ir_version_for(opset)
    drop_batch_axis(model, "img")
    drop_batch_axis(model, "lidar2img")
    assert [(value.name, value.shape.numpy()) for value in model.graph.inputs] == [("img", (6, 3, 2, 4)), ("lidar2img", (6, 4, 4))]
    assert operators(model) == ["Reshape", "Neg", "Reshape", "Div", "MatMul"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for got, right in zip(run(model, FLAT), want, strict=True):
        np.testing.assert_array_equal(got, right)


def test_a_reshape_that_spells_its_sizes_reads_the_input_directly():
    model = both()
    drop_batch_axis(model, "img")
    assert next(iter(model.graph)).inputs[0] is model.graph.inputs[0]
    assert len(operators(model)) == 4


def test_a_reshape_that_copies_sizes_reads_it_with_its_axis():
    model = graph([node("Reshape", ["img", "rest"], "y")], {"img": FEEDS["img"]}, ["y"], CONSTANTS)
    drop_batch_axis(model, "img")
    assert operators(model) == ["Reshape", "Reshape"]
    np.testing.assert_array_equal(run(model, {"img": FLAT["img"]})[0], FEEDS["img"].reshape(1, 6, -1))


def test_an_input_that_nobody_reads_changes_too():
    model = graph([node("Neg", ["img"], "y")], FEEDS, ["y"])
    drop_batch_axis(model, "lidar2img")
    assert model.graph.inputs[1].shape.numpy() == (6, 4, 4)
    assert operators(model) == ["Neg"]


def test_a_batch_of_two_is_our_own_bug():
    model = graph([node("Neg", ["img"], "y")], {"img": random(2, 6, 3, 2, 4)}, ["y"])
    with pytest.raises(AssertionError):
        drop_batch_axis(model, "img")
