"""Planted errors: one change to a clean file of some dialect, and lint finds it at the right node in the right words."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from linting import (
    as_initializer,
    attribute,
    behind,
    constant,
    dtype,
    far_head,
    findings,
    function,
    import_version,
    input_dropped,
    input_renamed,
    ir_version,
    node,
    put,
    rename,
    second_output,
    set_attribute,
    set_constant,
    set_type,
    shape,
    swap,
    unsorted,
    weight,
)
from occport.graph.lint.finding import ERROR, NOTE


class Case(NamedTuple):
    """A change to a clean file, the node of the finding it must bring, and words of it."""

    dialect: str
    edit: Callable[[onnx.ModelProto], object]
    node: str
    words: str
    fix: str = ""
    severity: str = ERROR


LOCATIONS, MSDA_DL = "msda_sampling_locations", "MultiScaleDeformableAttnFunction"
CASES: dict[str, Case] = {
    # names and domains
    "a name with a slip": Case(
        "dl", rename("msda", "MultiscaleDeformableAttnFunctions"), "msda", "got DL::Multis", f"did you mean DL::{MSDA_DL}?"
    ),
    "another case in the domain": Case("dl", rename("msda", MSDA_DL, "dl"), "msda", f"got dl::{MSDA_DL}", "the domain must be 'DL'"),
    "a name of mmcv": Case(
        "dl", rename("conv", "MMCVModulatedDeformConv2d", "mmcv"), "conv", "got mmcv::MMCV", "it belongs to mmcv: give --dialect mmcv"
    ),
    "a name of TensorRT": Case(
        "mmdeploy", rename("msda", "MultiscaleDeformableAttnPlugin_TRT", ""), "msda", "expected mmdeploy::", "belongs to tensorrt"
    ),
    "an empty-domain slip": Case(
        "tensorrt", rename("conv", "ModulatedDeformConv"), "conv", "got ModulatedDeformConv", "did you mean ModulatedDeformConv2d?"
    ),
    "an unknown operator": Case(
        "dl", rename("conv", "Frobnicate", "chip"), "conv", "got chip::Frobnicate", "a target without it refuses the file"
    ),
    "a domain that is not imported": Case(
        "dl", import_version("DL", None), "", "opset_import of domain 'DL': expected version 1, got none"
    ),
    "another version of the domain": Case("dl", import_version("DL", 2), "", "opset_import of domain 'DL': expected version 1, got 2"),
    "a domain without a node": Case("dl", import_version("mmcv", 1), "", "opset_import of domain 'mmcv'", "leave it out", NOTE),
    # inputs
    "an input too few": Case("dl", input_dropped("msda"), "msda", "inputs: expected 8, got 7", "bs, num_queries, num_embed"),
    "inputs too few for the convolution": Case("mmcv", input_dropped("conv", 2), "conv", "inputs: expected 4 to 5, got 3", "[bias]"),
    "an input too many": Case("ascend", lambda m: node(m, "msda").input.append("msda_value"), "msda", "inputs: expected 5, got 6"),
    "a needed input left out": Case("dl", input_renamed("msda", 1, ""), "msda", "spatial_shapes: expected an input, got an empty name"),
    "locations and weights exchanged": Case(
        "dl",
        swap("msda", 3, 4),
        "msda",
        "expected float32 of rank 6, got float32 of shape (2, 33, 3, 2, 4)",
        "it fits the port attention_weights",
    ),
    "shapes and starts exchanged": Case(
        "tensorrt", swap("msda", 1, 2), "msda", "expected int32 of rank 2, got int32 of shape (2,)", "it fits the port value_level"
    ),
    "offset and mask exchanged": Case(
        "dl",
        swap("conv", 1, 2),
        "conv",
        "order of the inputs: expected input, offset, mask, weight, bias, got shapes that fit input, mask, offset",
    ),
    "the order of the standard's DeformConv": Case(
        "mmdeploy", swap("conv", 1, 3), "conv", "got shapes that fit input, weight, mask, offset"
    ),
    "int64 where the plugin reads int32": Case(
        "tensorrt",
        constant("msda_value_spatial_shapes", [[5, 7], [3, 4]]),
        "msda",
        "expected int32 of rank 2, got int64 of shape (2, 2)",
        "a plugin reads the bytes",
    ),
    "half precision": Case(
        "autoware", dtype("msda_value", TensorProto.FLOAT16, 2, 47, 3, 8), "msda", "expected float32 of rank 4, got float16"
    ),
    "a scalar of rank 1": Case("dl", constant("msda_bs", [2]), "msda", "bs (msda_bs): expected int64 of rank 0, got int64 of shape (1,)"),
    "a scalar as initializer": Case(
        "dl", as_initializer("msda_num_queries"), "msda", "expected in place 'constant', got 'initializer'", "a Constant node"
    ),
    "two outputs": Case("ascend", second_output, "conv", "outputs: expected 1, got 2", "", NOTE),
    # sizes
    "other images in the weights": Case(
        "dl",
        shape("msda_attention_weights", 3, 33, 3, 2, 4),
        "msda",
        "attention_weights (msda_attention_weights): expected shape (2, 33, 3, 2, 4) as (A, Q, M, L, P), got (3,",
    ),
    "other queries in the locations": Case(
        "vad_trt", shape(LOCATIONS, 2, 34, 3, 2, 4, 2), "msda", "sampling_locations (msda_sampling_locations): expected shape (2, 33, 3,"
    ),
    "three coordinates": Case("far3d_trt", shape(LOCATIONS, 2, 33, 3, 2, 4, 3), "msda", "expected shape (2, 33, 3, 2, 4, 2)"),
    "points that disagree": Case(
        "dl",
        shape(LOCATIONS, 2, 33, 3, 2, 5, 2),
        "msda",
        "sampling_locations and attention_weights: expected sizes that fit together, got P = 5 elsewhere, 4 here",
    ),
    "heads merged where they are split": Case(
        "tensorrt", shape("msda_out", 2, 33, 24), "msda", "output (msda_out): expected float32 of rank 4, got float32 of shape (2, 33, 24)"
    ),
    "an output of another shape": Case(
        "mmcv", shape("msda_out", 2, 33, 25), "msda", "output (msda_out): expected shape (2, 33, 24) as (A, Q, M*D), got (2, 33, 25)"
    ),
    "values that are not the maps'": Case("dl", constant("msda_spatial_shapes", [[5, 7], [3, 5]]), "msda", "S = "),
    "a map without rows": Case(
        "dl", constant("msda_spatial_shapes", [[0, 7], [3, 4]]), "msda", "expected sizes from 1 up, got [[0, 7], [3, 4]]"
    ),
    "starts that are not cumulative": Case(
        "bevformer_tensorrt", constant("msda_value_spatial_shapes", [[7, 5], [-3, -4]], "int32"), "msda", "expected sizes from 1 up"
    ),
    "a level start": Case(
        "ascend", constant("msda_value_level_start_index", [0, 34], "int32"), "msda", "expected [0, 35], got [0, 34]", "areas"
    ),
    "bs": Case("dl", constant("msda_bs", 6), "msda", "bs (msda_bs): expected 2, got 6", "cameras x batch"),
    "num_queries": Case("dl", constant("msda_num_queries", 32), "msda", "num_queries (msda_num_queries): expected 33, got 32"),
    "num_embed of one head": Case(
        "dl", constant("msda_num_embed", 8), "msda", "num_embed (msda_num_embed): expected 24, got 8", "heads x head width"
    ),
    "reference points that points do not share": Case(
        "bevformer_tensorrt",
        shape("msda_reference_points", 2, 33, 1, 6),
        "msda",
        "reference_points: expected a divisor of the 4 points of a level, got 3",
    ),
    # the convolution
    "deformable_groups for deform_groups": Case(
        "dl",
        attribute("deformable_groups", 2, old="deform_groups"),
        "conv",
        "attribute deform_groups: expected int, deform_groups, got none",
        "it stands there as 'deformable_groups'",
    ),
    "deform_groups for deformable_group": Case(
        "tensorrt",
        attribute("deform_groups", 2, old="deformable_group"),
        "conv",
        "attribute deform_groups: expected none of this name, got 2",
        "did you mean 'deformable_group'?",
    ),
    "no attribute at all": Case(
        "mmcv",
        attribute("padding", None),
        "conv",
        "attribute padding: expected ints, padding (h, w), got none",
        "takes a default of its own",
    ),
    "an attribute more": Case(
        "dl", attribute("layout", "NCHW"), "conv", "attribute layout: expected none of this name, got NCHW", "leave it out"
    ),
    "one number for two": Case("mmcv", attribute("stride", 1), "conv", "attribute stride: expected ints, stride (h, w), got int 1"),
    "one number in a list": Case("mmcv", attribute("stride", [1]), "conv", "attribute stride: expected stride (h, w), got [1]"),
    "a stride of nothing": Case("mmcv", attribute("stride", [0, 1]), "conv", "attribute stride: expected stride (h, w), got [0, 1]"),
    "a padding that is not alike": Case(
        "ascend",
        attribute("paddings", [1, 0, 1, 1]),
        "conv",
        "attribute paddings: expected padding (top, bottom, left, right), got [1, 0, 1, 1]",
    ),
    "im2col_step": Case("mmdeploy", attribute("im2col_step", 32, "msda"), "msda", "attribute im2col_step: expected int 64, got int 32"),
    "im2col_step as float": Case(
        "dl", attribute("im2col_step", 64.0, "msda"), "msda", "attribute im2col_step: expected int 64, got float 64.0"
    ),
    "not modulated": Case("ascend", attribute("modulated", 0), "conv", "attribute modulated: expected int 1, got int 0"),
    "a stride that the maps do not have": Case(
        "dl",
        attribute("stride", [2, 2]),
        "conv",
        "stride, padding, dilation: expected sizes that fit together, got Ho = 3 by the other sizes, 5 here",
    ),
    "deform_groups that the channels do not have": Case(
        "dl", attribute("deform_groups", 4), "conv", "attribute deform_groups: expected 2, got 4", "so many say the channels"
    ),
    "groups that the weight does not have": Case(
        "bevformer_tensorrt", attribute("groups", 1), "conv", "groups: expected sizes that fit together, got C/groups = 4 elsewhere, 2 here"
    ),
    "groups that do not divide": Case(
        "autoware",
        lambda m: (set_attribute(m, "group", 3), set_constant(m, "conv_weight", np.ones((12, 1, 3, 3)), "float32")),
        "conv",
        "attribute group: expected a divisor of the 4 channels of input, got 3",
    ),
    "another kernel": Case("dl", weight(12, 2, 5, 5), "conv", "weight (conv_weight): expected shape (12, 2, kh, kw)"),
    "another kernel than the attribute's": Case(
        "ascend", attribute("kernel_sizes", [3, 5]), "conv", "attribute kernel_sizes: expected ints [3, 3], got ints [3, 5]"
    ),
    "channels of the mask": Case(
        "dl", shape("conv_mask", 2, 9, 5, 7), "conv", "mask (conv_mask): expected shape (2, 18, 5, 7) as (A, G*T, Ho, Wo), got (2, 9, 5, 7)"
    ),
    "channels of offset_all": Case(
        "ascend", shape("conv_offset", 2, 53, 5, 7), "conv", "offset (conv_offset): expected shape (2, 54, 5, 7)"
    ),
    "a map of another size": Case(
        "tensorrt",
        shape("conv_out", 2, 12, 5, 8),
        "conv",
        "output (conv_out): expected shape (2, 12, 5, 7) as (A, O, Ho, Wo), got (2, 12, 5, 8)",
    ),
    "a bias of another length": Case(
        "dl", constant("conv_bias", np.ones(5), "float32"), "conv", "bias (conv_bias): expected shape (12) as (O), got (5,)"
    ),
    # limits
    "a head that is too wide": Case(
        "ascend", far_head, "msda", "head_width for the kernel: expected a multiple of 8 and at most 256, got 264", "8 channels"
    ),
    "strides that differ": Case(
        "mmdeploy",
        attribute("padding", [1, 2]),
        "conv",
        "unevenness for the kernel: expected at most 0, got 1",
        "one number for both directions",
    ),
    # the file
    "an opset of tomorrow": Case("dl", import_version("", 23), "", "opset_import: expected 11 to 22, got 23"),
    "no opset": Case("dl", import_version("", None), "", "opset_import: expected 11 to 22, got none"),
    "an IR of tomorrow": Case("dl", ir_version(10), "", "ir_version: expected 6, the usual one of opset 11, or less, got 10", "", NOTE),
    "functions": Case("dl", function, "", "functions: expected none in a file of dialect dl, got DL::Unused", "choke"),
    "functions in an old IR": Case(
        "dl", lambda m: (function(m), ir_version(7)(m)), "", "ir_version: expected 8 or more in a file with functions, got 7"
    ),
    "NonZero": Case("dl", put(0, "NonZero", ["msda_value"], ["where"]), "put", "NonZero: expected no data-dependent operator"),
    "a scatter that adds": Case(
        "dl", put(0, "ScatterND", ["a", "b", "c"], ["s"], reduction="add"), "put", "ScatterND: expected no reduction", "races"
    ),
    "a plain ScatterND": Case("dl", put(0, "ScatterND", ["a", "b", "c"], ["s"]), "put", "ScatterND: expected a gather", "", NOTE),
    "a later operator": Case("dl", behind("Mish"), "put", "Mish: expected as opset 11 has it, got the operator appeared at opset 18"),
    "a later attribute": Case("dl", behind("Identity", saturate=1), "put", "attribute 'saturate' is not one of version 1"),
    "an input too many for the opset": Case(
        "dl", lambda m: (behind("Neg")(m), node(m, "put").input.append("conv_relu")), "put", "2 inputs, where version 6 has 1 to 1"
    ),
    "an operator of a later exporter": Case(
        "dl", behind("Reciprocal"), "put", "Reciprocal: expected an operator that torch 1.10 wrote", "", NOTE
    ),
    # the graph
    "a name that nobody makes": Case(
        "dl",
        input_renamed("conv_relu_node", 0, "lost"),
        "conv_relu_node",
        "input lost: expected a graph input, an initializer or a node that makes it, got none",
    ),
    "a node before its source": Case(
        "tensorrt", unsorted, "conv_relu_node", "input conv_out: expected a node before this one", "sort the nodes"
    ),
    "a value made twice": Case("dl", put(-1, "Relu", ["msda_out"], ["msda_relu"]), "", "value msda_relu: expected one maker, got several"),
    "an output that nobody makes": Case(
        "dl",
        lambda m: m.graph.output.append(helper.make_tensor_value_info("gone", 1, [1])),
        "",
        "output gone: expected a node that makes it",
    ),
    "an input that nobody reads": Case(
        "dl",
        lambda m: m.graph.input.append(helper.make_tensor_value_info("spare", 1, [1])),
        "",
        "input spare: expected a way to an output, got none",
    ),
    "a dynamic axis": Case(
        "dl",
        lambda m: set_type(m, "conv_input", ["batch", 4, 5, 7]),
        "",
        "input (conv_input): expected a static shape, got float32 [?, 4, 5, 7]",
    ),
    "a node name twice": Case(
        "dl",
        lambda m: setattr(node(m, "conv_relu_node"), "name", "msda_relu_node"),
        "msda_relu_node",
        "node name: expected each name once, got 2 nodes",
        "",
        NOTE,
    ),
    "a node without name": Case(
        "dl",
        lambda m: setattr(node(m, "conv_relu_node"), "name", ""),
        "",
        "node names: expected a name for every node, got 1 without one",
        "",
        NOTE,
    ),
    "a name with slashes": Case(
        "dl",
        lambda m: setattr(node(m, "conv_relu_node"), "name", "/backbone/Relu"),
        "",
        "name of a node: expected a C identifier, got '/backbone/Relu'",
        "",
        NOTE,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_planted_error_is_found(name):
    case = CASES[name]
    told = findings(case.dialect, case.edit)
    hits = [each for each in told if each.node == case.node and case.words in str(each)]
    assert hits, [str(each) for each in told]
    assert all(case.fix in each.fix and each.severity == case.severity for each in hits), hits
    assert len({(each.node, each.what, each.got) for each in told}) == len(told), told


@pytest.mark.parametrize(
    "name", ["im2col_step", "bs", "channels of the mask", "a bias of another length", "strides that differ", "a level start", "NonZero"]
)
def test_one_error_brings_one_finding(name):
    told = [each for each in findings(CASES[name].dialect, CASES[name].edit) if each.severity == ERROR and each.node]
    expected = 1 if name not in ("strides that differ", "NonZero") else 2
    assert len(told) == expected, told
