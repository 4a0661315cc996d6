"""A 16-bit file made runnable on stock ONNX Runtime's CPU kernels, with the rounding that a chip would have, or without any.

ONNX Runtime computes most 16-bit operators in float32 there, and leaves out the rounding between them, so that a file looks better than
it is on a chip; for bfloat16 it has hardly any kernel. Here every node computes in float32 from rounded inputs, and a pair of casts
rounds what it gives; pairs that are in the model are not taken out. Checked element by element against NumPy in the tests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

LOW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_EXACT = (  # what only moves numbers, chooses among them or changes their sign gives no number that would have to be rounded
    "Reshape", "Transpose", "Concat", "Split", "Slice", "Squeeze", "Unsqueeze", "Identity", "Expand", "Gather", "Flatten", "Tile", "Relu",
    "MaxPool", "Max", "Min", "Neg", "Abs", "ConstantOfShape", "Constant", "ScatterElements", "Where",
)  # fmt: skip


def is_low(model: ModelProto) -> bool:
    """Whether anything in a model has 16 bits."""
    return has_low_weights(model) or any(
        info.type.tensor_type.elem_type in LOW for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    )


def has_low_weights(model: ModelProto) -> bool:
    """Whether a weight has 16 bits."""
    return any(tensor.data_type in LOW for tensor in model.graph.initializer)


def emulate(model: ModelProto, *, rounding: bool | Collection[str] = True) -> None:
    """Turns a model's 16-bit numbers into float32 ones, in place; a model without any stays as it is.

    Args:
        model: whole, a skeleton or a part; values typed. Weights keep their 16 bits on disk and are cast up.
        rounding: rounds what each node gives to the type that it had; without, the nodes compute in float32 with the same weights. Names of
            values: these alone are rounded.
    """
    graph = model.graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.input, *graph.output)}
    low = {name: kind for name, kind in types.items() if kind in LOW}
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type in LOW}
    if not low and not weights:
        return
    nodes: list[NodeProto] = [_cast(name, _up(name), TensorProto.FLOAT) for name in weights]
    renamed = {name: _up(name) for name in weights}
    for node in graph.node:
        nodes += _float_node(node, low, renamed, rounding)
    del graph.node[:]
    graph.node.extend(nodes)
    for info in (*graph.value_info, *graph.input, *graph.output):
        if info.type.tensor_type.elem_type in LOW:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    graph.value_info.extend(_typed(graph, renamed, weights))


def _float_node(node: NodeProto, low: dict[str, int], renamed: dict[str, str], where: bool | Collection[str]) -> Iterator[NodeProto]:
    """The node in float32, and behind it what rounds."""
    rounding = where if isinstance(where, bool) else any(name in where for name in node.output)
    copy = NodeProto()
    copy.CopyFrom(node)
    for place, name in enumerate(copy.input):
        copy.input[place] = renamed.get(name, name)
    kind = next((low[name] for name in node.output if name in low), 0)
    if node.op_type == "Cast" and not node.domain:
        yield from _float_cast(copy, kind, rounding)
        return
    for attribute in copy.attribute:
        if attribute.HasField("t") and attribute.t.data_type in LOW:
            array = onnx.numpy_helper.to_array(attribute.t).astype("float32")
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(array, attribute.t.name))
    if not kind or not rounding or (node.op_type in _EXACT and not node.domain):
        yield copy
        return
    outputs = [(place, name) for place, name in enumerate(node.output) if name in low]
    for place, name in outputs:
        copy.output[place] = f"{name}_unrounded"
    yield copy
    for _, name in outputs:
        yield from _rounded(f"{name}_unrounded", name, low[name])


def _float_cast(copy: NodeProto, kind: int, rounding: bool) -> Iterator[NodeProto]:
    """A Cast to 16 bits rounds; one from 16 bits does nothing more; all others stay."""
    (target,) = (attribute for attribute in copy.attribute if attribute.name == "to")
    if kind and rounding:
        yield from _rounded(copy.input[0], copy.output[0], kind)
        return
    if kind:
        target.i = TensorProto.FLOAT
    yield copy


def _rounded(source: str, target: str, kind: int) -> Iterator[NodeProto]:
    yield _cast(source, f"{target}_rounded", kind)
    yield _cast(f"{target}_rounded", target, TensorProto.FLOAT)


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)


def _up(name: str) -> str:
    return f"{name}_as_float32"


def _typed(graph: GraphProto, renamed: dict[str, str], weights: dict[str, TensorProto]) -> Iterator[onnx.ValueInfoProto]:
    for old, new in renamed.items():
        yield helper.make_tensor_value_info(new, TensorProto.FLOAT, list(weights[old].dims))
