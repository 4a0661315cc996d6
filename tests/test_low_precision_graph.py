"""Graphs in 16 bits: what becomes narrow and what stays, and runs whose every number is rounded as NumPy rounds it."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from occport.errors import ExportError
from occport.graph import dialect as dialects
from occport.graph.functions import BEST, Arithmetics
from occport.graph.lint.structure import check_structure
from occport.graph.precision.convert import to_precision
from occport.graph.precision.dialect import in_precision
from occport.graph.precision.emulate import emulate, is_low
from occport.graph.precision.target import check_precision
from occport.graph.precision.types import PRECISIONS, standard_ports
from occport.session import open_session

NUMPY = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def network(weight: np.ndarray, opset: int = 22) -> onnx.ModelProto:
    """img (1, 4, 8, 8) → Conv → Relu → Softmax → Reshape → MatMul → out, and the mean of the Conv."""
    port = helper.make_tensor_value_info
    weights = [
        numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([64, 4]), "s"),
        numpy_helper.from_array(np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32), "m"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["img", "w"], ["conv"], name="net_Conv"),
        helper.make_node("Relu", ["conv"], ["relu"], name="net_Relu"),
        helper.make_node("Softmax", ["relu"], ["soft"], name="net_Softmax", axis=1),
        helper.make_node("Reshape", ["soft", "s"], ["flat"], name="net_Reshape"),
        helper.make_node("MatMul", ["flat", "m"], ["out"], name="net_MatMul"),
        helper.make_node("ArgMax", ["out"], ["labels"], name="net_ArgMax", axis=1, keepdims=0),
        helper.make_node("Mul", ["relu", "relu"], ["square"], name="net_LayerNormalization_square"),
    ]
    graph = helper.make_graph(
        nodes, "g", [port("img", TensorProto.FLOAT, [1, 4, 8, 8])],
        [port("out", TensorProto.FLOAT, [64, 3]), port("labels", TensorProto.INT64, [64]), port("square", TensorProto.FLOAT, [1, 4, 8, 8])],
        weights,
        value_info=[*(port(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("conv", "relu", "soft")), port("flat", 1, [64, 4])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def converted(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    to_precision(graph, precision, dialects.load("standard"))
    return ir.to_proto(graph)


def weight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)


def run(model: onnx.ModelProto, taps: list[str], img: np.ndarray) -> dict[str, np.ndarray]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    types = {info.name: info for info in copy.graph.value_info}
    copy.graph.output.extend(types[name] for name in taps)
    return open_session(copy).run({"img": img})


def image(seed: int = 3) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(1, 4, 8, 8)) * 50).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_everything_becomes_narrow_but_ports_and_what_stands_for_a_layer_norm(precision):
    model = converted(network(weight()), precision)
    types = {info.name: info.type.tensor_type.elem_type for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    assert [types[name] for name in ("img", "out", "labels", "square")] == [1, 1, TensorProto.INT64, 1]
    for name in ("conv", "relu", "soft", "flat"):
        assert types[name] == KINDS[precision], name
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert sorted(kinds.values()) == sorted([KINDS[precision]] * 2 + [TensorProto.INT64])
    (stored,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) == [4, 4, 1, 1])
    np.testing.assert_array_equal(numpy_helper.to_array(stored).astype(np.float32), weight().astype(NUMPY[precision]).astype(np.float32))
    onnx.checker.check_model(model, full_check=True)
    assert check_structure(model, 22, 10, False) == []
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 3  # img down; out up; relu up for the square
    names = [name for node in model.graph.node for name in (node.name, *node.output)]
    assert all(name.isidentifier() for name in names)
    assert converted(network(weight()), precision).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_fp32_changes_nothing():
    model = ir.from_proto(network(weight()))
    assert to_precision(model, "fp32", dialects.load("standard")) is None
    assert not is_low(ir.to_proto(model))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_emulated_run_rounds_every_number(precision):
    model = converted(network(weight()), precision)
    low, wide = onnx.ModelProto(), onnx.ModelProto()
    low.CopyFrom(model)
    wide.CopyFrom(model)
    emulate(low)
    emulate(wide, rounding=False)
    assert not any(info.type.tensor_type.elem_type in KINDS.values() for info in low.graph.value_info)
    taps = ["conv", "relu", "soft", "flat"]
    rounded, exact = run(low, taps, image()), run(wide, taps, image())
    kind = NUMPY[precision]
    for name in (*taps, "out"):
        np.testing.assert_array_equal(rounded[name], rounded[name].astype(kind).astype(np.float32), err_msg=name)
        assert (rounded[name] != exact[name]).any(), name
    # the first node by hand: inputs and weights rounded, computed in float32, rounded
    img, w = (array.astype(kind).astype(np.float32) for array in (image(), weight()[:, :, 0, 0]))
    want = np.einsum("oc,nchw->nohw", w.astype(np.float64), img).astype(np.float32).astype(kind).astype(np.float32)
    apart = np.abs(rounded["conv"] - want)
    assert (apart <= np.abs(want) * PRECISIONS[precision].roundoff * 2).all() and (apart == 0).mean() > 0.98
    # the square stays in float32
    np.testing.assert_array_equal(rounded["square"], rounded["relu"] * rounded["relu"])


def test_a_run_without_rounding_has_the_files_weights():
    model = converted(network(weight()), "bf16")
    emulate(model, rounding=False)
    plain = network(weight().astype(ml_dtypes.bfloat16).astype(np.float32))
    got, want = run(model, ["conv"], image()), run(plain, ["conv"], image())
    np.testing.assert_array_equal(got["conv"], want["conv"])


@settings(deadline=None, max_examples=15)
@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), precision=st.sampled_from(["fp16", "bf16"]))
def test_any_number_is_rounded_as_numpy_does(values, precision):
    """Ties to even, overflow to infinity, subnormals."""
    port, kind = helper.make_tensor_value_info, KINDS[precision]
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], name="a", to=kind), helper.make_node("Abs", ["low"], ["abs"], name="b"),
        helper.make_node("Cast", ["abs"], ["y"], name="c", to=TensorProto.FLOAT),
    ]  # fmt: skip
    size = [len(values)]
    graph = helper.make_graph(
        nodes, "g", [port("x", TensorProto.FLOAT, size)], [port("y", TensorProto.FLOAT, size)],
        value_info=[port("low", kind, size), port("abs", kind, size)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    emulate(model)
    x = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        want = np.abs(x.astype(NUMPY[precision]).astype(np.float32))
    np.testing.assert_array_equal(open_session(model).run({"x": x})["y"], want)


def test_a_weight_beyond_fp16_is_refused_and_named():
    big = weight()
    big[1, 2] = -70_000
    with pytest.raises(ExportError, match=r"weight w: expected at most 65,504, the largest float16, got 70,000; bf16"):
        converted(network(big), "fp16")
    assert is_low(converted(network(big), "bf16"))


def test_weights_that_vanish_are_counted():
    small = weight()
    small[0] = 1e-9
    graph = ir.from_proto(network(small))
    found = to_precision(graph, "fp16", dialects.load("standard"))
    assert found is not None and found.flushed == 4 and found.weights == 28
    assert found.described == "5 nodes in 16 bits, 1 in float32; 4 of 28 weights became 0"


@pytest.mark.parametrize(
    ("op_type", "opset", "precision", "want"),
    [
        ("Conv", 11, "fp16", ((True, True, True), (True,))),
        ("Conv", 21, "bf16", None),
        ("Conv", 22, "bf16", ((True, True, True), (True,))),
        ("Resize", 13, "fp16", ((True, False, False, False), (True,))),  # roi and scales have types of their own
        ("GridSample", 20, "fp16", ((True, False), (True,))),
        ("ArgMax", 13, "fp16", ((True,), (False,))),
        ("BatchNormalization", 15, "fp16", ((True, False, False, False, False), (True, False, False))),
    ],
)
def test_ports_are_those_of_onnxs_schemas(op_type, opset, precision, want):
    got = standard_ports(op_type, opset, PRECISIONS[precision].dtype)
    assert (got and (got.inputs, got.outputs)) == want


def test_a_concat_takes_any_number_of_narrow_inputs():
    got = standard_ports("Concat", 13, PRECISIONS["fp16"].dtype)
    assert got is not None and got.takes(0) and got.takes(7)


def test_a_dialects_contracts_have_the_types_of_its_kernels():
    dl, mmcv, ascend = (dialects.load(name) for name in ("dl", "mmcv", "ascend"))
    low = in_precision(dl, "fp16").msda.inputs
    assert {port.form: port.dtype for port in low if "int" not in port.dtype} == {
        "value": "float16", "sampling_locations": "float32", "attention_weights": "float16",
    }  # fmt: skip
    assert in_precision(dl, "bf16").dcn.output.dtype == "bfloat16"
    assert in_precision(mmcv, "fp16") == mmcv and in_precision(dl, "fp32") is dl
    low = in_precision(ascend, "bf16")
    assert low.msda.output.dtype == "bfloat16" and low.dcn.output.dtype == "float32"
    assert dialects.from_table(dialects.to_table(low), "x") == low


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("fp8", "dl", 11, False, BEST), "expected one of fp32, fp16, bf16"),
        (("bf16", "dl", 11, False, BEST), "opset 22, from which on convolutions have bfloat16, got opset 11"),
        (("fp16", "dl", 17, True, BEST), "without --functions"),
        (("fp16", "standard", 18, False, BEST), "--msda gridsample --dcn deformconv in dialect standard"),
        (("fp16", "standard", 20, False, Arithmetics("gather", "")), "got --msda gather"),
    ],
)
def test_what_cannot_be_is_refused(arguments, fragment):
    precision, name, opset, functions, arithmetics = arguments
    with pytest.raises(ExportError) as error:
        check_precision(precision, dialects.load(name), opset, functions, arithmetics)
    assert fragment in str(error.value)


@pytest.mark.parametrize("value", ['["float16"]', '["float32", "int8"]', '"float16"', "[1]"])
def test_a_dialects_dtypes_are_checked(value, tmp_path):
    path = tmp_path / "d.toml"
    path.write_text(f'base = "dl"\n[msda]\ndtypes = {value}\n')
    with pytest.raises(ExportError, match=r"msda\.dtypes"):
        dialects.load(str(path))


def test_a_port_can_stay_wide(tmp_path):
    path = tmp_path / "d.toml"
    table = dialects.to_table(dialects.load("tensorrt"))
    inputs = [{**port, "wide": port["form"] == "sampling_locations"} for port in table["msda"]["inputs"]]
    rows = [", ".join(f"{key} = {json.dumps(value)}" for key, value in port.items()) for port in inputs]
    path.write_text(f'base = "tensorrt"\n[msda]\ninputs = [{", ".join(f"{{{row}}}" for row in rows)}]\n')
    low = in_precision(dialects.load(str(path)), "fp16")
    assert [port.dtype for port in low.msda.inputs if port.form in ("value", "sampling_locations")] == ["float16", "float32"]
