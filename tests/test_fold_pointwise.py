"""A convolution and the 1x1 convolution behind it as one: same values, borders included, and what is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.graph.passes.fold_pointwise import fold_pointwise
from small_graphs import graph, node, operators, random, run

FEEDS = {"x": random(2, 3, 7, 6)}


def pair(*, first=None, second=None, constants=None, more=(), outputs=("y",), feeds=FEEDS):
    """Conv 3x3 to 5 channels → Conv 1x1 to 4."""
    weights = {"w": random(5, 3, 3, 3), "b": random(5), "v": random(4, 5, 1, 1), "c": random(4)}
    nodes = [
        node("Conv", ["x", "w", "b"], "middle", **({"pads": [1, 1, 1, 1]} if first is None else first)),
        node("Conv", ["middle", "v", "c"], "y", **(second or {})),
    ]
    known = {name: array for name, array in {**weights, **(constants or {})}.items() if name not in feeds}
    return graph([*nodes, *more], feeds, list(outputs), known)


def assert_folded(model, feeds=FEEDS):
    want = run(model, feeds)
    assert fold_pointwise(model) == 1
    assert operators(model) == ["Conv"]
    assert [found.name for found in model.graph] == ["Conv_y"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for got, right in zip(run(model, feeds), want, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)


def test_borders_are_exact():
    assert_folded(pair())


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.integers(1, 4), st.booleans())
def test_any_window_of_the_first(stride, pad, dilation, made, spelled):
    first = {"strides": [stride, 1], "pads": [pad, 1, 0, pad], "dilations": [dilation, 1]}
    second = {"strides": [1, 1], "pads": [0] * 4, "dilations": [3, 3], "kernel_shape": [1, 1], "group": 1} if spelled else {}
    assert_folded(pair(first=first, second=second, constants={"v": random(made, 5, 1, 1), "c": random(made)}))


def test_in_three_dimensions_without_biases():
    feeds = {"x": random(1, 2, 4, 3, 5)}
    nodes = [node("Conv", ["x", "w"], "middle", pads=[1] * 6), node("Conv", ["middle", "v"], "y")]
    assert_folded(graph(nodes, feeds, ["y"], {"w": random(4, 2, 3, 3, 3), "v": random(3, 4, 1, 1, 1)}), feeds)


def test_a_chain_of_three_becomes_one():
    more = [node("Conv", ["y", "u"], "z")]
    model = pair(constants={"u": random(2, 4, 1, 1)}, more=more, outputs=["z"])
    want = run(model, FEEDS)[0]
    assert fold_pointwise(model) == 2
    assert operators(model) == ["Conv"]
    np.testing.assert_allclose(run(model, FEEDS)[0], want, rtol=1e-5, atol=1e-5)


LEFT_ALONE = {
    "the middle is read elsewhere": {"more": [node("Relu", ["middle"], "other")], "outputs": ["y", "other"]},
    "the middle is an output": {"outputs": ["y", "middle"]},
    "a 3x3 kernel": {"constants": {"v": random(4, 5, 3, 3)}},
    "a stride": {"second": {"strides": [2, 2]}},
    "padding": {"second": {"pads": [1, 1, 1, 1]}},
    "automatic padding": {"second": {"auto_pad": "SAME_UPPER"}},
    "groups of the first": {
        "constants": {"w": random(6, 1, 3, 3), "b": random(6), "v": random(2, 6, 1, 1), "c": random(2)}, "first": {"group": 3}
    },
    "groups of the second": {"constants": {"w": random(6, 3, 3, 3), "b": random(6), "v": random(4, 3, 1, 1)}, "second": {"group": 2}},
    "many channels of few": {"constants": {"w": random(1, 3, 3, 3), "b": random(1), "v": random(9, 1, 1, 1), "c": random(9)}},
    "a weight that changes": {"feeds": {**FEEDS, "v": random(4, 5, 1, 1)}},
    "a bias that changes": {"feeds": {**FEEDS, "b": random(5)}},
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_left_alone(case):
    model = pair(**LEFT_ALONE[case])
    before = operators(model)
    assert fold_pointwise(model) == 0
    assert operators(model) == before
