"""Tiny models of what surrounds the operators: inputs and outputs, and how the file itself is written."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from .small import Small, node, random, standard

CAMERAS = 2
CLASSES = 17


def plain(opset: int) -> Small:
    """Add and Relu, which every opset has: only the file's own numbers can be refused."""
    nodes = [node("Add", ["x", "shift"], "moved"), node("Relu", ["moved"], "y")]
    return standard(nodes, {"x": random(2, 4, 5, 7)}, {"y": "float32"}, {"shift": random(4, 1, 1)}, opset)


def without_value_info(opset: int) -> Small:
    """The same without types of what lies between inputs and outputs."""
    small = plain(opset)
    del small.model.graph.value_info[:]
    return small


def with_constant_node(opset: int) -> Small:
    """The same with a Constant node in the place of the initializer."""
    small = plain(opset)
    graph = small.model.graph
    (shift,) = graph.initializer
    graph.value_info.add().CopyFrom(onnx.helper.make_tensor_value_info(shift.name, shift.data_type, list(shift.dims)))
    graph.node.insert(0, node("Constant", [], shift.name, {"value": numpy_helper.from_array(numpy_helper.to_array(shift), shift.name)}))
    del graph.initializer[:]
    return small


def with_large_weight(opset: int) -> Small:
    """A convolution whose weight is large enough for a file of its own."""
    weight = {"weight": random(16, 16, 3, 3, scale=0.1)}
    nodes = [node("Conv", ["x", "weight"], "y", {"pads": [1] * 4, "kernel_shape": [3, 3]})]
    return standard(nodes, {"x": random(1, 16, 5, 7)}, {"y": "float32"}, weight, opset)


def images(rank: int, opset: int) -> Small:
    """Images of rank 5 (1, N, 3, H, W), whose batch axis a Reshape takes off, or of rank 4 (N, 3, H, W); then a convolution."""
    img = random(1, CAMERAS, 3, 8, 12)
    img = img if rank == 5 else img[0]
    nodes = [node("Reshape", ["img", "shape"], "images"), node("Conv", ["images", "weight"], "y", {"kernel_shape": [3, 3]})]
    constants = {"shape": np.array([CAMERAS, 3, 8, 12], np.int64), "weight": random(4, 3, 3, 3, scale=0.3)}
    if rank == 4:
        nodes = [node("Conv", ["img", "weight"], "y", {"kernel_shape": [3, 3]})]
        del constants["shape"]
    return standard(nodes, {"img": img}, {"y": "float32"}, constants, opset)


def matrices(rank: int, opset: int) -> Small:
    """Calibration matrices of rank 4 (1, N, 4, 4), or of rank 3 (N, 4, 4) to which a Reshape gives the batch axis; then a division."""
    lidar2img = random(1, CAMERAS, 4, 4, scale=100)
    sizes: dict[str, np.ndarray] = {"sizes": np.array([[16], [8], [1], [1]], np.float32)}
    if rank == 4:
        return standard([node("Div", ["lidar2img", "sizes"], "y")], {"lidar2img": lidar2img}, {"y": "float32"}, sizes, opset)
    nodes = [node("Reshape", ["lidar2img", "shape"], "batched"), node("Div", ["batched", "sizes"], "y")]
    constants: dict[str, np.ndarray] = {"shape": np.array([1, CAMERAS, 4, 4], np.int64), **sizes}
    return standard(nodes, {"lidar2img": lidar2img[0]}, {"y": "float32"}, constants, opset)


def labels(kind: str, opset: int) -> Small:
    """Class scores (1, 17, Z, Y, X) → labels (1, X, Y, Z): "int64", "int32" behind a Cast, or int64 behind the "softmax" of upstream."""
    # one class leads clearly in each voxel: half precision must not change a label
    scores = np.random.default_rng(5).permuted(np.arange(CLASSES, dtype=np.float32)[:, None].repeat(24, 1), axis=0)
    scores = (scores / 4).reshape(1, CLASSES, 2, 3, 4)
    nodes = [node("Softmax", ["logits"], "shares", {"axis": 1})] if kind == "softmax" else []
    nodes.append(node("ArgMax", ["shares" if nodes else "logits"], "best", {"axis": 1, "keepdims": 0}))
    if kind == "int32":
        nodes.append(node("Cast", ["best"], "narrow", {"to": onnx.TensorProto.INT32}))
    # volumes are in the order z, y, x inside the network, labels in x, y, z
    nodes.append(node("Transpose", ["narrow" if kind == "int32" else "best"], "labels", {"perm": [0, 3, 2, 1]}))
    return standard(nodes, {"logits": scores}, {"labels": "int32" if kind == "int32" else "int64"}, {}, opset)


def gather(index: str, opset: int) -> Small:
    """Rows of a table by an index (2, 7): a "constant" in the file, an "input" of the graph, or one in "int32"."""
    rows = np.random.default_rng(6).integers(0, 10, (2, 7)).astype(np.int32 if index == "int32" else np.int64)
    nodes = [node("Gather", ["table", "rows"], "y", {"axis": 0})]
    table = {"table": random(10, 4)}
    if index == "constant":
        return standard(nodes, table, {"y": "float32"}, {"rows": rows}, opset)
    return standard(nodes, {**table, "rows": rows}, {"y": "float32"}, {}, opset)
