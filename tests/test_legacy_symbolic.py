"""Our `dl` nodes against those that the legacy tracer writes for the document's symbolic and for mmcv's, field by field.

The two autograd functions below say what the bring-up document and mmcv 1.4 say, in words of our own: the attention's forward gives
zeros of (bs, num_queries, num_embed) and its symbolic has eight inputs and im2col_step; the convolution's has four or five inputs.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from occport.graph import dialect
from occport.graph.rewrite import to_dialect
from small_graphs import attention, deform_conv, graph, node, random

IMAGES, QUERIES, HEADS, WIDTH, POINTS, HW = 3, 5, 2, 4, 4, (3, 4)
EMBED = HEADS * WIDTH
ATTENTION = {
    "query": random(IMAGES, QUERIES, EMBED), "feat": random(IMAGES, EMBED, *HW), "reference": np.abs(random(IMAGES, QUERIES, 1, 2)),
}  # fmt: skip
KIND = onnx.AttributeProto.AttributeType.Name
CONV = {"x": random(2, 4, 5, 6), "offset": random(2, 18, 5, 6), "mask": random(2, 9, 5, 6)}


class MultiScaleDeformableAttnFunction_fp32_DL(torch.autograd.Function):  # noqa: N801 - the document's name
    @staticmethod
    def forward(ctx, value, shapes, starts, locations, weights, bs, num_queries, num_embed, im2col_step) -> torch.Tensor:
        return value.new_zeros(int(bs), int(num_queries), int(num_embed))

    @staticmethod
    def symbolic(g, value, shapes, starts, locations, weights, bs, num_queries, num_embed, im2col_step) -> Any:
        inputs = (value, shapes, starts, locations, weights, bs, num_queries, num_embed)
        return g.op("DL::MultiScaleDeformableAttnFunction", *inputs, im2col_step_i=im2col_step)


class ModulatedDeformConv2dFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups) -> torch.Tensor:
        return x.new_zeros(x.shape[0], weight.shape[0], *offset.shape[2:])

    @staticmethod
    def symbolic(g, x, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups) -> Any:
        inputs = [x, offset, mask, weight] if bias is None else [x, offset, mask, weight, bias]
        sizes = {"stride_i": stride, "padding_i": padding, "dilation_i": dilation, "groups_i": groups, "deform_groups_i": deform_groups}
        return g.op("DL::ModulatedDeformConv2d", *inputs, **sizes)


class Attend(nn.Module):
    """Calls the document's function as the original's `MSDeformableAttention3D` does: all sizes from tensor shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets, self.weights = nn.Linear(EMBED, HEADS * POINTS * 2), nn.Linear(EMBED, HEADS * POINTS)

    def forward(self, query, feat, reference):
        _, _, h, w = feat.shape
        shapes = torch.as_tensor([(h, w)], dtype=torch.long)
        starts = torch.cat((shapes.new_zeros((1,)), shapes.prod(1).cumsum(0)[:-1]))
        bs, num_queries, num_embed = query.shape
        value = feat.flatten(2).permute(0, 2, 1).view(bs, h * w, HEADS, -1)
        offsets = self.offsets(query).view(bs, num_queries, HEADS, 1, POINTS, 2)
        weights = self.weights(query).view(bs, num_queries, HEADS, POINTS).softmax(-1).view(bs, num_queries, HEADS, 1, POINTS)
        size = torch.stack([shapes[..., 1], shapes[..., 0]], -1)
        locations = reference[:, :, None, :, None, :] + offsets / size[None, None, None, :, None, :]
        return MultiScaleDeformableAttnFunction_fp32_DL.apply(value, shapes, starts, locations, weights, bs, num_queries, num_embed, 64)


class Convolve(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(random(6, 4, 3, 3)))
        self.bias = nn.Parameter(torch.from_numpy(random(6))) if bias else None

    def forward(self, x, offset, mask):
        return ModulatedDeformConv2dFunction.apply(x, offset, mask, self.weight, self.bias, [1, 1], [1, 1], [1, 1], 1, 1)


def traced(module: nn.Module, feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The legacy tracer's file at opset 11; autograd functions keep their symbolic only where inlining is off."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), tuple(map(torch.from_numpy, feeds.values())), file, dynamo=False, opset_version=11, autograd_inlining=False,
            custom_opsets={"DL": 1}, input_names=list(feeds),
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def ours(model: ir.Model) -> onnx.ModelProto:
    """The same tensors through our own way: canonical node, `dl` dialect, opset 11."""
    to_dialect(model, dialect.load("dl"), 11, functions=False)
    return ir.to_proto(model)


def our_attention() -> onnx.ModelProto:
    """The canonical node with the same sizes as `Attend`."""
    constants = {
        "shapes": np.array([HW]), "starts": np.array([0]), "tokens_shape": np.array([IMAGES, HW[0] * HW[1], HEADS, WIDTH]),
        "offsets_shape": np.array([IMAGES, QUERIES, HEADS, 1, POINTS, 2]), "logits_shape": np.array([IMAGES, QUERIES, HEADS, 1, POINTS]),
        "offsets_weight": random(EMBED, HEADS * POINTS * 2), "logits_weight": random(EMBED, HEADS * POINTS),
    }  # fmt: skip
    nodes = [
        node("Transpose", ["feat"], "tokens", perm=[0, 2, 3, 1]),
        node("Reshape", ["tokens", "tokens_shape"], "value"),
        node("MatMul", ["query", "offsets_weight"], "offsets_flat"),
        node("Reshape", ["offsets_flat", "offsets_shape"], "offsets"),
        node("MatMul", ["query", "logits_weight"], "logits_flat"),
        node("Reshape", ["logits_flat", "logits_shape"], "logits"),
        attention(["value", "shapes", "starts", "reference", "offsets", "logits"], "out"),
    ]
    return ours(graph(nodes, ATTENTION, ["out"], constants, known={"out": (IMAGES, QUERIES, EMBED)}))


def our_conv(bias: bool) -> onnx.ModelProto:
    inputs = ["x", "offset", "mask", "weight", *(["bias"] if bias else [])]
    constants = {"weight": random(6, 4, 3, 3), "bias": random(6)}
    return ours(graph([deform_conv(inputs)], CONV, ["y"], constants, known={"y": (2, 6, 5, 6)}))


@pytest.fixture(scope="session")
def attention_files():
    """The tracer's file and ours."""
    return traced(Attend(), ATTENTION), our_attention()


@pytest.fixture(scope="session", params=[False, True], ids=["no bias", "bias"])
def conv_files(request):
    """The tracer's file and ours, without and with a fifth input."""
    return traced(Convolve(request.param), CONV), our_conv(request.param)


def custom(proto: onnx.ModelProto) -> onnx.NodeProto:
    (found,) = [each for each in proto.graph.node if each.domain not in ("", "ai.onnx")]
    return found


def fields(proto: onnx.ModelProto) -> dict[str, object]:
    """Every field of the custom node but its names, which are each exporter's own, with where each input comes from."""
    found = custom(proto)
    set_fields = {descriptor.name for descriptor, _ in found.ListFields()} - {"name", "input", "output", "metadata_props"}
    assert set_fields == {"op_type", "domain", "attribute"}
    return {
        "domain": found.domain, "op_type": found.op_type, "inputs": [source(proto, name) for name in found.input],
        "outputs": len(found.output),
        "attributes": [(each.name, KIND(each.type), helper.get_attribute_value(each)) for each in found.attribute],
        "attribute bytes": [each.SerializeToString(deterministic=True) for each in found.attribute],
    }  # fmt: skip


def source(proto: onnx.ModelProto, name: str) -> tuple[object, ...]:
    """What an input is: "computed", or a constant with its place, dtype, shape and value."""
    for each in proto.graph.node:
        if name in each.output and each.op_type == "Constant":
            (attribute,) = each.attribute
            assert (attribute.name, attribute.type) == ("value", onnx.AttributeProto.TENSOR)
            array = numpy_helper.to_array(attribute.t)
            return "Constant node", str(array.dtype), array.shape, array.tolist()
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor)
            return "initializer", str(array.dtype), array.shape, array.tolist()
    return ("computed",)


def test_the_attention_node_is_the_documents(attention_files):
    theirs, own = map(fields, attention_files)
    assert own == theirs


def test_what_the_document_gives_the_attention_node(attention_files):
    """The facts themselves, so that a new torch which writes something else is noticed."""
    theirs = fields(attention_files[0])
    assert theirs["inputs"] == [
        ("computed",),
        ("Constant node", "int64", (1, 2), [[3, 4]]),
        ("Constant node", "int64", (1,), [0]),
        ("computed",),
        ("computed",),
        ("Constant node", "int64", (), IMAGES),
        ("Constant node", "int64", (), QUERIES),
        ("Constant node", "int64", (), EMBED),
    ]
    assert theirs["attributes"] == [("im2col_step", "INT", 64)]
    assert (theirs["domain"], theirs["op_type"], theirs["outputs"]) == ("DL", "MultiScaleDeformableAttnFunction", 1)


def test_the_convolution_is_mmcvs(conv_files):
    theirs, own = map(fields, conv_files)
    assert own == theirs


def test_what_mmcv_gives_the_convolution(conv_files):
    theirs = fields(conv_files[0])
    assert [each[0] for each in theirs["inputs"]] in ([*["computed"] * 3, "initializer"], [*["computed"] * 3, *["initializer"] * 2])
    assert theirs["attributes"] == [
        ("deform_groups", "INT", 1), ("dilation", "INTS", [1, 1]), ("groups", "INT", 1), ("padding", "INTS", [1, 1]),
        ("stride", "INTS", [1, 1]),
    ]  # fmt: skip


def test_opset_ir_version_and_domain_are_the_same(attention_files, conv_files):
    for theirs, own in (attention_files, conv_files):
        imports = [{entry.domain: entry.version for entry in proto.opset_import} for proto in (theirs, own)]
        assert imports == [{"": 11, "DL": 1}] * 2
        assert (theirs.ir_version, own.ir_version) == (6, 6)
        assert (len(theirs.functions), len(own.functions)) == (0, 0)


def shapes_and_types(proto: onnx.ModelProto, names: list[str]) -> list[tuple[int, list[int]]]:
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    infos = {info.name: info.type.tensor_type for info in (*inferred.input, *inferred.value_info, *inferred.output)}
    return [(infos[name].elem_type, [dim.dim_value for dim in infos[name].shape.dim]) for name in names]


def test_computed_inputs_have_the_same_types_and_shapes(attention_files, conv_files):
    for theirs, own in (attention_files, conv_files):
        pairs = zip(custom(theirs).input, custom(own).input, strict=True)
        computed = [(a, b) for a, b in pairs if source(own, b) == ("computed",)]
        assert len(computed) == 3
        wanted, got = shapes_and_types(theirs, [a for a, _ in computed]), shapes_and_types(own, [b for _, b in computed])
        for (elem_type, shape), (our_type, our_shape) in zip(wanted, got, strict=True):
            assert our_type == elem_type
            # the tracer does not know the size that a -1 stands for
            assert len(our_shape) == len(shape)
            assert [b for a, b in zip(shape, our_shape, strict=True) if a] == [a for a in shape if a] and 0 not in our_shape


def test_our_output_is_typed_and_the_tracers_is_not(attention_files):
    theirs, own = attention_files
    assert shapes_and_types(own, list(custom(own).output)) == [(1, [IMAGES, QUERIES, EMBED])]
    assert shapes_and_types(theirs, list(custom(theirs).output)) == [(1, [0, 0, 0])]
