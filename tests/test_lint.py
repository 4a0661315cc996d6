"""Holding a file against its contract: a right file has no finding, and every single change is found and named."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from occport.config import read_config
from occport.graph import dialect
from occport.graph.lint.facts import Facts
from occport.graph.lint.network import Expected, ExpectedAttention, check_contract, expected_nodes
from occport.graph.lint.structure import check_old_operators, check_structure
from occport.graph.lint.wiring import unreachable_inputs
from occport.graph.settings import Settings, with_settings
from small_graphs import A, D, H, K, M, P, V, W

DL = dialect.load("dl")
SIZES = ExpectedAttention(A, K, M, D, P, (H, W))
EXPECTED = Expected((SIZES, SIZES), 1, 1)
PORTS = [port.name for port in DL.msda.inputs]
CONFIGS = Path(__file__).resolve().parents[1] / "projects" / "configs" / "surroundocc"


@pytest.fixture
def proto(small_dl_bytes):
    """A right dl file: a_msda, b_msda and conv."""
    return onnx.ModelProto.FromString(small_dl_bytes)


def found(proto, name):
    return next(each for each in proto.graph.node if each.name == name)


def check(proto, target=DL, expected=EXPECTED):
    return check_contract(proto, target, expected)


def test_a_right_file_has_no_finding(proto):
    assert check(proto) == []
    assert check_structure(proto, 11, 6, False) == []
    assert check_old_operators(proto, 11) == []
    assert unreachable_inputs(proto) == []


def rewire(proto, port, array, place="node"):
    """Gives a_msda a constant of its own at one port."""
    index = PORTS.index(port)
    tensor = numpy_helper.from_array(np.asarray(array), "changed")
    if place == "node":
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["changed"], name="changed", value=tensor))
    else:
        proto.graph.initializer.append(tensor)
    found(proto, "a_msda").input[index] = "changed"


RIGHT = {"bs": A, "num_queries": K, "num_embed": M * D}


@pytest.mark.parametrize("port", RIGHT)
@pytest.mark.parametrize("place", ["node", "initializer"])
def test_the_place_of_a_scalar(proto, port, place):
    rewire(proto, port, np.array(RIGHT[port]), place)
    assert check(proto) == ([] if place == "node" else [f"a_msda: {port} (changed): expected in place 'constant', got 'initializer'"])


@pytest.mark.parametrize("port", RIGHT)
def test_each_way_in_which_a_scalar_can_be_wrong(proto, small_dl_bytes, port):
    right = RIGHT[port]
    changes = {
        f"expected {right}, got {right + 1}": np.array(right + 1),
        "expected int64 of rank 0, got int32 of shape ()": np.array(right, np.int32),
        "expected int64 of rank 0, got float32 of shape ()": np.array(right, np.float32),
        "expected int64 of rank 0, got int64 of shape (1,)": np.array([right]),
    }
    for message, array in changes.items():
        proto = onnx.ModelProto.FromString(small_dl_bytes)
        rewire(proto, port, array)
        assert check(proto) == [f"a_msda: {port} (changed): {message}"]


@pytest.mark.parametrize("port", RIGHT)
def test_a_scalar_that_is_computed(proto, port):
    found(proto, "a_msda").input[PORTS.index(port)] = "slots"
    findings = check(proto)
    assert findings == [
        f"a_msda: {port} (slots): expected int64 of rank 0, got int64 of shape ({A}, {K})",
        f"a_msda: {port} (slots): expected in place 'constant', got 'value'",
        f"a_msda: {port} (slots): expected {RIGHT[port]}, got no constant",
    ]


def test_num_embed_of_one_head(proto):
    head = with_settings(DL, Settings(num_embed="head"))
    assert [line.split(" (")[0] for line in check(proto, head)] == ["a_msda: num_embed", "b_msda: num_embed"]
    rewire(proto, "num_embed", np.array(D))
    assert check(proto, head) == [f"b_msda: num_embed ({found(proto, 'b_msda').input[7]}): expected {D}, got {M * D}"]


@pytest.mark.parametrize(
    ("port", "array", "message"),
    [
        ("spatial_shapes", np.array([[W, H]]), f"expected {[[H, W]]}, got {[[W, H]]}"),
        ("spatial_shapes", np.array([[H], [W]]), f"expected {[[H, W]]}, got {[[H], [W]]}"),
        ("spatial_shapes", np.array([[H, W]], np.int32), "expected int64 of rank 2, got int32 of shape (1, 2)"),
        ("level_start_index", np.array([1]), "expected [0], got [1]"),
        ("level_start_index", np.array([0], np.int32), "expected int64 of rank 1, got int32 of shape (1,)"),
    ],
)
def test_sizes(proto, port, array, message):
    rewire(proto, port, array)
    assert check(proto) == [f"a_msda: {port} (changed): {message}"]


def test_sizes_that_are_initializers(proto):
    rewire(proto, "spatial_shapes", np.array([[H, W]]), "initializer")
    assert check(proto) == ["a_msda: spatial_shapes (changed): expected in place 'constant', got 'initializer'"]


def set_attribute(name, value, proto, *, old=None, on="conv"):
    target = found(proto, on)
    kept = [each for each in target.attribute if each.name not in (name, old)]
    del target.attribute[:]
    target.attribute.extend(kept + ([] if value is None else [helper.make_attribute(name, value)]))


CONV = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "deform_groups": 1}
ATTRIBUTES = {("a_msda", "im2col_step"): 64} | {("conv", name): value for name, value in CONV.items()}


@pytest.mark.parametrize(("on", "name"), ATTRIBUTES)
def test_each_way_in_which_an_attribute_can_be_wrong(small_dl_bytes, on, name):
    right = ATTRIBUTES[on, name]
    many = isinstance(right, list)
    kind = "ints" if many else "int"
    other, wrong_type, wrong_kind = ([2, 1], 1, "int") if many else (right + 1, [right], "ints")
    cases = [
        (partial(set_attribute, name, None), [f"{on}: attribute {name}: expected {right}, got none"]),
        (partial(set_attribute, name, other), [f"{on}: attribute {name}: expected {kind} {right}, got {kind} {other}"]),
        (partial(set_attribute, name, wrong_type), [f"{on}: attribute {name}: expected {kind} {right}, got {wrong_kind} {wrong_type}"]),
        (
            partial(set_attribute, f"{name}s", right, old=name),
            [f"{on}: attribute {name}: expected {right}, got none", f"{on}: attribute {name}s: expected none of this name, got {right}"],
        ),
        (partial(set_attribute, "extra", 1), [f"{on}: attribute extra: expected none of this name, got 1"]),
    ]
    for change, findings in cases:
        proto = onnx.ModelProto.FromString(small_dl_bytes)
        change(proto, on=on)
        assert check(proto) == findings


def test_a_number_of_another_type(proto):
    set_attribute("im2col_step", 64.0, proto, on="a_msda")
    assert check(proto) == ["a_msda: attribute im2col_step: expected int 64, got float 64.0"]


def test_deform_groups_come_from_the_config(proto):
    assert check(proto, expected=Expected((SIZES, SIZES), 1, 2)) == [
        "conv: attribute deform_groups: expected int 2, got int 1",
        "conv: sizes of the ports: expected sizes that fit together, got G*T*2 = 36 elsewhere, 18 here; G*T = 18 elsewhere, 9 here",
    ]


def test_input_counts(proto):
    last = found(proto, "a_msda").input.pop()
    assert check(proto) == ["a_msda: inputs: expected 8, got 7"]
    found(proto, "a_msda").input.extend([last, last])
    assert check(proto) == ["a_msda: inputs: expected 8, got 9"]


def test_bias_of_the_convolution(proto):
    conv = found(proto, "conv")
    assert check(proto, with_settings(DL, Settings(dcn_bias="input"))) == ["conv: inputs: expected 5, got 4"]
    conv.input.append("beta")
    assert check(proto) == ["conv: inputs: expected 4, got 5"]
    assert check(proto, with_settings(DL, Settings(dcn_bias="input"))) == []
    del conv.input[3:]
    assert check(proto)[0] == "conv: inputs: expected 4 to 5, got 3"


def test_inputs_in_another_order(proto):
    inputs = found(proto, "a_msda").input
    inputs[3], inputs[4] = inputs[4], inputs[3]
    findings = check(proto)
    assert len(findings) == 4 and all(line.startswith("a_msda: ") for line in findings)
    assert f"expected shape {(A, K, M, 1, P, 2)}, got {(A, K, M, 1, P)}" in findings[2]


@pytest.mark.parametrize(("op_type", "domain"), [("MultiscaleDeformableAttnFunction", "DL"), ("MultiScaleDeformableAttnFunction", "dl")])
def test_another_name_or_domain(proto, op_type, domain):
    target = found(proto, "b_msda")
    target.op_type, target.domain = op_type, domain
    assert check(proto) == [
        f"b_msda: expected DL::MultiScaleDeformableAttnFunction or DL::ModulatedDeformConv2d, got {domain}::{op_type}",
        "attention nodes: expected 2, got 1",
    ]


def test_a_convolution_that_is_missing(proto):
    found(proto, "conv").domain = "mmcv"
    assert check(proto) == [
        "conv: expected DL::MultiScaleDeformableAttnFunction or DL::ModulatedDeformConv2d, got mmcv::ModulatedDeformConv2d",
        "deformable convolutions: expected 1, got 0",
    ]


def test_a_dialect_of_standard_operators(proto):
    first, *others = check(proto, dialect.load("standard"))
    assert (first, len(others)) == ("conv: expected standard operators only, got DL::ModulatedDeformConv2d", 2)


@pytest.mark.parametrize(
    ("sizes", "ports"),
    [
        ({"images": A + 1}, {"value", "sampling_locations", "attention_weights", "bs", "output"}),
        ({"slots": K + 1}, {"sampling_locations", "attention_weights", "num_queries", "output"}),
        ({"heads": M + 1}, {"value", "sampling_locations", "attention_weights", "num_embed", "output"}),
        ({"head_width": D + 1}, {"value", "num_embed", "output"}),
        ({"points": P + 1}, {"sampling_locations", "attention_weights"}),
        ({"feat_hw": (H + 1, W)}, {"value", "spatial_shapes"}),
    ],
)
def test_every_size_of_the_config_is_held_against_the_node(proto, sizes, ports):
    findings = check(proto, expected=Expected((SIZES, ExpectedAttention(**{**vars(SIZES), **sizes})), 1, 1))
    assert {line.split(" (")[0] for line in findings} == {f"b_msda: {port}" for port in ports}
    assert len(findings) == len(ports)


def info(proto, name):
    return next(each for each in proto.graph.value_info if each.name == name)


@pytest.mark.parametrize("port", ["sampling_locations", "attention_weights", "value"])
def test_types_of_computed_ports(small_dl_bytes, port):
    for elem_type, name in ((TensorProto.FLOAT16, "float16"), (TensorProto.INT64, "int64")):
        proto = onnx.ModelProto.FromString(small_dl_bytes)
        value = found(proto, "a_msda").input[PORTS.index(port)]
        info(proto, value).type.tensor_type.elem_type = elem_type
        findings = check(proto)
        nodes = {"a_msda", "b_msda"} if port == "value" else {"a_msda"}
        assert {line.split(":")[0] for line in findings} == nodes and len(findings) == len(nodes)
        assert f"a_msda: {port} ({value}): expected float32 of rank" in findings[0] and f"got {name}" in findings[0]


def test_a_port_without_type(proto):
    value = found(proto, "a_msda").output[0]
    proto.graph.value_info.remove(info(proto, value))
    assert check(proto) == [
        f"a_msda: output ({value}): expected float32 of rank 3, got no type of shape None",
        f"a_msda: output ({value}): expected shape {(A, K, M * D)}, got None",
    ]
    assert check_structure(proto, 11, 6, False) == [f"{value}: expected a static shape, got no type None"]


def test_a_dynamic_dimension(proto):
    name = found(proto, "b_msda").output[0]
    info(proto, name).type.tensor_type.shape.dim[1].dim_param = "queries"
    assert check_structure(proto, 11, 6, False) == [f"{name}: expected a static shape, got float32 {(A, -1, M * D)}"]
    assert check(proto) == [f"b_msda: output ({name}): expected shape {(A, K, M * D)}, got {(A, -1, M * D)}"]


def test_facts_of_constants(proto):
    facts = Facts(proto)
    assert facts.types["slots"] == ("int64", (A, K))
    assert facts.types["table"] == ("float32", (V, M * D))
    assert facts.constant("img") is None
    proto.graph.node.append(helper.make_node("Constant", [], ["spelled"], value_ints=[3, 4]))
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    facts = Facts(proto)
    assert facts.constant("spelled").tolist() == [3, 4]
    assert facts.constant(proto.graph.initializer[0].name) is None


@pytest.mark.parametrize("name", ["surroundocc", "surroundocc_inference", "surroundocc_nosemantic"])
def test_what_the_official_configs_expect(name):
    expected = expected_nodes(read_config(CONFIGS / f"{name}.py"), (928, 1600), [19000, 5000, 1000])
    assert (expected.deform_convs, expected.deform_groups, len(expected.attention)) == (26, 1, 10)
    first, *middle = expected.attention
    assert first == ExpectedAttention(6, 19000, 8, 16, 2, (116, 200))
    assert middle[:3] == [ExpectedAttention(6, 5000, 8, 32, 4, (58, 100))] * 3
    assert middle[3:] == [ExpectedAttention(6, 1000, 8, 64, 8, (29, 50))] * 6
    double = expected_nodes(read_config(CONFIGS / f"{name}.py"), (928, 1600), [1, 1, 1], batch=2)
    assert {sizes.images for sizes in double.attention} == {12}
