"""Lowering canonical nodes into a contract: values, scalars, places, names, attributes."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from occport.graph import canonical, dialect, lower
from occport.graph.build import Builder
from occport.graph.settings import Settings, with_settings
from occport.ops import msda
from small_graphs import attention_feeds, attention_graph, by_name, constant_of, deform_conv, graph, random, run, with_bodies

DL = dialect.load("dl")
LEVELS = {"one": [(3, 5)], "three": [(7, 3), (2, 5), (1, 1)]}
SIZES = {"images": 2, "heads": 3, "width": 4, "queries": 5, "points": 2}


def lowered(levels, settings=None):
    """A dl node (and what makes its inputs) in the place of a canonical attention node."""
    target = with_settings(DL, settings or Settings())
    model = attention_graph(levels, **SIZES)
    node = by_name(model)["attention"]
    lower.lower_attention(node, target.msda, Builder(model.graph).at(node))
    model.opset_imports.pop(canonical.DOMAIN)
    model.opset_imports[target.msda.domain] = target.msda.version
    return model, target


@pytest.mark.parametrize("levels", LEVELS)
def test_values(levels):
    levels = LEVELS[levels]
    model, target = lowered(levels)
    feeds = attention_feeds(levels, **SIZES)
    tensors = [torch.from_numpy(feeds[name]) for name in ("value", "reference", "offsets", "logits")]
    want = msda.reference(tensors[0], [size for level in levels for size in level], *tensors[1:]).numpy()
    proto = with_bodies(model, target)
    onnx.checker.check_model(proto, full_check=True)
    np.testing.assert_allclose(run(proto, feeds)[0], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", LEVELS)
def test_locations_and_weights_by_themselves(levels):
    """locations = reference + offset / (w, h); weights sum to 1 over levels and points."""
    levels = LEVELS[levels]
    model, _ = lowered(levels)
    feeds = attention_feeds(levels, **SIZES)
    node = by_name(model)["attention"]
    for value in node.inputs[3:5]:
        model.graph.outputs.append(value)
    model.graph.outputs.pop(0)
    model.graph.remove(node)
    locations, weights = run(model, feeds)
    size = np.float32([[w, h] for h, w in levels]).reshape(len(levels), 1, 2)
    np.testing.assert_allclose(locations, feeds["reference"][:, :, None, :, None] + feeds["offsets"] / size, rtol=0, atol=1e-6)
    power = np.exp(feeds["logits"] - feeds["logits"].max((3, 4), keepdims=True))
    np.testing.assert_allclose(weights, power / power.sum((3, 4), keepdims=True), rtol=0, atol=1e-6)


def test_the_node_and_its_ports():
    model, _ = lowered(LEVELS["three"])
    node = by_name(model)["attention"]
    assert (node.domain, node.op_type, node.outputs[0].name) == ("DL", "MultiScaleDeformableAttnFunction", "out")
    assert {name: attribute.value for name, attribute in node.attributes.items()} == {"im2col_step": 64}
    assert node.attributes["im2col_step"].type == ir.AttributeType.INT
    shapes = [value.shape.numpy() for value in node.inputs]
    assert shapes == [(2, 32, 3, 4), (3, 2), (3,), (2, 5, 3, 3, 2, 2), (2, 5, 3, 3, 2), (), (), ()]
    assert constant_of(node.inputs[1]).tolist() == [[7, 3], [2, 5], [1, 1]]
    assert constant_of(node.inputs[2]).tolist() == [0, 21, 31]
    assert [constant_of(value).item() for value in node.inputs[5:]] == [2, 5, 12]
    assert node.outputs[0].shape.numpy() == (2, 5, 12)


@pytest.mark.parametrize(("rank", "dtype", "place"), list(product((0, 1), ("int64", "int32"), ("constant", "initializer"))))
def test_scalars(rank, dtype, place):
    model, target = lowered(LEVELS["one"], Settings(scalar_rank=rank, scalar_dtype=dtype, scalar_place=place))
    for value, number in zip(by_name(model)["attention"].inputs[5:], (2, 5, 12), strict=True):
        array = constant_of(value)
        assert (array.dtype, array.shape, array.item()) == (np.dtype(dtype), (1,) * rank, number)
        assert (value.producer() is not None, value.is_initializer()) == (place == "constant", place == "initializer")
    feeds = attention_feeds(LEVELS["one"], **SIZES)
    np.testing.assert_array_equal(run(with_bodies(model, target), feeds)[0], run(with_bodies(lowered(LEVELS["one"])[0], DL), feeds)[0])


@pytest.mark.parametrize(("num_embed", "number"), [("all", 12), ("head", 4)])
def test_num_embed(num_embed, number):
    model, _ = lowered(LEVELS["one"], Settings(num_embed=num_embed))
    assert constant_of(by_name(model)["attention"].inputs[7]).item() == number


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_dtype_of_the_sizes(dtype):
    model, target = lowered(LEVELS["three"], Settings(shapes_dtype=dtype))
    sizes = by_name(model)["attention"].inputs[1:3]
    assert [constant_of(value).dtype for value in sizes] == [np.dtype(dtype)] * 2
    assert [constant_of(value).dtype for value in by_name(model)["attention"].inputs[5:]] == [np.int64] * 3
    if dtype == "int64":
        onnx.checker.check_model(with_bodies(model, target), full_check=True)


def test_names_and_im2col_step():
    settings = Settings(op_names=(("msda", "chip.ops::Attend"), ("dcn", "mmcv::MMCVModulatedDeformConv2d")), im2col_step=128)
    model, target = lowered(LEVELS["one"], settings)
    node = by_name(model)["attention"]
    assert (node.domain, node.op_type, node.attributes["im2col_step"].as_int()) == ("chip.ops", "Attend", 128)
    assert target.domains == {"chip.ops": 1, "mmcv": 1}
    feeds = attention_feeds(LEVELS["one"], **SIZES)
    np.testing.assert_array_equal(run(with_bodies(model, target), feeds)[0], run(with_bodies(lowered(LEVELS["one"])[0], DL), feeds)[0])


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_deformable_convolution(bias):
    settings = {"stride": (2, 1), "padding": (0, 1), "dilation": (1, 2), "groups": 2, "deform_groups": 4}
    feeds = {"x": random(1, 4, 7, 7), "offset": random(1, 72, 3, 5), "mask": random(1, 36, 3, 5)}
    inputs = ["x", "offset", "mask", "w", *(["b"] if bias else [])]
    constants = {"w": random(2, 2, 3, 3), "b": random(2)}
    model = graph([deform_conv(inputs, **settings)], feeds, ["y"], constants, known={"y": (1, 2, 3, 5)})
    conv = by_name(model)["conv"]
    lower.lower_deform_conv(conv, DL.dcn, Builder(model.graph).at(conv))
    node = by_name(model)["conv"]
    assert (node.domain, node.op_type) == ("DL", "ModulatedDeformConv2d")
    assert [value.name for value in node.inputs] == inputs
    proto = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in ir.to_proto(node).attribute}
    assert proto == {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    assert [node.attributes[name].type.name for name in ("stride", "groups", "deform_groups")] == ["INTS", "INT", "INT"]


def test_two_nodes_share_the_reference_and_the_constants():
    """The attention layers of one level look at the same reference points."""
    model = attention_graph(LEVELS["one"], **SIZES)
    first = by_name(model)["attention"]
    output = ir.Value(name="out2", type=first.outputs[0].type, shape=first.outputs[0].shape)
    second = ir.Node(first.domain, first.op_type, first.inputs, outputs=[output], name="second")
    model.graph.append(second)
    model.graph.outputs.append(output)
    builder = Builder(model.graph)
    for node in (first, second):
        lower.lower_attention(node, DL.msda, builder.at(node))
    nodes = by_name(model)
    assert [a is b for a, b in zip(nodes["attention"].inputs, nodes["second"].inputs, strict=True)] == [True] * 3 + [False] * 2 + [True] * 3
    assert [node.op_type for node in model.graph].count("Reshape") == 1
    assert [node.op_type for node in model.graph].count("Constant") == 5
