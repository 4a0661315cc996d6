"""A part of a network with rounding errors of a dtype put into it, another set of them in each run: what a right kernel may be off.

Behind every input, weight and computed value stands t - (t - x) with t = C*x and C = c*2^s, in float32. Without c this is Veltkamp's
splitting (T. J. Dekker, Numer. Math. 18, 1971): x rounded to 24 - s bits, without overflow. A c between 1 and 2, drawn for each run,
moves the places where numbers are rounded, so that the errors of two runs are as unlike as those of two kernels. Quantised values are
rounded to a grid whose step is changed a little in the same way. Inputs that were rounded to 16 or 8 bits already hold equal numbers that
were none before; these, up to some size, get random errors of their own. Whole numbers that are counted or picked (of slots, of voxels) are
exact in any dtype that a chip would use for them, and get none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .products import Products
from .rounding import Rounding

DRAW = "occport_draw"  # the input that holds c
_MOVING = frozenset({
    "Reshape", "Transpose", "Gather", "Split", "Slice", "Concat", "Squeeze", "Unsqueeze", "Expand", "Relu", "MaxPool", "Identity",
    "Flatten", "GatherElements", "ScatterElements", "ScatterND", "Pad", "Max", "Min", "ReduceMax", "ReduceMin", "Where", "Clip", "Constant",
})  # fmt: skip
_COUNTING = _MOVING | {"Add", "Sub", "Mul", "Neg", "Abs", "CumSum", "ReduceSum"}
_WHOLE = ("Floor", "Ceil", "Round")
_SMALL = 2**20  # numbers of a weight that is looked at
_FINE = 24  # bits of a number that is hardly ever equal to another
_MOST_RANDOM = 2**24  # numbers of a tensor: a random one takes ten times as long as a rounding
_AXES_ARE_INPUT = 18  # of ReduceMax


def with_noise(
    model: ModelProto, own: Mapping[str, Rounding], inside: Rounding, products: Products | None = None, whole: Collection[str] = (),
) -> ModelProto:  # fmt: skip
    """A copy of a part with a further input DRAW: a float32 scalar between 1 and 2.

    Args:
        model: its custom nodes have bodies; float32 values are typed. Values of other dtypes get no noise.
        own: rounding of inputs and outputs of the part.
        inside: of weights and of what is computed in between. Values that are only moved are not rounded again.
        products: factors of products that are rounded once more; None for none.
        whole: inputs all of whose numbers are whole.
    """
    noisy = ModelProto()
    noisy.CopyFrom(model)
    graph = noisy.graph
    opset = next(entry.version for entry in noisy.opset_import if entry.domain in ("", "ai.onnx"))
    maker = _Maker(opset)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    begin: list[NodeProto] = []
    renamed: dict[str, str] = {}
    ends = {info.name for info in graph.output}
    exact = whole_values(graph, whole)
    for info in graph.input:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT and info.name not in {*weights, *ends, *exact}:
            renamed[info.name] = info.name + "__noisy"
            rounding, size = own.get(info.name, inside), math.prod(dim.dim_value for dim in info.type.tensor_type.shape.dim)
            make = maker.random if rounding.bits < _FINE and size <= _MOST_RANDOM else maker.chain
            begin += make(info.name, renamed[info.name], rounding)
    for name, tensor in weights.items():
        if tensor.data_type == TensorProto.FLOAT and not _exact(tensor) and name not in exact:
            renamed[name] = name + "__noisy"
            begin += maker.chain(name, renamed[name], inside, rank=len(tensor.dims))
    floats = {info.name for info in (*graph.value_info, *graph.output) if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    nodes: list[NodeProto] = list(begin)
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        if products is not None:
            for i in products.factors.get(node.output[0], ()):
                factor = f"{node.output[0]}__times_{i}"
                nodes += maker.chain(node.input[i], factor, products.rounding)
                node.input[i] = factor
        nodes.append(node)
        for i, name in enumerate(list(node.output)):
            if name in floats and name not in exact and (name in ends or node.op_type not in _MOVING):
                node.output[i] = name + "__exact"
                nodes += maker.chain(node.output[i], name, own.get(name, inside))
    maker.finish(graph, nodes)
    return noisy


def whole_values(graph: GraphProto, whole: Collection[str]) -> set[str]:
    """Floating-point values of a graph all of whose numbers are whole, as far as that follows from its nodes.

    Args:
        whole: inputs that hold whole numbers alone.
    """
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {info.name for info in values if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    found = {*whole, *(tensor.name for tensor in graph.initializer if tensor.name in floats and _is_whole(tensor))}
    for node in graph.node:
        counted = node.op_type in _COUNTING and all(name in found or name not in floats for name in node.input)
        made = node.op_type in _WHOLE or (node.op_type == "Cast" and node.input[0] not in floats)
        if not node.domain and (counted or made):
            found |= floats & set(node.output)
    return found


def _is_whole(tensor: TensorProto) -> bool:
    if tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) > _SMALL:
        return False
    array = numpy_helper.to_array(tensor)
    return bool((np.rint(array) == array).all())


def draw(number: int) -> np.ndarray:
    """The value of DRAW of run `number`."""
    return np.array(np.random.default_rng([7, number]).uniform(1.05, 1.4), np.float32)


def _exact(tensor: TensorProto) -> bool:
    """Single numbers are settings (an epsilon, an exponent)."""
    return int(np.prod(tensor.dims)) <= 1


class _Maker:
    """Makes the nodes behind a value, each with a factor of its own."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._random = np.random.default_rng(11)
        self._constants: list[TensorProto] = []
        self._seed = 0

    def chain(self, source: str, target: str, rounding: Rounding, rank: int = 0) -> list[NodeProto]:
        """Nodes that make `target`, a rounded `source`; a rank above 1: weights with output channels first, each with its own scale."""
        if rounding.name == "int8":
            return self._quantised(source, target, rounding, rank)
        # below 2 times, both differences would be exact (Sterbenz)
        factor = self._scalar(target + "__factor", 2.0 ** max(1, 24 - rounding.bits) * float(self._random.uniform(1.0, 1.4)))
        grown, gap, scale = (target + part for part in ("__grown", "__gap", "__scale"))
        return [
            helper.make_node("Mul", [DRAW, factor], [scale]), helper.make_node("Mul", [source, scale], [grown]),
            helper.make_node("Sub", [grown, source], [gap]), helper.make_node("Sub", [grown, gap], [target]),
        ]  # fmt: skip

    def random(self, source: str, target: str, rounding: Rounding) -> list[NodeProto]:
        """Nodes that make `target`, `source` with a random error of each number."""
        noise, error, scale = (target + part for part in ("__random", "__error", "__size"))
        self._seed += 1
        drawn = helper.make_node("RandomUniformLike", [source], [noise], low=-1.0, high=1.0, seed=float(self._seed))
        if rounding.step > 0:
            grid = self._scalar(target + "__grid", rounding.step / 2)
            return [drawn, helper.make_node("Mul", [noise, grid], [error]), helper.make_node("Add", [source, error], [target])]
        unit = self._scalar(target + "__unit", rounding.unit)
        return [
            drawn, helper.make_node("Mul", [noise, unit], [scale]), helper.make_node("Mul", [source, scale], [error]),
            helper.make_node("Add", [source, error], [target]),
        ]  # fmt: skip

    def _quantised(self, source: str, target: str, rounding: Rounding, rank: int) -> list[NodeProto]:
        size, largest, scale, ratio, whole = (target + part for part in ("__size", "__largest", "__step", "__ratio", "__whole"))
        nodes: list[NodeProto] = []
        if rounding.step > 0:
            grid = self._scalar(target + "__grid", rounding.step * 0.8)
        else:  # the largest number is 127 steps, or fewer of a coarser one
            nodes = [helper.make_node("Abs", [source], [size]), self._largest(size, largest + "0", rank)]
            floor = self._scalar(target + "__floor", 1e-30)
            nodes.append(helper.make_node("Add", [largest + "0", floor], [largest + "1"]))
            share = self._scalar(target + "__grid", 0.8 / (2 ** (rounding.bits - 1) - 1))
            nodes.append(helper.make_node("Mul", [largest + "1", share], [largest]))
            grid = largest
        return [
            *nodes, helper.make_node("Mul", [DRAW, grid], [scale]), helper.make_node("Div", [source, scale], [ratio]),
            helper.make_node("Round", [ratio], [whole]), helper.make_node("Mul", [whole, scale], [target]),
        ]  # fmt: skip

    def _largest(self, source: str, target: str, rank: int) -> NodeProto:
        axes = list(range(1, rank))
        if not axes:
            return helper.make_node("ReduceMax", [source], [target], keepdims=0)
        if self._opset < _AXES_ARE_INPUT:
            return helper.make_node("ReduceMax", [source], [target], keepdims=1, axes=axes)
        self._constants.append(numpy_helper.from_array(np.array(axes, np.int64), target + "__axes"))
        return helper.make_node("ReduceMax", [source, target + "__axes"], [target], keepdims=1)

    def _scalar(self, name: str, value: float) -> str:
        self._constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def finish(self, graph: GraphProto, nodes: list[NodeProto]) -> None:
        """Puts all of it into the graph."""
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(self._constants)
        graph.input.append(helper.make_tensor_value_info(DRAW, TensorProto.FLOAT, []))
