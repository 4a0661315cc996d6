"""What the network needs of ONNX itself: each operator that an export holds, in each form that it has at some opset.

Read off the census of exports at every opset. A form that changes at an opset is another question: `split` at 11 has its sizes as
an attribute, from 13 on as an input, and a compiler may know one and not the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx

from .small import Arrays, Small, node, random, standard

Row = tuple[list[onnx.NodeProto], Arrays, dict[str, str], Arrays]  # nodes at opset 18, inputs, outputs with dtypes, constants
LAST = 22


class Family(NamedTuple):
    """An operator, or a few that are one thing.

    Attributes:
        key: the question.
        asks: what it asks.
        needed: "always", "runtime" (calibration in the graph), "locations" (attention with sampling locations as an input).
        starts: the opsets from which on it has another form.
        make: the tiny graph.
    """

    key: str
    asks: str
    needed: str
    starts: tuple[int, ...]
    make: Callable[[], Row]

    def form_at(self, opset: int) -> str:
        """The value of the question at an opset: "11-12"."""
        first, last = next((first, last) for first, last in self.spans if first <= opset <= last)
        return f"{first}-{last}"

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last opset of each form."""
        return list(zip(self.starts, [start - 1 for start in self.starts[1:]] + [LAST], strict=True))

    def small(self, opset: int) -> Small:
        """The tiny model as an export at `opset` has it."""
        nodes, inputs, outputs, constants = self.make()
        return standard(nodes, inputs, outputs, constants, opset)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _one(op_type: str, x: np.ndarray, attributes: dict[str, object] | None = None, constants: Arrays | None = None) -> Row:
    """One node of x and constants."""
    return [node(op_type, ["x", *(constants or {})], "y", attributes)], {"x": x}, {"y": "float32"}, constants or {}


def _conv2d() -> Row:
    constants = {"weight": random(8, 3, 7, 7, scale=0.2), "bias": random(8)}
    return _one("Conv", random(2, 3, 12, 16), {"strides": [2, 2], "pads": [3] * 4, "kernel_shape": [7, 7]}, constants)


def _conv3d() -> Row:
    weight = {"weight": random(8, 4, 3, 3, 3, scale=0.2)}
    return _one("Conv", random(1, 4, 6, 5, 3), {"pads": [1] * 6, "kernel_shape": [3] * 3}, weight)


def _conv_transpose3d() -> Row:
    return _one("ConvTranspose", random(1, 4, 5, 4, 2), {"strides": [2] * 3, "kernel_shape": [2] * 3}, {"weight": random(4, 6, 2, 2, 2)})


def _max_pool() -> Row:
    return _one("MaxPool", random(2, 4, 9, 12), {"strides": [2, 2], "pads": [1] * 4, "kernel_shape": [3, 3]})


def _batch_norm() -> Row:
    vectors = {"scale": random(4), "shift": random(4), "mean": random(4), "variance": np.abs(random(4)) + np.float32(0.5)}
    return _one("BatchNormalization", random(2, 4, 5, 7), {"epsilon": 1e-5}, vectors)


def _resize() -> Row:
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [node("Resize", ["x", "", "", "sizes"], "y", how)], {"x": random(2, 4, 3, 5)}, {"y": "float32"}, {"sizes": _ints(2, 4, 6, 10)}


def _sigmoid() -> Row:
    return _one("Sigmoid", random(2, 9, 5, 7))


def _softmax() -> Row:
    nodes = [node("Softmax", ["x"], "y", {"axis": 4}), node("Softmax", ["z"], "flat", {"axis": 3})]
    return nodes, {"x": random(2, 5, 3, 1, 4), "z": random(2, 5, 3, 4)}, {"y": "float32", "flat": "float32"}, {}


def _linear() -> Row:
    return _one("Gemm", random(10, 8), {"transB": 1}, {"weight": random(6, 8), "bias": random(6)})


def _layer_norm() -> Row:
    return _one("LayerNormalization", random(10, 8), {"axis": -1, "epsilon": 1e-5}, {"scale": random(8), "shift": random(8)})


def _group_norm() -> Row:
    nodes = [
        node("Reshape", ["x", "grouped"], "groups"),
        node("InstanceNormalization", ["groups", "ones", "zeros"], "normal", {"epsilon": 1e-5}),
        node("Reshape", ["normal", "shape"], "whole"),
        node("Mul", ["whole", "scale"], "scaled"),
        node("Add", ["scaled", "shift"], "y"),
    ]
    constants = {
        "grouped": _ints(1, 2, -1), "shape": _ints(1, 4, 5, 3, 2), "ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32),
        "scale": random(4, 1, 1, 1), "shift": random(4, 1, 1, 1, seed=1),
    }  # fmt: skip
    return nodes, {"x": random(1, 4, 5, 3, 2)}, {"y": "float32"}, constants


def _volume() -> Row:
    nodes = [
        node("Reshape", ["x", "shape"], "volume"), node("Transpose", ["volume"], "turned", {"perm": [0, 4, 3, 2, 1]}),
        node("Relu", ["turned"], "positive"), node("Add", ["positive", "z"], "y"),
    ]  # fmt: skip
    return nodes, {"x": random(24, 5), "z": random(1, 5, 4, 3, 2)}, {"y": "float32"}, {"shape": _ints(1, 2, 3, 4, 5)}


def _tokens() -> Row:
    nodes = [node("Transpose", ["x"], "rows", {"perm": [0, 2, 3, 1]}), node("Reshape", ["rows", "shape"], "y")]
    return nodes, {"x": random(2, 4, 3, 5)}, {"y": "float32"}, {"shape": _ints(30, 4)}


def _split() -> Row:
    nodes = [node("Split", ["x", "parts"], "a b", {"axis": 2}), node("Split", ["z", "channels"], "offset mask", {"axis": 1})]
    outputs = dict.fromkeys(("a", "b", "offset", "mask"), "float32")
    return nodes, {"x": random(2, 3, 12), "z": random(2, 27, 3, 4)}, outputs, {"parts": _ints(8, 4), "channels": _ints(18, 9)}


def _broadcast() -> Row:
    nodes = [node("Mul", ["x", "weight"], "weighted"), node("Add", ["table", "weighted"], "sum"), node("Relu", ["sum"], "y")]
    return nodes, {"x": random(10, 8), "weight": random(10, 1)}, {"y": "float32"}, {"table": random(10, 8, seed=1)}


def _join() -> Row:
    return _one("Concat", random(10, 8), {"axis": 0}, {"row": np.zeros((1, 8), np.float32)})


def _reduce_sum() -> Row:
    return _one("ReduceSum", random(3, 10, 8), {"keepdims": 0}, {"axes": _ints(0)})


def _rank6() -> Row:
    nodes = [
        node("Reshape", ["x", "shape"], "offsets"), node("Div", ["offsets", "size"], "in_maps"), node("Add", ["reference", "in_maps"], "y"),
    ]  # fmt: skip
    constants = {"shape": _ints(2, 5, 3, 1, 2, 2), "size": np.array([[[9, 6]]], np.float32)}
    return nodes, {"x": random(2, 5, 12), "reference": random(2, 5, 1, 1, 1, 2)}, {"y": "float32"}, constants


def _hits() -> np.ndarray:
    """(1, 2, 9) int64 of zeros and ones."""
    return np.random.default_rng(3).integers(0, 2, (1, 2, 9))


def _project() -> Row:
    nodes = [
        node("Split", ["matrix"], "first second", {"axis": 3, "num_outputs": 2}), node("Mul", ["first", "x"], "scaled"),
        node("Add", ["scaled", "second"], "moved"), node("Clip", ["moved", "least"], "depth"), node("Div", ["moved", "depth"], "y"),
    ]  # fmt: skip
    constants = {"x": random(9), "least": np.array(1e-2, np.float32)}
    return nodes, {"matrix": random(1, 2, 4, 2)}, {"y": "float32"}, constants


def _reduce_min() -> Row:
    nodes = [
        node("Sub", ["one", "x"], "rest"), node("Concat", ["x", "rest"], "both", {"axis": 2}),
        node("ReduceMin", ["both", "axes"], "y", {"keepdims": 0}),
    ]  # fmt: skip
    return nodes, {"x": random(1, 2, 3, 9)}, {"y": "float32"}, {"one": np.array(1, np.float32), "axes": _ints(2)}


def _cum_sum() -> Row:
    return [node("CumSum", ["x", "axis"], "y")], {"x": _hits()}, {"y": "int64"}, {"axis": np.array(2, np.int64)}


def _rows() -> Row:
    nodes = [
        node("Split", ["x", "parts"], "a b", {"axis": 2}), node("Add", ["b", "start"], "moved"),
        node("Concat", ["a", "moved"], "y", {"axis": 2}),
    ]  # fmt: skip
    return nodes, {"x": _hits().cumsum(2)}, {"y": "int64"}, {"parts": _ints(6, 3), "start": _ints(0, 1, 2)}


def _scatter() -> Row:
    where = np.random.default_rng(4).permutation(9)[None, None, None].repeat(2, 1).astype(np.int64)
    nodes = [
        node("ScatterElements", ["empty", "where", "x"], "y", {"axis": 3}),
        node("ScatterElements", ["nobody", "camera", "slot"], "z", {"axis": 1}),
    ]
    inputs: dict[str, np.ndarray] = {"x": random(1, 2, 1, 9), "where": where, "camera": _hits().cumsum(1), "slot": _hits().cumsum(2)}
    inputs["camera"][:, 1] = 3  # no place is written twice, so that no order of writing matters
    constants: dict[str, np.ndarray] = {"empty": np.zeros((1, 2, 1, 12), np.float32), "nobody": np.full((1, 4, 9), 20, np.int64)}
    return nodes, inputs, {"y": "float32", "z": "int64"}, constants


def _compare() -> Row:
    nodes = [node("LessOrEqual", ["x", "limit"], "small"), node("Cast", ["small"], "y", {"to": 7})]
    return nodes, {"x": _hits().cumsum(2)}, {"y": "int64"}, {"limit": np.arange(9, dtype=np.int64) // 2}


def _logic() -> Row:
    nodes = [
        node("Greater", ["x", "zero"], "a"), node("Greater", ["z", "zero"], "b"), node("And", ["a", "b"], "both"),
        node("Xor", ["a", "both"], "alone"), node("Cast", ["x"], "numbers", {"to": 7}), node("Where", ["alone", "numbers", "none"], "y"),
    ]  # fmt: skip
    inputs = {"x": random(1, 2, 9, scale=5), "z": random(1, 2, 9, seed=1)}
    return nodes, inputs, {"y": "int64"}, {"zero": np.array(0, np.float32), "none": np.array(0, np.int64)}


def _squeeze() -> Row:
    nodes = [node("Unsqueeze", ["x", "axes"], "wide"), node("Expand", ["wide", "shape"], "y"), node("Squeeze", ["z", "axes"], "flat")]
    inputs = {"x": _hits().cumsum(2), "z": random(1, 2, 1, 9)}
    return nodes, inputs, {"y": "int64", "flat": "float32"}, {"axes": _ints(2), "shape": _ints(1, 2, 3, 9)}


def _cut() -> Row:
    nodes = [node("Slice", ["x", "starts", "ends", "axes", "steps"], "y")]
    constants = {"starts": _ints(0), "ends": _ints(3), "axes": _ints(1), "steps": _ints(1)}
    return nodes, {"x": np.arange(36).reshape(1, 4, 9)}, {"y": "int64"}, constants


def _seen() -> Row:
    nodes = [
        node("ReduceSum", ["x", "axes"], "cameras", {"keepdims": 0}),
        node("Cast", ["cameras"], "number", {"to": 1}),
        node("Max", ["number", "one"], "seen"),
        node("Reciprocal", ["seen"], "weight"),
        node("Split", ["weight", "parts"], "y z", {"axis": 1}),
    ]
    return nodes, {"x": _hits()}, {"y": "float32", "z": "float32"}, {"axes": _ints(1), "one": np.array(1, np.float32), "parts": _ints(6, 3)}


def _count() -> Row:
    nodes = [
        node("Greater", ["x", "zero"], "lost"), node("Cast", ["lost"], "ones", {"to": 1}),
        node("ReduceSum", ["ones", "axes"], "number", {"keepdims": 0}), node("MatMul", ["number", "levels"], "sums"),
        node("Cast", ["sums"], "y", {"to": 7}),
    ]  # fmt: skip
    constants = {"zero": np.array(0, np.float32), "axes": _ints(1), "levels": np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)}
    return nodes, {"x": random(1, 2, 9)}, {"y": "int64"}, constants


FAMILIES: tuple[Family, ...] = (
    Family("conv2d", "a 7x7 convolution of stride 2 with bias", "always", (11,), _conv2d),
    Family("conv3d", "a 3x3x3 convolution of a volume", "always", (11,), _conv3d),
    Family("conv_transpose3d", "a transposed 2x2x2 convolution of stride 2", "always", (11,), _conv_transpose3d),
    Family("max_pool", "MaxPool 3x3 of stride 2", "always", (11,), _max_pool),
    Family("batch_norm", "BatchNormalization of rank 4", "always", (11,), _batch_norm),
    Family("sigmoid", "Sigmoid", "always", (11,), _sigmoid),
    Family("resize", "Resize, nearest, to a given size (below 13 with an empty roi)", "always", (11, 13), _resize),
    Family("linear", "Gemm with a transposed weight", "always", (11,), _linear),
    Family("layer_norm", "layer normalisation: arithmetic below 17, LayerNormalization from there", "always", (11, 17), _layer_norm),
    Family("group_norm", "group normalisation of a volume: by InstanceNormalization below 21", "always", (11, 21), _group_norm),
    Family("volume", "Reshape, Transpose, Relu and Add of rank 5", "always", (11,), _volume),
    Family("tokens", "Transpose of rank 4, and Reshape", "always", (11,), _tokens),
    Family("split", "Split into unequal parts: sizes as an attribute below 13, as an input from there", "always", (11, 13), _split),
    Family("broadcast", "Mul and Add that broadcast, Relu", "always", (11,), _broadcast),
    Family("join", "Concat with a constant", "always", (11,), _join),
    Family("reduce_sum", "ReduceSum: axes as an attribute below 13, as an input from there", "always", (11, 13), _reduce_sum),
    Family("rank6", "tensors of rank 6, as sampling locations are", "locations", (11,), _rank6),
    Family("softmax", "Softmax along the last axis, of five and of four", "locations", (11,), _softmax),
    Family("project", "Split into equal parts, Mul, Add, Clip and Div of rank 4", "runtime", (11, 13, 18), _project),
    Family("reduce_min", "Sub, Concat, ReduceMin: axes as an attribute below 18, as an input from there", "runtime", (11, 18), _reduce_min),
    Family("cum_sum", "CumSum of int64 along the last axis", "runtime", (11,), _cum_sum),
    Family("rows", "Split, Add and Concat of int64", "runtime", (11, 13), _rows),
    Family("scatter", "ScatterElements without reduction, of float32 and of int64", "runtime", (11,), _scatter),
    Family("compare", "<= of int64: Greater and Not below 12, LessOrEqual from there", "runtime", (11, 12), _compare),
    Family("logic", "Greater, And, Xor, Cast to int64, Where", "runtime", (11,), _logic),
    Family("squeeze", "Unsqueeze, Squeeze (axes as an attribute below 13, as an input from there), Expand", "runtime", (11, 13), _squeeze),
    Family("cut", "Slice of int64 along one axis", "runtime", (11,), _cut),
    Family("seen", "ReduceSum of int64, Cast, Max, and 1 / x: by Div below 13, Reciprocal from there", "runtime", (11, 13), _seen),
    Family("count", "the count of lost voxels: Cast from bool, ReduceSum, MatMul, Cast to int64", "runtime", (11, 13), _count),
)
