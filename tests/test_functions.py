"""Function bodies in ONNX Runtime against the operators' definition in torch, at every opset."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from occport.errors import ExportError
from occport.graph import canonical, dialect, lower
from occport.graph.build import Builder
from occport.graph.canonical import DCN_CONTRACT, MSDA_CONTRACT
from occport.graph.functions import functions_for
from occport.graph.opset import convert_opset, ir_version_for
from occport.ops import deform_conv as dcn_op
from occport.ops import msda as msda_op
from small_graphs import attention_feeds, attention_graph, by_name, deform_conv, graph, random, run, with_bodies

OPSETS = range(11, 23)
DL, STANDARD = dialect.load("dl"), dialect.load("standard")
LEVELS = {"one": [(3, 5)], "one row": [(1, 6)], "three": [(7, 3), (2, 5), (1, 1)]}


def at(model: ir.Model, opset: int) -> ir.Model:
    convert_opset(model, opset)
    model.ir_version = ir_version_for(opset)
    return model


def torch_attention(levels, feeds):
    flat = [size for level in levels for size in level]
    tensors = [torch.from_numpy(feeds[name]) for name in ("value", "reference", "offsets", "logits")]
    return msda_op.reference(tensors[0], flat, *tensors[1:]).numpy()


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("levels", LEVELS)
def test_wide_attention(levels, opset):
    levels = LEVELS[levels]
    feeds = attention_feeds(levels)
    got = run(with_bodies(at(attention_graph(levels), opset), STANDARD), feeds)[0]
    np.testing.assert_allclose(got, torch_attention(levels, feeds), rtol=0, atol=1e-5)


def narrow_graph(levels, *, images=2, heads=3, width=4, queries=5, points=2):
    """The dl node alone, with locations that reach far outside."""
    sizes = np.array(levels)
    rows, L = int(sizes.prod(1).sum()), len(levels)
    weights = np.abs(random(images, queries, heads, L, points))
    feeds = {
        "value": random(images, rows, heads, width),
        "locations": random(images, queries, heads, L, points, 2, scale=2) + np.float32(0.5),
        "weights": weights / weights.sum((3, 4), keepdims=True),
    }
    starts = np.concatenate([[0], sizes.prod(1).cumsum()[:-1]])
    constants = {"shapes": sizes, "starts": starts, "bs": np.array(images), "nq": np.array(queries), "ne": np.array(heads * width)}
    inputs = ["value", "shapes", "starts", "locations", "weights", "bs", "nq", "ne"]
    node = helper.make_node("MultiScaleDeformableAttnFunction", inputs, ["out"], name="msda", domain="DL", im2col_step=64)
    return graph([node], feeds, ["out"], constants, known={"out": (images, queries, heads * width)}), feeds


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("levels", LEVELS)
def test_narrow_attention_of_the_dl_dialect(levels, opset):
    levels = LEVELS[levels]
    model, feeds = narrow_graph(levels)
    got = run(with_bodies(at(model, opset), DL), feeds)[0]
    flat = [size for level in levels for size in level]
    want = msda_op.sample_weighted(
        torch.from_numpy(feeds["value"]), flat, torch.from_numpy(feeds["locations"]), torch.from_numpy(feeds["weights"])
    )
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-5)


def test_locations_outside_the_map_give_zero_and_borders_half():
    model, feeds = narrow_graph([(2, 2)], images=1, heads=1, width=1, queries=3, points=1)
    feeds["value"] = np.ones((1, 4, 1, 1), np.float32)
    feeds["weights"] = np.ones((1, 3, 1, 1, 1), np.float32)
    feeds["locations"] = np.float32([[9, 9], [0, 0.5], [0.5, 0.5]]).reshape(1, 3, 1, 1, 1, 2)
    assert run(with_bodies(model, DL), feeds)[0].ravel().tolist() == [0, 0.5, 1]


CONVS = {
    "as in the network": {},
    "stride 2": {"stride": (2, 2)},
    "uneven stride and padding": {"stride": (2, 1), "padding": (0, 2)},
    "dilation": {"dilation": (2, 1), "padding": (2, 1)},
    "groups": {"groups": 2},
    "two deform groups": {"deform_groups": 2},
    "everything": {"stride": (1, 2), "padding": (2, 1), "dilation": (1, 2), "groups": 2, "deform_groups": 4},
}


def conv_graph(settings, bias, kernel=(3, 3)):
    """One canonical convolution whose offsets reach outside of the map."""
    sizes = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "deform_groups": 1} | settings
    A, C, filters, size, taps = 2, 4, 6, (6, 7), kernel[0] * kernel[1]
    Ho, Wo = (
        (size[i] + 2 * sizes["padding"][i] - sizes["dilation"][i] * (kernel[i] - 1) - 1) // sizes["stride"][i] + 1 for i in range(2)
    )
    G = sizes["deform_groups"]
    feeds = {"x": random(A, C, *size), "offset": random(A, G * 2 * taps, Ho, Wo, scale=3), "mask": np.abs(random(A, G * taps, Ho, Wo))}
    constants = {"w": random(filters, C // sizes["groups"], *kernel, scale=0.5)} | ({"b": random(filters)} if bias else {})
    inputs = ["x", "offset", "mask", "w", *(["b"] if bias else [])]
    model = graph([deform_conv(inputs, **sizes)], feeds, ["y"], constants, known={"y": (A, filters, Ho, Wo)})
    tensors = [torch.from_numpy({**feeds, **constants}[name]) for name in inputs]
    want = dcn_op.reference(*tensors[:4], tensors[4] if bias else None, *sizes.values())
    return model, feeds, want.numpy()


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("settings", CONVS)
def test_deformable_convolution(settings, bias, opset):
    model, feeds, want = conv_graph(CONVS[settings], bias)
    got = run(with_bodies(at(model, opset), STANDARD), feeds)[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", [11, 18, 22])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3)])
def test_other_kernels(kernel, opset):
    model, feeds, want = conv_graph({}, True, kernel)
    np.testing.assert_allclose(run(with_bodies(at(model, opset), STANDARD), feeds)[0], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", [11, 16, 20])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_the_dl_convolution_has_the_same_body(bias, opset):
    model, feeds, want = conv_graph(CONVS["everything"], bias)
    conv = by_name(model)["conv"]
    lower.lower_deform_conv(conv, DL.dcn, Builder(model.graph).at(conv))
    model.opset_imports.pop(canonical.DOMAIN)
    model.opset_imports["DL"] = 1
    np.testing.assert_allclose(run(with_bodies(at(model, opset), DL), feeds)[0], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", range(16, 23))
def test_a_file_with_bodies_passes_the_full_check(opset):
    model = at(narrow_graph(LEVELS["three"])[0], opset)
    for function in functions_for(model, DL, opset):
        model.functions[function.identifier()] = function
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    (function,) = proto.functions
    assert (function.domain, function.name) == ("DL", "MultiScaleDeformableAttnFunction")
    assert {entry.domain: entry.version for entry in function.opset_import} == {"": opset}
    assert list(function.input) == [port.name for port in DL.msda.inputs]
    assert list(function.attribute) == ["im2col_step"]
    assert proto.ir_version == {16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}[opset]


@pytest.mark.parametrize(("opset", "domain", "mode"), [(11, "com.microsoft", b"bilinear"), (16, "", b"bilinear"), (20, "", b"linear")])
def test_which_grid_sample_a_body_uses(opset, domain, mode):
    body = ir.to_proto(functions_for(attention_graph([(3, 4)]), STANDARD, opset)[0])
    (sample,) = [node for node in body.node if node.op_type == "GridSample"]
    assert sample.domain == domain
    assert {attribute.name: helper.get_attribute_value(attribute) for attribute in sample.attribute} == {
        "mode": mode, "padding_mode": b"zeros", "align_corners": 0,
    }  # fmt: skip
    assert ("com.microsoft" in {entry.domain for entry in body.opset_import}) == (opset < 16)


def test_deform_conv_of_the_standard_is_used_from_19_on():
    model, _, _ = conv_graph(CONVS["everything"], True)
    for opset in (18, 19):
        body = ir.to_proto(functions_for(model, STANDARD, opset)[0])
        assert [node.op_type == "DeformConv" for node in body.node].count(True) == (opset == 19)
    (node,) = body.node
    assert list(node.input) == ["input", "weight", "offset", "bias", "mask"]
    got = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert got == {"strides": [1, 2], "pads": [2, 1, 2, 1], "dilations": [1, 2], "group": 2, "offset_group": 4}


def test_a_body_for_each_kind_of_node_that_is_there():
    assert functions_for(graph([helper.make_node("Relu", ["x"], ["y"])], {"x": random(2)}, ["y"]), DL, 18) == []
    assert [body.name for body in functions_for(attention_graph([(2, 2)]), STANDARD, 18)] == [canonical.MSDA]
    assert MSDA_CONTRACT.inputs[0].name == "value" and DCN_CONTRACT.inputs[4].optional


@pytest.mark.parametrize("differs", ["stride", "bias"])
def test_nodes_that_cannot_share_a_body_are_refused(differs):
    feeds = {"x": random(1, 4, 5, 5), "offset": random(1, 18, 5, 5), "mask": random(1, 9, 5, 5)}
    inputs = ["x", "offset", "mask", "w"]
    stride = (2, 2) if differs == "stride" else (1, 1)
    second = deform_conv([*inputs, "b"] if differs == "bias" else inputs, "z", name="other", stride=stride)
    known = {"y": (1, 2, 5, 5), "z": (1, 2, 5, 5)}
    model = graph([deform_conv(inputs, "y"), second], feeds, ["y", "z"], {"w": random(2, 4, 3, 3), "b": random(2)}, known=known)
    with pytest.raises(ExportError, match="with a body: expected nodes of one kind, got Kind"):
        functions_for(model, STANDARD, 18)
