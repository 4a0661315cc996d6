"""Operators that older opsets have for fewer types, or under another name: comparisons, Max, Min, Clip, Relu, Pow, CumSum, Softmax …"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.helper import make_node as node

from lowering_model import assert_every_opset, build, convert, ops, run
from occport.errors import ExportError

rng = np.random.default_rng(6)
X = rng.standard_normal((2, 3, 4)).astype(np.float32)
I = rng.integers(-9, 9, (2, 3, 4))  # noqa: E741 - the integer partner of X


@pytest.mark.parametrize(("op", "opposite"), [("GreaterOrEqual", "Less"), ("LessOrEqual", "Greater")])
def test_or_equal(op, opposite):
    made = assert_every_opset(build([node(op, ["x", "c"], ["y"])], {"x": I}, ["y"], {"c": np.int64(2)}), {"x": I})
    assert ops(made[11]) == {opposite: 1, "Not": 1} and ops(made[12]) == {op: 1}
    wild = np.float32([np.nan, 2, -1, np.inf, -np.inf, 2.5])
    made = assert_every_opset(build([node(op, ["x", "c"], ["y"])], {"x": wild}, ["y"], {"c": np.float32(2)}), {"x": wild})
    assert not run(made[11], {"x": wild})[0][0]  # nothing compares with NaN
    assert sum(ops(made[11]).values()) == 3


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_integer_max_min(op):
    feeds = {"x": I, "z": I[:, :1, ::-1].copy()}
    made = assert_every_opset(build([node(op, ["x", "z", "c"], ["y"])], feeds, ["y"], {"c": np.int64(1)}), feeds)
    assert ops(made[11]) == {"Greater" if op == "Max" else "Less": 2, "Where": 2} and ops(made[12]) == {op: 1}
    helpers = [f"node_{op}_{op.lower()}_{suffix}" for suffix in ("1_mask", "1", "2_mask")]
    assert [one.name for one in made[11].graph.node] == [*helpers, f"node_{op}"]
    floats = {"x": X, "z": X[:1]}
    assert ops(assert_every_opset(build([node(op, ["x", "z"], ["y"])], floats, ["y"]), floats)[11]) == {op: 1}
    alone = assert_every_opset(build([node(op, ["x"], ["y"])], {"x": I}, ["y"]), {"x": I})
    assert ops(alone[11]) == {"Identity": 1}


@settings(max_examples=12, deadline=None)
@given(st.integers(-5, 5) | st.none(), st.integers(-5, 5) | st.none(), st.sampled_from([np.int32, np.int64]))
def test_integer_clip(low, high, dtype):
    constants = {name: dtype(bound) for name, bound in (("low", low), ("high", high)) if bound is not None}
    inputs = ["x", "low" if low is not None else "", "high" if high is not None else ""]
    feeds = {"x": I.astype(dtype)}
    model = build([node("Clip", inputs, ["y"])], feeds, ["y"], constants)
    want = I if low is None else np.maximum(I, low)
    want = want if high is None else np.minimum(want, high)  # high wins where low > high
    for opset in (11, 12):
        np.testing.assert_array_equal(run(convert(model, opset), feeds)[0], want.astype(dtype))


def test_float_clip_is_left_alone():
    model = build([node("Clip", ["x", "low", ""], ["y"])], {"x": X}, ["y"], {"low": np.float32(0.25)})
    assert ops(assert_every_opset(model, {"x": X})[11]) == {"Clip": 1}


def test_integer_relu():
    made = assert_every_opset(build([node("Relu", ["x"], ["y"])], {"x": I}, ["y"]), {"x": I}, reference=True)
    assert [ops(made[opset]) for opset in (14, 13, 11)] == [{"Relu": 1}, {"Max": 1}, {"Greater": 1, "Where": 1}]
    assert ops(convert(build([node("Relu", ["x"], ["y"])], {"x": X}, ["y"]), 11)) == {"Relu": 1}


def test_pow():
    constant = build([node("Pow", ["x", "c"], ["y"])], {"x": X}, ["y"], {"c": np.int64(3)})
    assert ops(assert_every_opset(constant, {"x": X}, tolerance=1e-6)[11]) == {"Pow": 1}
    feeds = {"x": X, "z": np.abs(I)}
    computed = build([node("Pow", ["x", "z"], ["y"])], feeds, ["y"])
    assert ops(assert_every_opset(computed, feeds, tolerance=1e-3)[11]) == {"Cast": 1, "Pow": 1}
    square = build([node("Pow", ["x", "c"], ["y"])], {"x": I}, ["y"], {"c": np.int64(2)})
    assert ops(assert_every_opset(square, {"x": I})[11]) == {"Mul": 1}
    cube = build([node("Pow", ["x", "c"], ["y"])], {"x": I}, ["y"], {"c": np.int64(3)})
    with pytest.raises(ExportError, match="expected a float base or the constant exponent 2, got a base of INT64; choose opset 12"):
        convert(cube, 11)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float16])
def test_cum_sum(dtype):
    feeds = {"x": I.astype(dtype)}
    model = build([node("CumSum", ["x", "c"], ["y"], exclusive=1, reverse=1)], feeds, ["y"], {"c": np.int64(-1)})
    made = assert_every_opset(model, feeds, reference=True)
    assert ops(made[13]) == ({"Cast": 2, "CumSum": 1} if dtype == np.float16 else {"CumSum": 1})
    want = np.flip(np.cumsum(np.flip(I, -1), -1), -1) - I
    np.testing.assert_array_equal(run(made[11], feeds)[0], want.astype(dtype))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_softmax_along_any_axis(op, data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = rng.standard_normal(shape).astype(np.float32)
    one = node(op, ["x"], ["y"]) if axis == -1 else node(op, ["x"], ["y"], axis=axis)
    model = build([one], {"x": x}, ["y"])
    made = convert(model, 11)
    np.testing.assert_allclose(run(made, {"x": x})[0], run(model, {"x": x})[0], atol=1e-6)
    assert ops(made).get("Transpose", 0) == (0 if np.prod(shape[axis % len(shape) + 1 :]) == 1 else 2)


def test_softmax_at_every_opset():
    made = assert_every_opset(build([node("Softmax", ["x"], ["y"], axis=1)], {"x": X}, ["y"]), {"x": X}, tolerance=1e-6)
    assert ops(made[12]) == {"Softmax": 1, "Transpose": 2} and ops(made[13]) == {"Softmax": 1}
    assert [one.name for one in made[12].graph.node] == ["node_Softmax_transposed", "node_Softmax_last_axis", "node_Softmax"]
    last = convert(build([node("Softmax", ["x"], ["y"])], {"x": X}, ["y"]), 11)
    assert helper.get_attribute_value(last.graph.node[0].attribute[0]) == 2  # the default was 1 then


def test_dropout():
    inside = [node("Relu", ["x"], ["r"]), node("Dropout", ["r", "ratio"], ["d"]), node("Neg", ["d"], ["y"])]
    made = assert_every_opset(build(inside, {"x": X}, ["y"], {"ratio": np.float32(0.3)}), {"x": X})
    assert ops(made[11]) == {"Relu": 1, "Neg": 1} and ops(made[12]) == {"Relu": 1, "Dropout": 1, "Neg": 1}
    assert ops(convert(build([node("Dropout", ["x"], ["y"])], {"x": X}, ["y"]), 11)) == {"Identity": 1}
    masked = build([node("Dropout", ["x"], ["y", "mask"])], {"x": X}, ["y", "mask"])
    with pytest.raises(ExportError, match="expected only the first output in use, got a use of 'mask'"):
        convert(masked, 11)
    training = build([node("Dropout", ["x", "", "t"], ["y"])], {"x": X}, ["y"], {"t": np.bool_(True)})
    with pytest.raises(ExportError, match=r"expected inference, got training mode; export the model after model.eval\(\)"):
        convert(training, 11)


def test_small_neighbours():
    swish = assert_every_opset(build([node("HardSwish", ["x"], ["y"])], {"x": X * 4}, ["y"]), {"x": X * 4}, tolerance=1e-6)
    assert ops(swish[13]) == {"HardSigmoid": 1, "Mul": 1}
    feeds = {"x": X, "z": I}
    assert ops(assert_every_opset(build([node("CastLike", ["x", "z"], ["y"])], feeds, ["y"]), feeds)[14]) == {"Cast": 1}
    part = assert_every_opset(build([node("Shape", ["x"], ["y"], start=1, end=-1)], {"x": X}, ["y"]), {"x": X})
    assert ops(part[14]) == {"Shape": 1, "Slice": 1} and run(part[11], {"x": X})[0].tolist() == [3]
    assert ops(convert(build([node("Shape", ["x"], ["y"], start=0)], {"x": X}, ["y"]), 11)) == {"Shape": 1}


def test_grid_sample_calls_its_modes_by_their_time():
    feeds = {"x": rng.standard_normal((1, 2, 5, 6)).astype(np.float32), "z": rng.uniform(-1.2, 1.2, (1, 3, 4, 2)).astype(np.float32)}
    for old, new in (("bilinear", b"linear"), ("bicubic", b"cubic"), (None, b"linear"), ("nearest", b"nearest")):
        spelled = {} if old is None else {"mode": old}
        model = build([node("GridSample", ["x", "z"], ["y"], align_corners=0, padding_mode="zeros", **spelled)], feeds, ["y"])
        made = assert_every_opset(model, feeds, first=16, tolerance=1e-5)
        modes = {attribute.name: attribute.s for attribute in made[22].graph.node[0].attribute}
        assert modes["mode"] == new
        assert_every_opset(made[22], feeds, first=16, tolerance=1e-5)
        with pytest.raises(ExportError, match=r"'node_GridSample' \(GridSample\).*opset 15.*appeared at opset 16"):
            convert(model, 15)


def test_volumes_cannot_be_sampled_below_20():
    feeds = {"x": np.zeros((1, 1, 2, 2, 2), np.float32), "z": np.zeros((1, 1, 1, 1, 3), np.float32)}
    model = build([node("GridSample", ["x", "z"], ["y"])], feeds, ["y"], opset=20)
    with pytest.raises(ExportError, match=r"expected images \(4-D\), got 5-D; choose opset 20 or later"):
        convert(model, 18)
