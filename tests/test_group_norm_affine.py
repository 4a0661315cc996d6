"""Scale and shift behind a group normalisation as one BatchNormalization."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from occport.graph.passes.group_norm_affine import group_norm_affine
from small_graphs import by_name, graph, node, operators, random, run

FEEDS = {"x": random(2, 6, 3, 4, 5, scale=3)}
CONSTANTS = {
    "groups": np.array([2, 3, -1]), "full": np.array([2, 6, 3, 4, 5]), "ones": np.ones(3, np.float32), "zeros": np.zeros(3, np.float32),
    "w": random(6, 1, 1, 1), "b": random(6, 1, 1, 1, seed=1),
}  # fmt: skip


def norm(changed=None, constants=None, outputs=("y",), more=()):
    """What the exporter writes for GroupNorm over 3 groups of 6 channels."""
    nodes = {
        "split": node("Reshape", ["x", "groups"], "grouped"),
        "norm": node("InstanceNormalization", ["grouped", "ones", "zeros"], "normal", epsilon=1e-5),
        "join": node("Reshape", ["normal", "full"], "back"),
        "mul": node("Mul", ["back", "w"], "scaled"),
        "add": node("Add", ["scaled", "b"], "y"),
    } | (changed or {})
    return graph([*nodes.values(), *more], FEEDS, list(outputs), CONSTANTS | (constants or {}))


@pytest.mark.parametrize("shape", [(6, 1, 1, 1), (1, 6, 1, 1, 1)])
def test_the_values_are_the_same(shape):
    model = norm(constants={"w": random(*shape), "b": random(*shape, seed=1)})
    want = run(model, FEEDS)[0]
    assert group_norm_affine(model) == 1
    assert operators(model) == ["Reshape", "InstanceNormalization", "Reshape", "BatchNormalization"]
    assert by_name(model)["Add_y"].attributes["epsilon"].as_float() == 0
    assert [value.name for value in model.graph.outputs] == ["y"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(run(model, FEEDS)[0], want, rtol=0, atol=1e-6)


def test_vectors_that_are_equal_are_shared_by_two_norms():
    second = [
        node("Reshape", ["y", "groups"], "g2"), node("InstanceNormalization", ["g2", "ones", "zeros"], "n2", epsilon=1e-5),
        node("Reshape", ["n2", "full"], "back2"), node("Mul", ["back2", "w"], "s2"), node("Add", ["s2", "b"], "z"),
    ]  # fmt: skip
    model = norm(outputs=("z",), more=second)
    want = run(model, FEEDS)[0]
    assert group_norm_affine(model) == 2
    first, last = by_name(model)["Add_y"], by_name(model)["Add_z"]
    assert list(first.inputs[1:]) == list(last.inputs[1:])
    np.testing.assert_allclose(run(model, FEEDS)[0], want, rtol=0, atol=1e-5)


REFUSED = {
    "one scale for all": {"constants": {"w": random(1, 1, 1, 1)}},
    "a scale for each row": {"constants": {"w": random(3, 1, 1)}},
    "a shift for each place": {"constants": {"b": random(6, 3, 4, 5)}},
    "a scale for each sample": {"constants": {"w": random(2, 6, 1, 1, 1)}},
    "scaled values are read twice": {"more": [node("Neg", ["scaled"], "v")], "outputs": ("y", "v")},
    "scaled values are an output": {"outputs": ("y", "scaled")},
    "scale is no constant": {"changed": {"mul": node("Mul", ["back", "x"], "scaled")}},
    "shift is no constant": {"changed": {"add": node("Add", ["scaled", "x"], "y")}},
    "no scale": {"changed": {"mul": node("Neg", ["back"], "scaled")}},
    "no reshape in between": {"changed": {"join": node("Reshape", ["normal", "full"], "there"), "mul": node("Mul", ["x", "w"], "scaled")}},
    "another normalisation": {"changed": {"norm": node("Softmax", ["grouped"], "normal", axis=2)}},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_left_alone(case):
    model = norm(**REFUSED[case])
    before, want = operators(model), run(model, FEEDS)
    assert group_norm_affine(model) == 0
    assert operators(model) == before
    for got, right in zip(run(model, FEEDS), want, strict=True):
        np.testing.assert_array_equal(got, right)
