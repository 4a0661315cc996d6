"""Small graphs for the tests of `graph/`: built at opset 18 as the trace writes them, run in ONNX Runtime with or without bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from lowering_model import run as run_proto
from occport.graph import canonical
from occport.graph.dialect import Dialect
from occport.graph.functions import functions_for

Arrays = Mapping[str, np.ndarray]
MIN_IR_FOR_FUNCTIONS = 8

# the small network of `network()`
A, C, H, W = 2, 4, 5, 7  # images, channels, rows, columns
M, D, P, K, V = 3, 2, 2, 5, 9  # heads, head width, points, slots, voxels; all numbers that scalars hold differ
NETWORK_INPUTS = {"img": (1, A, C, H, W), "slots": (A, K), "ref_uv": (A, K, 1, 2)}


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Normal numbers, float32, the same for the same shape and seed."""
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(np.float32)


def graph(
    nodes: Sequence[onnx.NodeProto], feeds: Arrays, outputs: Sequence[str], constants: Arrays | None = None, *,
    known: Mapping[str, Sequence[int]] | None = None, opset: int = 18,
) -> ir.Model:
    """A model with static, typed values. Nodes without a name are called `<operator>_<first output>`.

    Args:
        known: float32 shapes of what custom nodes put out, which ONNX's shape inference cannot know.
    """
    for node in nodes:
        node.name = node.name or f"{node.op_type}_{node.output[0]}"
    declared = {name: helper.make_tensor_value_info(name, 1, list(shape)) for name, shape in (known or {}).items()}
    domains = sorted({node.domain for node in nodes if node.domain})
    proto = helper.make_model(
        helper.make_graph(
            list(nodes), "small",
            [_typed(name, array) for name, array in feeds.items()],
            [declared.get(name) or helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
            value_info=[info for name, info in declared.items() if name not in outputs],
        ),
        opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)], ir_version=8,
    )  # fmt: skip
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True))


def _typed(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def with_bodies(model: ir.Model, dialect: Dialect) -> onnx.ModelProto:
    """A copy that stock ONNX Runtime can run: bodies for the nodes of the dialect (of the canonical form, for `standard`)."""
    proto = ir.to_proto(model)
    if proto.functions:
        return proto
    for function in functions_for(ir.from_proto(proto), dialect, model.opset_imports[""]):
        proto.functions.append(ir.to_proto(function))
    proto.ir_version = max(proto.ir_version, MIN_IR_FOR_FUNCTIONS)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def run(model: ir.Model | onnx.ModelProto, feeds: Arrays) -> list[np.ndarray]:
    """Outputs by ONNX Runtime, without its graph optimisations."""
    return run_proto(ir.to_proto(model) if isinstance(model, ir.Model) else model, feeds)


def node(op: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> onnx.NodeProto:
    """A node of the default domain."""
    return helper.make_node(op, list(inputs), [output] if isinstance(output, str) else list(output), **attributes)


def operators(model: ir.Model) -> list[str]:
    """Operators in graph order, without Constant."""
    return [each.op_type for each in model.graph if each.op_type != "Constant"]


def by_name(model: ir.Model) -> dict[str, ir.Node]:
    """Name → node of the main graph."""
    return {str(each.name): each for each in model.graph}


def constant_of(value: ir.Value | None) -> np.ndarray:
    """The array of a constant value."""
    assert value is not None
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None, value
    return tensor.numpy()


def deform_conv(
    inputs: Sequence[str] = ("x", "offset", "mask", "weight"), output: str = "y", *, name: str = "conv", stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (1, 1), dilation: Sequence[int] = (1, 1), groups: int = 1, deform_groups: int = 1,
) -> onnx.NodeProto:
    """A canonical deformable convolution."""
    return helper.make_node(
        canonical.DCN, list(inputs), [output], name=name, domain=canonical.DOMAIN, stride=list(stride), padding=list(padding),
        dilation=list(dilation), groups=groups, deform_groups=deform_groups,
    )  # fmt: skip


def attention(inputs: Sequence[str], output: str, *, name: str = "attention") -> onnx.NodeProto:
    """A canonical attention node."""
    return helper.make_node(canonical.MSDA, list(inputs), [output], name=name, domain=canonical.DOMAIN)


def attention_graph(
    levels: Sequence[tuple[int, int]], *, images: int = 2, heads: int = 3, width: int = 4, queries: int = 5, points: int = 2
) -> ir.Model:
    """One canonical attention node; all but the level sizes are inputs."""
    feeds = attention_feeds(levels, images=images, heads=heads, width=width, queries=queries, points=points)
    sizes = np.array(levels, np.int64)
    constants = {"shapes": sizes, "starts": np.concatenate([[0], sizes.prod(1).cumsum()[:-1]]).astype(np.int64)}
    inputs = ["value", "shapes", "starts", "reference", "offsets", "logits"]
    return graph([attention(inputs, "out")], feeds, ["out"], constants, known={"out": (images, queries, heads * width)})


def attention_feeds(
    levels: Sequence[tuple[int, int]], *, images: int = 2, heads: int = 3, width: int = 4, queries: int = 5, points: int = 2
) -> dict[str, np.ndarray]:
    """Inputs of `attention_graph`: reference points inside, on and outside of the border, offsets of many pixels."""
    rows, L = sum(h * w for h, w in levels), len(levels)
    return {
        "value": random(images, rows, heads, width),
        "reference": random(images, queries, L, 2, scale=0.6) + np.float32(0.5),
        "offsets": random(images, queries, heads, L, points, 2, scale=3),
        "logits": random(images, queries, heads, L, points, scale=2),
    }


def network() -> tuple[ir.Model, dict[str, np.ndarray]]:
    """A canonical graph with everything the passes know, and inputs: DCN and BatchNormalization, attention, GroupNorm.

    Inputs img (1,A,C,H,W), slots (A,K) int64, ref_uv (A,K,1,2); output volume (A,8,K). Two attention nodes with linear layers of their own.
    """
    feeds = {"img": random(*NETWORK_INPUTS["img"]), "ref_uv": random(*NETWORK_INPUTS["ref_uv"], scale=0.5) + np.float32(0.5)}
    feeds["slots"] = np.random.default_rng(4).integers(0, V, NETWORK_INPUTS["slots"])
    feeds = {name: feeds[name] for name in NETWORK_INPUTS}
    width, taps = M * D, 9
    constants = {
        "images": np.array([A, C, H, W], np.int64),
        "offset_weight": random(27, C, 3, 3, scale=0.3), "offset_bias": random(27, scale=0.5),
        "parts": np.array([2 * taps, taps], np.int64), "conv_weight": random(width, C, 3, 3, scale=0.3),
        "gamma": np.abs(random(width)) + np.float32(0.5), "beta": random(width), "mean": random(width),
        "variance": np.abs(random(width, seed=1)) + np.float32(0.5),
        "value_shape": np.array([A, H * W, M, D], np.int64), "shapes": np.array([[H, W]], np.int64), "starts": np.array([0], np.int64),
        "table": random(V, width), "columns": np.array([2 * M * P, M * P], np.int64),
        "offsets_shape": np.array([A, K, M, 1, P, 2], np.int64), "logits_shape": np.array([A, K, M, 1, P], np.int64),
        "groups_shape": np.array([A, 2, -1], np.int64), "volume_shape": np.array([A, width, K], np.int64),
        "ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32),
        "scale": random(width, 1, seed=2), "shift": random(width, 1, seed=3),
    }  # fmt: skip
    nodes = [
        node("Reshape", ["img", "images"], "x"),
        node("Conv", ["x", "offset_weight", "offset_bias"], "both", pads=[1, 1, 1, 1]),
        node("Split", ["both", "parts"], ["offset", "scores"], axis=1),
        node("Sigmoid", ["scores"], "mask"),
        deform_conv(["x", "offset", "mask", "conv_weight"], "conv_out"),
        node("BatchNormalization", ["conv_out", "gamma", "beta", "mean", "variance"], "feature", epsilon=1e-3),
        node("Transpose", ["feature"], "tokens", perm=[0, 2, 3, 1]),
        node("Reshape", ["tokens", "value_shape"], "value"),
    ]
    for layer in ("a", "b"):
        constants |= {f"{layer}_weight": random(3 * M * P, width, seed=ord(layer)), f"{layer}_bias": random(3 * M * P, seed=ord(layer))}
        nodes += [
            node("Gemm", ["table", f"{layer}_weight", f"{layer}_bias"], f"{layer}_rows", transB=1),
            node("Gather", [f"{layer}_rows", "slots"], f"{layer}_wanted"),
            node("Split", [f"{layer}_wanted", "columns"], [f"{layer}_offsets", f"{layer}_scores"], axis=2),
            node("Reshape", [f"{layer}_offsets", "offsets_shape"], f"{layer}_offset"),
            node("Reshape", [f"{layer}_scores", "logits_shape"], f"{layer}_logits"),
            attention(["value", "shapes", "starts", "ref_uv", f"{layer}_offset", f"{layer}_logits"], f"{layer}_out", name=f"{layer}_msda"),
        ]
    nodes += [
        node("Add", ["a_out", "b_out"], "sum"),
        node("Transpose", ["sum"], "channels", perm=[0, 2, 1]),
        node("Reshape", ["channels", "groups_shape"], "grouped"),
        node("InstanceNormalization", ["grouped", "ones", "zeros"], "normal", epsilon=1e-5),
        node("Reshape", ["normal", "volume_shape"], "back"),
        node("Mul", ["back", "scale"], "scaled"),
        node("Add", ["scaled", "shift"], "volume"),
    ]
    known = {"conv_out": (A, width, H, W), "a_out": (A, K, width), "b_out": (A, K, width)}
    return graph(nodes, feeds, ["volume"], constants, known=known), feeds
