"""Bugs planted into a copy of a network in memory, and the tensors that somebody with such a bug would dump."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from occport.bringup.dumps.axes import levels_of
from occport.bringup.dumps.golden import planned
from occport.bringup.dumps.index import Index
from occport.bringup.walk import walk
from occport.export.network_file import NetworkFile, feeds_of
from occport.graph.model_file import tensor_of
from occport.graph.stages import stages_of

Arrays = dict[str, np.ndarray]
PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
ROUND: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda array: array,
    "float16": lambda array: array.astype(np.float16).astype(np.float32),
    "bfloat16": lambda array: array.astype(ml_dtypes.bfloat16).astype(np.float32),
    "int8": lambda array: _quantised(array),
}


def _quantised(array: np.ndarray) -> np.ndarray:
    step = float(np.abs(array).max(initial=0.0)) / 127 or 1.0
    return (np.round(array / step) * step).astype(np.float32)


def copied(file: NetworkFile) -> NetworkFile:
    """The same file with a model that may be changed."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    return replace(file, model=model)


def node_of(file: NetworkFile, fragment: str, op_type: str = "") -> onnx.NodeProto:
    """The first node whose name holds a fragment."""
    return next(node for node in file.model.graph.node if fragment in node.name and op_type in ("", node.op_type))


def insert_before(file: NetworkFile, node: onnx.NodeProto, port: int, op_type: str, constants: list[np.ndarray], **attributes: int) -> None:
    """Puts an operator onto one input of a node: what the node reads is not what was dumped."""
    graph, name = file.model.graph, f"{node.name}_planted"
    graph.initializer.extend(numpy_helper.from_array(array, f"{name}_{i}") for i, array in enumerate(constants))
    source = node.input[port]
    typed = next(info for info in (*graph.value_info, *graph.input) if info.name == source)
    _type_like(graph, [name], typed)
    made = helper.make_node(op_type, [source, *(f"{name}_{i}" for i in range(len(constants)))], [name], name=name)
    made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    node.input[port] = name
    graph.node.insert(next(i for i, one in enumerate(graph.node) if one.name == node.name), made)


def half_pixel(file: NetworkFile, node: onnx.NodeProto) -> None:
    """A custom node whose kernel looks half a pixel too far."""
    if "Deform" in node.op_type and "Conv" in node.op_type:
        insert_before(file, node, 1, "Add", [np.array(0.5, np.float32)])
        return
    shapes = next(one for one in file.model.graph.node if one.output[0] == node.input[1])
    h, w = numpy_helper.to_array(shapes.attribute[0].t).reshape(-1)[:2]
    insert_before(file, node, 3, "Add", [np.array([0.5 / w, 0.5 / h], np.float32)])


def changed_channel(file: NetworkFile, node: onnx.NodeProto, channel: int, factor: float) -> None:
    """A Conv with one output channel's weights times a factor."""
    name = node.input[1]
    weight = tensor_of(file.model, name, file.folder).copy()
    weight[channel] *= factor
    _replace(file, name, weight)


def swapped_rows(file: NetworkFile, gather: onnx.NodeProto, first: int, second: int) -> None:
    """A Gather of rows that finds two of them exchanged."""
    graph = file.model.graph
    rows = next(info for info in graph.value_info if info.name == gather.input[0]).type.tensor_type.shape.dim[0].dim_value
    order = np.arange(rows)
    order[[first, second]] = order[[second, first]]
    insert_before(file, gather, 0, "Gather", [order], axis=0)


def rounded_weights(file: NetworkFile, dtype: str) -> None:
    """Float weights as a dtype holds them."""
    for name in [tensor.name for tensor in file.model.graph.initializer if tensor.data_type == 1 and len(tensor.dims) > 0]:
        if name.startswith("projection"):
            continue  # geometry stays in float32
        weight = tensor_of(file.model, name, file.folder)
        if dtype == "int8":
            weight = np.stack([_quantised(row) for row in weight]) if weight.ndim > 1 else weight
        else:
            weight = ROUND[dtype](weight)
        _replace(file, name, weight)


def rounded_factors(graph: onnx.GraphProto, bits: int) -> None:
    """What is multiplied and added up is rounded to some bits first, to the nearest (Dekker); the results stay float32.

    Args:
        bits: of the significand: 11 of TF32, 8 of bfloat16.
    """
    typed = {tensor.name: helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in graph.initializer}
    typed |= {info.name: info for info in (*graph.input, *graph.value_info)}
    graph.initializer.append(numpy_helper.from_array(np.array(2.0 ** (24 - bits) + 1, np.float32), "splitter"))
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in graph.node:
        factors = (0, 1) if node.op_type in PRODUCTS else ()
        for port in factors:
            source = node.input[port]
            names = [f"{source}_{part}" for part in ("grown", "gap", "rounded")]
            if source not in made:
                made.add(source)
                if source in typed:
                    _type_like(graph, names, typed[source])
                pairs = ((source, "splitter"), (names[0], source), (names[0], names[1]))
                nodes += [
                    helper.make_node("Sub" if i else "Mul", pair, [name], name=name)
                    for i, (pair, name) in enumerate(zip(pairs, names, strict=True))
                ]
            node.input[port] = names[-1]
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _type_like(graph: onnx.GraphProto, names: Collection[str], like: onnx.ValueInfoProto) -> None:
    for name in names:
        info = graph.value_info.add()
        info.CopyFrom(like)
        info.name = name


def _replace(file: NetworkFile, name: str, weight: np.ndarray) -> None:
    place = next(i for i, tensor in enumerate(file.model.graph.initializer) if tensor.name == name)
    file.model.graph.initializer[place].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight), name))


def dumps(file: NetworkFile, names: Collection[str], dtype: str = "float32") -> Arrays:
    """What a run of the file hands out, as float32 (rounded to a dtype), int64 or bool."""
    feeds = feeds_of(file, None, None)[0]
    stages = stages_of(file.model.graph)
    return {name: as_read(array, "float32" if stages.get(name) == "tables" else dtype) for name, array in walk(file, feeds, names)}


def as_read(array: np.ndarray, dtype: str) -> np.ndarray:
    if array.dtype.kind == "f":
        return np.asarray(ROUND[dtype](array.astype(np.float32)), np.float32)
    return array if array.dtype == np.bool_ else array.astype(np.int64)


def golden_index(file: NetworkFile, marks: tuple[str, ...]) -> Index:
    """The index that `occport golden` would write, without hashes."""
    levels = levels_of(file)
    grids = tuple(level.grid for level in levels.values() if level.grid is not None)
    slots = tuple(level.slots for level in levels.values())
    return Index(file.path.name, "", file.dialect.name, "", "npy", tuple(planned(file, marks, "npy")), slots, grids, ("A", "B", "C", "D"))
