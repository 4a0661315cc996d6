"""What stands in front of a custom node: mistakes that no size and no dtype tells, and that nothing is said where it is not certain."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from linting import clean, findings, node
from occport.graph import dialect as dialects
from occport.graph.lint.finding import ERROR
from occport.graph.lint.whole import lint


def in_front(on: str, port: str, *operators: str):
    """An edit: the value of a port goes through these standard operators of one input first."""

    def edit(model):
        target = node(model, on)
        index = list(target.input).index(f"{on}_{port}")
        info = next(each for each in model.graph.input if each.name == f"{on}_{port}")
        sizes = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        name, place = info.name, list(model.graph.node).index(target)
        for step, operator in enumerate(operators):
            attributes = {"axis": len(sizes) - 1} if operator == "Softmax" else {}
            inputs, new = [name], f"{name}_{step}"
            if operator in ("Reshape", "Add"):
                array = np.array(sizes, np.int64) if operator == "Reshape" else np.ones(1, np.float32)
                model.graph.initializer.append(numpy_helper.from_array(array, f"{new}_constant"))
                inputs.append(f"{new}_constant")
            model.graph.node.insert(place + step, helper.make_node(operator, inputs, [new], new, **attributes))
            model.graph.value_info.append(helper.make_tensor_value_info(new, 1, sizes))
            name = new
        target.input[index] = name

    return edit


def test_a_softmax_twice():
    (told,) = errors("bevformer_tensorrt", in_front("msda", "attention_weights", "Softmax", "Reshape"))
    assert (told.node, told.what) == ("msda", "attention_weights (msda_attention_weights_0_1)")
    assert (told.expected, told.got) == ("numbers before the softmax", "those of the Softmax msda_attention_weights_0")
    assert told.fix == "the target takes the softmax itself: give it what stands before"


def test_no_softmax():
    (told,) = errors("mmdeploy", in_front("msda", "attention_weights", "Add", "Reshape"))
    assert (told.node, told.what) == ("msda", "attention_weights (msda_attention_weights_0_1)")
    assert (told.expected, told.got) == ("numbers after a softmax", "those of the Add msda_attention_weights_0")
    assert told.fix == "the target does not take the softmax itself: put it in front"


def test_no_sigmoid():
    (told,) = errors("tensorrt", in_front("conv", "mask", "Add"))
    assert str(told) == "conv: mask (conv_mask_0): expected numbers after a sigmoid, got those of the Add conv_mask_0"
    assert told.fix == "the target does not take the sigmoid itself: put it in front"


@pytest.mark.parametrize(
    ("name", "on", "port", "operators"),
    [
        ("mmdeploy", "msda", "attention_weights", ("Add", "Softmax")),
        ("mmdeploy", "msda", "attention_weights", ("Add", "Exp")),  # a softmax in parts
        ("tensorrt", "conv", "mask", ("Add", "Sigmoid", "Reshape")),
        ("bevformer_tensorrt", "msda", "attention_weights", ("Add",)),
        ("bevformer_tensorrt", "msda", "attention_weights", ("Softmax", "Neg")),
    ],
)
def test_nothing_is_said_where_all_is_right_or_not_certain(name, on, port, operators):
    assert errors(name, in_front(on, port, *operators)) == []


def errors(name: str, edit):
    return [each for each in findings(name, edit, opset=13) if each.severity == ERROR and each.what != "opset_import"]


def flattened(h: int, w: int, declared: list[int], *, channels_last: bool = False) -> onnx.ModelProto:
    """A file of one level whose values are a map (2, 24, h, w), or (2, h, w, 24), as a convolution gives it."""
    dialect = dialects.load("mmdeploy")
    model = clean(dialect)
    graph = model.graph
    sizes, areas = ([2, h, w, 24] if channels_last else [2, 24, h, w]), h * w
    typed = {"msda_value": [2, areas, 3, 8], "msda_sampling_locations": [2, 33, 3, 1, 4, 2], "msda_attention_weights": [2, 33, 3, 1, 4]}
    for info in graph.input:
        if info.name in typed:
            info.CopyFrom(helper.make_tensor_value_info(info.name, 1, typed[info.name]))
    value = next(info for info in graph.input if info.name == "msda_value")
    graph.value_info.append(value)
    value.CopyFrom(helper.make_tensor_value_info("map", 1, sizes))
    constants = {"heads_shape": [2, areas, 3, 8], "flat_shape": [2, areas, 24] if channels_last else [2, 24, areas]}
    for tensor in graph.initializer:
        if tensor.name in ("msda_value_spatial_shapes", "msda_value_level_start_index"):
            array = np.array([declared] if tensor.name == "msda_value_spatial_shapes" else [0], numpy_helper.to_array(tensor).dtype)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    graph.initializer.extend(numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in constants.items())
    nodes = [helper.make_node("Reshape", ["map", "flat_shape"], ["flat"], "flatten")]
    nodes += [] if channels_last else [helper.make_node("Transpose", ["flat"], ["tokens"], "turn", perm=[0, 2, 1])]
    nodes.append(helper.make_node("Reshape", ["flat" if channels_last else "tokens", "heads_shape"], ["msda_value"], "heads"))
    for i, each in enumerate(nodes):
        graph.node.insert(i, each)
    graph.value_info.append(helper.make_tensor_value_info("flat", 1, constants["flat_shape"]))
    if not channels_last:
        graph.value_info.append(helper.make_tensor_value_info("tokens", 1, [2, areas, 24]))
    return model


@pytest.mark.parametrize("channels_last", [False, True])
def test_h_and_w_exchanged(channels_last):
    dialect = dialects.load("mmdeploy")
    assert lint(flattened(5, 7, [5, 7], channels_last=channels_last), dialect) == []
    (told,) = lint(flattened(5, 7, [7, 5], channels_last=channels_last), dialect)
    assert str(told) == (
        "msda: value_spatial_shapes (msda_value_spatial_shapes): expected [[5, 7]], (h, w) of the map that was flattened, got [[7, 5]]"
    )
    assert told.fix == "h comes first: exchanged, other places of the map are read, and no size tells"


def test_a_square_map_cannot_be_exchanged():
    assert lint(flattened(6, 6, [6, 6]), dialects.load("mmdeploy")) == []


def test_initializers_that_are_no_inputs_need_a_later_ir():
    def old(model):
        model.ir_version = 3

    told = [each for each in findings("mmdeploy", old) if each.severity == ERROR]
    assert [str(each) for each in told] == ["ir_version: expected 4 or more in a file whose weights are no graph inputs, got 3"]
    assert told[0].fix == "readers refuse it: raise the number, to 6 for instance"

    def old_with_inputs(model):
        old(model)
        model.graph.input.extend(helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in model.graph.initializer)

    assert findings("mmdeploy", old_with_inputs) == []
