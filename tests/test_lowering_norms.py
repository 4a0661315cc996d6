"""LayerNormalization below 17; GroupNormalization in both directions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.helper import make_node as node

from lowering_model import assert_every_opset, build, convert, ops, run
from occport.errors import ExportError
from occport.graph.lowering.group_norm import fuse_group_norm, lower_group_norm
from occport.graph.lowering.old_exporter import TORCH_1_10_OPSET_11_OPS, ops_unknown_to_old_exporter, reciprocal_as_division

rng = np.random.default_rng(7)
X = (rng.standard_normal((2, 8, 3, 4)) * 3 + 5).astype(np.float32)
VECTORS = {"w": rng.random(8).astype(np.float32) + 0.5, "b": rng.standard_normal(8).astype(np.float32)}


def layer_norm(x, axis, eps):
    axes = tuple(range(axis, x.ndim))
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + eps)


def group_norm(x, groups, weight, bias, eps):
    normal = layer_norm(x.reshape(len(x), groups, -1), 2, eps).reshape(x.shape)
    per_channel = (1, -1, *(1,) * (x.ndim - 2))
    return normal * weight.reshape(per_channel) + bias.reshape(per_channel)


@pytest.mark.parametrize("axis", [-1, 1, 3])
@pytest.mark.parametrize("with_bias", [True, False])
def test_layer_norm(axis, with_bias):
    shape = X.shape[axis:] if axis >= 0 else X.shape[-1:]
    constants = {"w": rng.random(shape).astype(np.float32), "b": rng.standard_normal(shape).astype(np.float32)}
    inputs = ["x", "w", "b"] if with_bias else ["x", "w"]
    one = node("LayerNormalization", inputs, ["y"], axis=axis, epsilon=1e-2, stash_type=1)
    model = build([one], {"x": X}, ["y"], {name: constants[name] for name in inputs[1:]})
    made = assert_every_opset(model, {"x": X}, tolerance=2e-6)
    want = layer_norm(X, axis % 4, 1e-2) * constants["w"] + (constants["b"] if with_bias else 0)
    np.testing.assert_allclose(run(made[11], {"x": X})[0], want, atol=2e-6)
    counts = {"ReduceMean": 2, "Sub": 1, "Mul": 2, "Add": 2, "Sqrt": 1, "Div": 1}
    assert ops(made[16]) == (counts if with_bias else {**counts, "Add": 1})
    assert made[16].graph.node[-1].name == "node_LayerNormalization" and made[16].graph.node[0].name == "node_LayerNormalization_mean"
    assert set(ops(made[11])) <= TORCH_1_10_OPSET_11_OPS


def test_layer_norm_of_half_precision_is_computed_in_single():
    x = (X * 100).astype(np.float16)  # squares are beyond float16
    constants = {"w": np.ones(4, np.float16), "b": np.zeros(4, np.float16)}
    model = build([node("LayerNormalization", ["x", "w", "b"], ["y"])], {"x": x}, ["y"], constants)
    made = assert_every_opset(model, {"x": x}, tolerance=2e-3)
    assert ops(made[16])["Cast"] == 2
    np.testing.assert_allclose(run(made[16], {"x": x})[0], layer_norm(x, 3, 1e-5), atol=2e-3)


def test_layer_norm_whose_mean_is_used_is_refused():
    model = build([node("LayerNormalization", ["x", "w"], ["y", "m"])], {"x": X}, ["y", "m"], {"w": np.ones(4, np.float32)})
    with pytest.raises(ExportError, match=r"expected only the first output in use, got a use of 'm'; choose opset 17 or later"):
        convert(model, 16)


def emulated(shape, groups, *, weight_shape=None, flipped=False, scale=1.0, dtype=np.float32, second_reader=False):
    """The exporter's five nodes for a group normalisation of `shape`, relu behind."""
    channels = shape[1]
    per_channel = weight_shape or (channels, *(1,) * (len(shape) - 2))
    constants = {
        "groups": np.int64([0, groups, -1]), "shape": np.int64(shape),
        "ones": np.full(groups, scale, dtype), "zeros": np.zeros(groups, dtype),
        "w": VECTORS["w"][:channels].reshape(per_channel).astype(dtype), "b": VECTORS["b"][:channels].reshape(per_channel).astype(dtype),
    }
    nodes = [
        node("Reshape", ["x", "groups"], ["r"]), node("InstanceNormalization", ["r", "ones", "zeros"], ["n"], epsilon=1e-4),
        node("Reshape", ["n", "shape"], ["s"]), node("Mul", ["w", "s"] if flipped else ["s", "w"], ["m"]),
        node("Add", ["b", "m"] if flipped else ["m", "b"], ["a"]), node("Relu", ["a"], ["y"]),
    ]
    outputs = ["y"]
    if second_reader:
        nodes.append(node("Neg", ["s"], ["t"]))
        outputs.append("t")
    return build(nodes, {"x": np.zeros(shape, dtype)}, outputs, constants)


@pytest.mark.parametrize(("shape", "flipped"), [((2, 8, 3, 4), False), ((1, 8, 2, 3, 2), True), ((2, 8, 5), False)])
def test_emulated_group_norm_is_one_node_from_21(shape, flipped):
    x = (rng.standard_normal(shape) * 2 + 1).astype(np.float32)
    model = emulated(shape, 4, flipped=flipped)
    made = assert_every_opset(model, {"x": x}, tolerance=5e-6)
    assert ops(made[20]) == {"Reshape": 2, "InstanceNormalization": 1, "Mul": 1, "Add": 1, "Relu": 1}
    assert ops(made[21]) == ops(made[22]) == {"GroupNormalization": 1, "Relu": 1}
    fused = made[21].graph.node[0]
    assert fused.name == "node_Add" and list(fused.output) == ["a"]
    assert sorted(tensor.name for tensor in made[21].graph.initializer) == ["node_Add_bias", "node_Add_weight"]
    want = np.maximum(group_norm(x, 4, VECTORS["w"], VECTORS["b"], 1e-4), 0)
    np.testing.assert_allclose(run(made[21], {"x": x})[0], want, atol=5e-6)
    # and back again
    back = convert(made[21], 11)
    assert ops(back) == ops(made[20])
    np.testing.assert_allclose(run(back, {"x": x})[0], want, atol=5e-6)


def test_batch_norm_as_the_tail_is_fused_too():
    constants = {
        "groups": np.int64([0, 4, -1]), "ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32), "shape": np.int64(X.shape),
        **VECTORS, "mean": np.zeros(8, np.float32), "variance": np.ones(8, np.float32),
    }

    def model(epsilon):
        return build([
            node("Reshape", ["x", "groups"], ["r"]), node("InstanceNormalization", ["r", "ones", "zeros"], ["n"], epsilon=1e-4),
            node("Reshape", ["n", "shape"], ["s"]), node("BatchNormalization", ["s", "w", "b", "mean", "variance"], ["y"], epsilon=epsilon),
        ], {"x": X}, ["y"], constants)  # fmt: skip

    made = assert_every_opset(model(0.0), {"x": X}, tolerance=5e-6)
    assert ops(made[21]) == {"GroupNormalization": 1}
    assert ops(convert(model(1e-5), 21)) == {"Reshape": 2, "InstanceNormalization": 1, "BatchNormalization": 1}


@pytest.mark.parametrize(
    "model",
    [
        emulated((2, 8, 3, 4), 4, scale=2.0),
        emulated((2, 8, 3, 8), 4, weight_shape=(8,)),  # along the last axis, not the channels
        emulated((2, 8, 3, 4), 4, second_reader=True),
        emulated((2, 8, 3, 4), 4, dtype=np.float64),
    ],
    ids=["scale", "weight-shape", "second-reader", "double"],
)
def test_what_is_no_group_norm_is_left_alone(model):
    inside = ir.from_proto(model)
    assert fuse_group_norm(inside) == 0
    assert "InstanceNormalization" in ops(convert(model, 21))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("computed", [False, True])
def test_group_norm_of_21_below(dtype, computed):
    x, vectors = X.astype(dtype), {name: vector.astype(dtype) for name, vector in VECTORS.items()}
    one = node("GroupNormalization", ["x", "w", "b"], ["y"], num_groups=2, epsilon=1e-3)
    feeds = {"x": x, **vectors} if computed else {"x": x}
    model = build([one], feeds, ["y"], {} if computed else vectors, declared={"y": x}, opset=21)
    want = group_norm(x, 2, vectors["w"], vectors["b"], 1e-3)
    tolerance = 5e-6 if dtype == np.float32 else 2e-2
    for opset in (11, 13, 17, 18, 20):
        made = convert(model, opset)
        got = run(made, feeds)[0]
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, atol=tolerance)
        assert ops(made).get("Cast", 0) == (2 if dtype == np.float16 else 0)
        assert ops(made)["Reshape"] == (4 if computed else 2)
    assert ops(convert(model, 21)) == ops(convert(model, 22)) == {"GroupNormalization": 1}


def test_group_norm_of_18_has_scales_for_each_group():
    pair = {"w": np.float32([2, 3]), "b": np.float32([-1, 1])}
    graph = helper.make_graph(
        [node("GroupNormalization", ["x", *pair], ["y"], num_groups=2)], "small", [helper.make_tensor_value_info("x", 1, X.shape)],
        [helper.make_tensor_value_info("y", 1, X.shape)], [helper.make_tensor(name, 1, [2], array) for name, array in pair.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    want = group_norm(X, 2, np.repeat(pair["w"], 4), np.repeat(pair["b"], 4), 1e-5)
    for opset in (11, 18, 21, 22):
        made = convert(model, opset)
        assert ops(made) == {"Reshape": 2, "InstanceNormalization": 1}
        np.testing.assert_allclose(run(made, {"x": X})[0], want, atol=5e-6)


def test_group_norm_that_does_not_fit():
    graph = helper.make_graph(
        [node("GroupNormalization", ["x", "w", "w"], ["y"], num_groups=3)], "small", [helper.make_tensor_value_info("x", 1, X.shape)],
        [helper.make_tensor_value_info("y", 1, X.shape)], [helper.make_tensor("w", 1, [8], VECTORS["w"])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    with pytest.raises(ExportError, match="expected 3 equal groups in 8 channels, and as many scales as groups or channels"):
        lower_group_norm(model)


def test_operators_of_the_old_exporter():
    nodes = [node("Reciprocal", ["x"], ["r"]), node("LayerNormalization", ["r", "w"], ["l"]), node("LessOrEqual", ["l", "r"], ["y"])]
    inside = ir.from_proto(build(nodes, {"x": X}, ["y"], {"w": np.ones(4, np.float32)}))
    assert ops_unknown_to_old_exporter(inside) == {"LayerNormalization": 1, "LessOrEqual": 1, "Reciprocal": 1}
    assert {"GridSample", "Einsum", "Sum", "Scatter", "Upsample"}.isdisjoint(TORCH_1_10_OPSET_11_OPS)


def test_reciprocal_as_division():
    model = build([node("Reciprocal", ["x"], ["y"])], {"x": X}, ["y"])
    inside = ir.from_proto(model)
    assert reciprocal_as_division(inside) == 1
    made = convert(ir.to_proto(inside), 11)
    assert ops(made) == {"Div": 1} and ops_unknown_to_old_exporter(ir.from_proto(made)) == {}
    np.testing.assert_array_equal(run(made, {"x": X})[0], run(model, {"x": X})[0])
