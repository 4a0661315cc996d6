"""Files as other tools write them, made by hand: no types behind custom nodes, their own ranks and dtypes; and NumPy loops that say what
the two operators compute, one sample at a time.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from small_graphs import random


class File(NamedTuple):
    """A model, inputs for it, and the output that the loops below give for them."""

    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]
    want: np.ndarray


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """image (H, W, C) at a place in pixels; what is outside counts as zero."""
    total = np.zeros(image.shape[2])
    top, left = int(np.floor(y)), int(np.floor(x))
    for row, column in product((top, top + 1), (left, left + 1)):
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            total += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def attend(value: np.ndarray, shapes: list[tuple[int, int]], locations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """value (A,S,M,D), locations (A,Q,M,L,P,2), weights (A,Q,M,L,P) → (A,Q,M*D)."""
    A, Q, M, L, P = weights.shape
    out = np.zeros((A, Q, M, value.shape[3]))
    for a, q, m, level, p in product(range(A), range(Q), range(M), range(L), range(P)):
        start = sum(h * w for h, w in shapes[:level])
        h, w = shapes[level]
        image = value[a, start : start + h * w, m].reshape(h, w, -1)
        u, v = locations[a, q, m, level, p]
        out[a, q, m] += weights[a, q, m, level, p] * bilinear(image, v * h - 0.5, u * w - 0.5)
    return out.reshape(A, Q, -1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """(A,Q,M,L,P), over L and P together."""
    powers = np.exp(logits - logits.max((3, 4), keepdims=True))
    return powers / powers.sum((3, 4), keepdims=True)


def deform(
    image: np.ndarray, offset: np.ndarray, mask: np.ndarray, weight: np.ndarray, bias: np.ndarray | None,
    stride: tuple[int, int], padding: tuple[int, int], groups: int = 1, deform_groups: int = 1,
) -> np.ndarray:
    """image (A,C,H,W), offset (A,G*2*T,Ho,Wo) as (dy, dx), mask (A,G*T,Ho,Wo), weight (O,C/groups,kh,kw) → (A,O,Ho,Wo)."""
    A, C, _, _ = image.shape
    filters, _, kh, kw = weight.shape
    rows, columns = offset.shape[2:]
    taps = kh * kw
    out = np.zeros((A, filters, rows, columns))
    for a, y, x in product(range(A), range(rows), range(columns)):
        column = np.zeros((C, taps))
        for g, i, j in product(range(deform_groups), range(kh), range(kw)):
            tap = i * kw + j
            dy, dx = offset[a, 2 * (g * taps + tap) : 2 * (g * taps + tap) + 2, y, x]
            some = slice(g * C // deform_groups, (g + 1) * C // deform_groups)
            place = (y * stride[0] - padding[0] + i + dy, x * stride[1] - padding[1] + j + dx)
            column[some, tap] = bilinear(image[a, some].transpose(1, 2, 0), *place) * mask[a, g * taps + tap, y, x]
        for o in range(filters):
            g = o * groups // filters
            out[a, o, y, x] = (column[g * C // groups : (g + 1) * C // groups] * weight[o].reshape(-1, taps)).sum()
    return out if bias is None else out + bias[:, None, None]


def file(
    nodes: list[onnx.NodeProto], feeds: dict[str, np.ndarray], constants: dict[str, np.ndarray], opset: int, domains: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """A model without any type but those of its inputs; its output is "out"."""
    graph = helper.make_graph(
        nodes, "torch-jit-export",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in feeds.items()],
        [helper.make_empty_tensor_value_info("out")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=7, producer_name="pytorch", producer_version="1.10")


def constant_node(name: str, array: np.ndarray) -> onnx.NodeProto:
    """As the legacy tracer writes constants."""
    return helper.make_node("Constant", [], [name], name=f"Constant_{name}", value=numpy_helper.from_array(array))


A, Q, M, D, P = 2, 3, 2, 3, 4


def mmdeploy() -> File:
    """Two convolutions, the second with uneven strides, then an attention whose locations are made in seven axes.

    The file imports no custom domain, its nodes have no names, and the sizes are int64 although the plugin wants int32.
    """
    feeds = {
        "x": random(A, 2, 5, 6), "offset": random(A, 18, 5, 6, scale=1.5), "mask": np.abs(random(A, 9, 5, 6)),
        "offset2": random(A, 18, 3, 6, scale=1.5), "mask2": np.abs(random(A, 9, 3, 6)),
        "reference": random(A, Q, 1, 2, scale=0.3) + np.float32(0.5), "shifts": random(A, Q, M, 1, P, 1, 2, scale=2),
        "scores": random(A, Q, M, P),
    }  # fmt: skip
    weights = {"w": random(4, 2, 3, 3), "b": random(4), "w2": random(M * D, 2, 3, 3, seed=1)}
    constants = weights | {
        "sizes": np.float32([6, 3]), "reference_axes": np.array([A, Q, 1, 1, 1, 1, 2]), "location_axes": np.array([A, Q, M, 1, P, 2]),
        "weight_axes": np.array([A, Q, M, 1, P]), "value_axes": np.array([A, 18, M, D]),
    }  # fmt: skip
    window = {"padding": [1, 1], "dilation": [1, 1], "deform_groups": 1}
    nodes = [
        _mmcv("ModulatedDeformConv2d", ["x", "offset", "mask", "w", "b"], "y", stride=[1, 1], groups=1, **window),
        helper.make_node("Relu", ["y"], ["z"]),
        _mmcv("ModulatedDeformConv2d", ["z", "offset2", "mask2", "w2"], "y2", stride=[2, 1], groups=2, **window),
        helper.make_node("Transpose", ["y2"], ["tokens"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["tokens", "value_axes"], ["value"]),
        constant_node("shapes", np.array([[3, 6]])), constant_node("starts", np.array([0])),
        helper.make_node("Reshape", ["reference", "reference_axes"], ["reference7"]),
        helper.make_node("Div", ["shifts", "sizes"], ["normal"]),
        helper.make_node("Add", ["reference7", "normal"], ["locations7"]),
        helper.make_node("Reshape", ["locations7", "location_axes"], ["locations"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=3),
        helper.make_node("Reshape", ["shares", "weight_axes"], ["weights"]),
        _mmcv("MultiScaleDeformableAttention", ["value", "shapes", "starts", "locations", "weights"], "out", im2col_step=32),
    ]
    first = deform(feeds["x"], feeds["offset"], feeds["mask"], weights["w"], weights["b"], (1, 1), (1, 1))
    second = deform(np.maximum(first, 0), feeds["offset2"], feeds["mask2"], weights["w2"], None, (2, 1), (1, 1), groups=2)
    value = second.transpose(0, 2, 3, 1).reshape(A, 18, M, D)
    locations = feeds["reference"][:, :, None, None] + (feeds["shifts"] / np.float32([6, 3])).reshape(A, Q, M, 1, P, 2)
    want = attend(value, [(3, 6)], locations, softmax(feeds["scores"].reshape(A, Q, M, 1, P)))
    return File(file(nodes, feeds, constants, 11), feeds, want)


def _mmcv(name: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(f"MMCV{name}", inputs, [output], domain="mmdeploy", **attributes)


def bevformer(references: int = 2, levels: tuple[tuple[int, int], ...] = ((3, 4),)) -> File:
    """BEVFormer_tensorrt's attention: points take the reference points in turn; softmax and locations inside; heads apart."""
    L, rows = len(levels), sum(h * w for h, w in levels)
    feeds = {
        "value": random(A, rows, M, D), "reference": random(A, Q, 1, 2 * references, scale=0.3) + np.float32(0.5),
        "offsets": random(A, Q, M, L * P * 2, scale=2), "scores": random(A, Q, M, L * P),
    }  # fmt: skip
    constants = {"shapes": np.array(levels), "axes": np.array([A, Q, M * D])}
    nodes = [
        helper.make_node("MultiScaleDeformableAttnTRT", ["value", "shapes", "reference", "offsets", "scores"], ["heads"], name="attn"),
        helper.make_node("Reshape", ["heads", "axes"], ["out"], name="flat"),
    ]
    which = np.arange(P) % references
    reference = feeds["reference"].reshape(A, Q, 1, 1, references, 2)[:, :, :, :, which]
    sizes = np.float32([[w, h] for h, w in levels])[:, None]
    locations = reference + feeds["offsets"].reshape(A, Q, M, L, P, 2) / sizes
    want = attend(feeds["value"], list(levels), locations, softmax(feeds["scores"].reshape(A, Q, M, L, P)))
    return File(file(nodes, feeds, constants, 13), feeds, want)


def dl(*, scalars: tuple[object, object, object] = (A, Q, M * D), dtype: str = "int64", rank: int = 0) -> File:
    """The bring-up document's attention: three scalars as inputs; locations and weights that come from elsewhere."""
    scores = random(A, Q, M, 1, P)
    feeds = {
        "value": random(A, 12, M, D), "locations": random(A, Q, M, 1, P, 2, scale=0.5) + np.float32(0.5),
        "weights": softmax(scores).astype(np.float32),
    }  # fmt: skip
    numbers = {name: np.full((1,) * rank, number, dtype) for name, number in zip(("bs", "nq", "ne"), scalars, strict=True)}
    inputs = ["value", "shapes", "starts", "locations", "weights", *numbers]
    nodes = [
        constant_node("shapes", np.array([[3, 4]])), constant_node("starts", np.array([0])),
        *(constant_node(name, array) for name, array in numbers.items()),
        helper.make_node("MultiScaleDeformableAttnFunction", inputs, ["out"], name="attn", domain="DL", im2col_step=64),
    ]
    want = attend(feeds["value"], [(3, 4)], feeds["locations"], feeds["weights"])
    return File(file(nodes, feeds, {}, 11, ("DL",)), feeds, want)
