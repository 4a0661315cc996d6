"""The three ways of writing the normalisation behind a deformable convolution."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from occport.graph import canonical, dialect
from occport.graph.passes.dcn_bias import fold_batch_norm
from small_graphs import by_name, constant_of, deform_conv, graph, node, operators, random, run, with_bodies

FEEDS = {"x": random(2, 4, 5, 6), "offset": random(2, 18, 5, 6, scale=2), "mask": np.abs(random(2, 9, 5, 6))}
CONSTANTS = {
    "w": random(3, 4, 3, 3), "bias": random(3), "gamma": random(3, seed=1) + np.float32(2), "beta": random(3, seed=2),
    "mean": random(3, seed=3), "variance": np.abs(random(3, seed=4)) + np.float32(0.1),
}  # fmt: skip
SHAPE = (2, 3, 5, 6)
STANDARD = dialect.load("standard")


def conv(inputs=("x", "offset", "mask", "w"), norm=("gamma", "beta", "mean", "variance"), outputs=("y",), more=(), epsilon=None):
    """A canonical convolution, BatchNormalization, Relu."""
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    nodes = [
        deform_conv(list(inputs), "c"),
        node("BatchNormalization", ["c", *norm], "n", name="norm", **attributes),
        node("Relu", ["n"], "y"),
    ]
    return graph([*nodes, *more], FEEDS, list(outputs), CONSTANTS, known={"c": SHAPE})


def values(model):
    return run(with_bodies(model, STANDARD), FEEDS)


@pytest.mark.parametrize(("policy", "left"), [("input", ["DeformConv2d", "Relu"]), ("add", ["DeformConv2d", "Add", "Relu"])])
@pytest.mark.parametrize("epsilon", [None, 1e-2])
def test_the_values_are_the_same(policy, left, epsilon):
    model = conv(epsilon=epsilon)
    want = values(model)[0]
    assert fold_batch_norm(model, policy) == 1
    assert operators(model) == left
    np.testing.assert_allclose(values(model)[0], want, rtol=0, atol=1e-5)


def test_the_fifth_input_and_the_weight():
    model = conv(epsilon=1e-2)
    fold_batch_norm(model, "input")
    folded = by_name(model)["conv"]
    scale = CONSTANTS["gamma"] / np.sqrt(CONSTANTS["variance"] + 1e-2)
    np.testing.assert_allclose(constant_of(folded.inputs[3]), CONSTANTS["w"] * scale[:, None, None, None], rtol=1e-6)
    np.testing.assert_allclose(constant_of(folded.inputs[4]), CONSTANTS["beta"] - CONSTANTS["mean"] * scale, rtol=1e-5)
    assert list(folded.attributes["stride"].as_ints()) == [1, 1]
    assert (folded.domain, folded.outputs[0].shape.numpy()) == (canonical.DOMAIN, SHAPE)


def test_batchnorm_does_nothing():
    model = conv()
    assert fold_batch_norm(model, "batchnorm") == 0
    assert operators(model) == ["DeformConv2d", "BatchNormalization", "Relu"]


@pytest.mark.parametrize("policy", ["input", "add"])
def test_an_output_of_the_graph_keeps_its_name(policy):
    model = conv(outputs=("n", "y"))
    want = values(model)
    assert fold_batch_norm(model, policy) == 1
    assert [value.name for value in model.graph.outputs] == ["n", "y"]
    for got, right in zip(values(model), want, strict=True):
        np.testing.assert_allclose(got, right, rtol=0, atol=1e-5)


def test_a_weight_that_two_convolutions_share_serves_both():
    second = [deform_conv(["x", "offset", "mask", "w"], "c2", name="conv2"), node("Neg", ["c2"], "z")]
    feeds_shape = {"c": SHAPE, "c2": SHAPE}
    model = graph(
        [deform_conv(["x", "offset", "mask", "w"], "c"), node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], "n"),
         node("Relu", ["n"], "y"), *second], FEEDS, ["y", "z"], CONSTANTS, known=feeds_shape,
    )  # fmt: skip
    want = values(model)
    assert fold_batch_norm(model, "add") == 1
    for got, right in zip(values(model), want, strict=True):
        np.testing.assert_allclose(got, right, rtol=0, atol=1e-5)


def computed():
    nodes = [
        deform_conv(["x", "offset", "mask", "w"], "c"), node("Exp", ["beta"], "computed"),
        node("BatchNormalization", ["c", "gamma", "beta", "mean", "computed"], "n"), node("Relu", ["n"], "y"),
    ]  # fmt: skip
    return graph(nodes, FEEDS, ["y"], CONSTANTS, known={"c": SHAPE})


REFUSED = {
    "a bias of its own": partial(conv, inputs=("x", "offset", "mask", "w", "bias")),
    "read twice": partial(conv, more=[node("Neg", ["c"], "v")], outputs=("y", "v")),
    "an output": partial(conv, outputs=("y", "c")),
    "statistics that are computed": computed,
}


@pytest.mark.parametrize("policy", ["input", "add"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_left_alone(case, policy):
    model = REFUSED[case]()
    before, want = operators(model), values(model)
    assert fold_batch_norm(model, policy) == 0
    assert operators(model) == before
    for got, right in zip(values(model), want, strict=True):
        np.testing.assert_array_equal(got, right)
