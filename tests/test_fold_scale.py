"""Folding the division of sampling offsets into the linear layer: same values, one node less, and what is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from occport.graph.passes.fold_scale import fold_scale
from small_graphs import by_name, constant_of, graph, node, operators, random, run

ROWS, WIDTH, HEADS, POINTS = 7, 5, 3, 2
OFFSETS, SCORES = HEADS * POINTS * 2, HEADS * POINTS
FEEDS = {"x": random(ROWS, WIDTH), "slots": np.array([[0, 3, 3, 6], [5, 1, 0, 2]]), "free": np.float32([2, 3])}
CONSTANTS = {
    "w": random(OFFSETS + SCORES, WIDTH), "b": random(OFFSETS + SCORES), "sizes": np.array([OFFSETS, SCORES]),
    "shape": np.array([2, 4, HEADS, 1, POINTS, 2]), "size": np.array([[7, 5]], np.float32),
    "columns": np.arange(OFFSETS + SCORES)[::-1].copy(), "many": np.arange(OFFSETS + SCORES) % ROWS,
}  # fmt: skip


def chain(changed=None, constants=None, more=(), outputs=("last", "scores")):
    """Gemm → Gather → Split → Reshape → Div → Identity, with some of these nodes exchanged and others added."""
    nodes = {
        "gemm": node("Gemm", ["x", "w", "b"], "rows", transB=1),
        "gather": node("Gather", ["rows", "slots"], "wanted"),
        "split": node("Split", ["wanted", "sizes"], ["offsets", "scores"], axis=2),
        "reshape": node("Reshape", ["offsets", "shape"], "offset"),
        "div": node("Div", ["offset", "size"], "y"),
        "last": node("Identity", ["y"], "last"),
    } | (changed or {})
    return graph([*nodes.values(), *more], FEEDS, list(outputs), CONSTANTS | (constants or {}))


def assert_folded(model, times=1):
    want, before = run(model, FEEDS), operators(model)
    assert fold_scale(model) == times
    assert len(operators(model)) == len(before) - times
    assert "Div" not in operators(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for got, right in zip(run(model, FEEDS), want, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)


DIVISORS = {
    "a number": np.float32(4),
    "one number": np.float32([4]),
    "the map's size": np.float32([[7, 5]]),
    "with all axes": np.float32([7, 5]).reshape(1, 1, 1, 1, 1, 2),
    "of each column": np.abs(random(HEADS, 1, POINTS, 2)) + np.float32(1),
}


@pytest.mark.parametrize("case", DIVISORS)
def test_a_divisor_that_follows_the_columns(case):
    assert_folded(chain(constants={"size": DIVISORS[case]}))


def test_the_part_may_be_the_second():
    split = node("Split", ["wanted", "sizes"], ["scores", "offsets"], axis=-1)
    assert_folded(chain({"split": split}, {"sizes": np.array([SCORES, OFFSETS])}))


def test_only_the_rows_of_the_part_are_changed():
    model = chain()
    assert fold_scale(model) == 1
    gemm, size = by_name(model)["Gemm_rows"], np.tile([7, 5], HEADS * POINTS)
    for index, old, factor in ((1, CONSTANTS["w"], size[:, None]), (2, CONSTANTS["b"], size)):
        new = constant_of(gemm.inputs[index])
        np.testing.assert_allclose(new[:OFFSETS], old[:OFFSETS] / factor, rtol=1e-6)
        np.testing.assert_array_equal(new[OFFSETS:], old[OFFSETS:])


def test_a_weight_that_others_use_stays_theirs():
    second = [
        node("Gemm", ["x", "w", "b"], "rows2", transB=1),
        node("Gather", ["rows2", "slots"], "wanted2"),
        node("Split", ["wanted2", "sizes"], ["offsets2", "scores2"], axis=2),
        node("Reshape", ["offsets2", "shape"], "offset2"),
        node("Div", ["offset2", "size"], "y2"),
        node("Neg", ["y2"], "last2"),
        node("Transpose", ["w"], "turned"),
        node("MatMul", ["x", "turned"], "plain"),
    ]
    assert_folded(chain(more=second, outputs=("last", "scores", "last2", "plain")), times=2)


def test_both_parts_of_one_layer():
    more = [node("Div", ["shares", "four"], "z"), node("Neg", ["z"], "last2")]
    reshape = node("Reshape", ["scores", "shape2"], "shares")
    constants = {"shape2": np.array([2, 4, HEADS, POINTS]), "four": np.float32(4)}
    assert_folded(chain(constants=constants, more=[reshape, *more], outputs=("last", "last2")), times=2)


def two_readers(value):
    return {"more": [node("Neg", [value], "v")], "outputs": ("last", "scores", "v")}


REFUSED = {
    "Gemm without transB": {
        "changed": {"gemm": node("Gemm", ["x", "w", "b"], "rows")}, "constants": {"w": random(WIDTH, OFFSETS + SCORES)},
    },
    "Gemm without bias": {"changed": {"gemm": node("Gemm", ["x", "w"], "rows", transB=1)}},
    "MatMul": {"changed": {"gemm": node("MatMul", ["x", "w"], "rows")}, "constants": {"w": random(WIDTH, OFFSETS + SCORES)}},
    "gathered along columns": {
        "changed": {
            "gather": node("Gather", ["rows", "columns"], "wanted", axis=1),
            "split": node("Split", ["wanted", "sizes"], ["offsets", "scores"], axis=1),
        },
        "constants": {"shape": np.array([ROWS, HEADS, 1, POINTS, 2])},
    },
    "split along rows": {
        "changed": {
            "gather": node("Gather", ["rows", "many"], "wanted"),
            "split": node("Split", ["wanted", "sizes"], ["offsets", "scores"], axis=0),
        },
        "constants": {"shape": np.array([OFFSETS, 9, 2])},
    },
    "heads before slots": {"constants": {"shape": np.array([2, HEADS, 4, 1, POINTS, 2])}},
    "a divisor by row": {"constants": {"size": np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1, 1, 1)}},
    "a divisor that widens": {"constants": {"size": np.abs(random(2, 2, 4, HEADS, 1, POINTS, 2)) + np.float32(1)}},
    "a divisor that is no constant": {"changed": {"div": node("Div", ["offset", "free"], "y")}},
    "a constant divided by it": {"changed": {"div": node("Div", ["size", "offset"], "y")}},
    "reshape read twice": two_readers("offset"),
    "part read twice": two_readers("offsets"),
    "gathered rows read twice": two_readers("wanted"),
    "linear layer read twice": two_readers("rows"),
    "linear layer is an output": {"outputs": ("last", "scores", "rows")},
    "division is an output": {"outputs": ("last", "scores", "y")},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_left_alone(case):
    model = chain(**REFUSED[case])
    want, before = run(model, FEEDS), operators(model)
    assert fold_scale(model) == 0
    assert operators(model) == before
    for got, right in zip(run(model, FEEDS), want, strict=True):
        np.testing.assert_array_equal(got, right)
