"""A small canonical network to each dialect at each opset: same values, and everything that a file must have."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F

from lowering_model import unread, untyped
from occport.errors import ExportError
from occport.graph import canonical, dialect
from occport.graph.lint.network import Expected, ExpectedAttention, check_contract
from occport.graph.lint.structure import check_old_operators, check_structure
from occport.graph.opset import ir_version_for
from occport.graph.rewrite import check_target, check_types, to_dialect
from occport.graph.settings import Settings, with_settings
from occport.ops import deform_conv as dcn_op
from occport.ops import msda
from small_graphs import A, C, D, H, K, M, P, W, constant_of, network, operators, run, with_bodies

DL, STANDARD = dialect.load("dl"), dialect.load("standard")
EXPECTED = Expected((ExpectedAttention(A, K, M, D, P, (H, W)),) * 2, 1, 1)


def in_torch(model, feeds):
    """The network once more, written in torch with the graph's own constants."""
    c = {name: torch.from_numpy(value.const_value.numpy().copy()) for name, value in model.graph.initializers.items()}
    img, slots, ref = (torch.from_numpy(feeds[name]) for name in ("img", "slots", "ref_uv"))
    x = img.reshape(A, C, H, W)
    both = F.conv2d(x, c["offset_weight"], c["offset_bias"], padding=1)
    feature = dcn_op.reference(x, both[:, :18], both[:, 18:].sigmoid(), c["conv_weight"], None, (1, 1), (1, 1), (1, 1), 1, 1)
    feature = F.batch_norm(feature, c["mean"], c["variance"], c["gamma"], c["beta"], eps=1e-3)
    value = feature.permute(0, 2, 3, 1).reshape(A, H * W, M, D)
    total = torch.zeros(A, K, M * D)
    for layer in "ab":
        wanted = F.embedding(slots, F.linear(c["table"], c[f"{layer}_weight"], c[f"{layer}_bias"]))
        offsets, scores = wanted[..., : 2 * M * P].reshape(A, K, M, 1, P, 2), wanted[..., 2 * M * P :].reshape(A, K, M, 1, P)
        total += msda.reference(value, [H, W], ref, offsets, scores)
    normal = F.group_norm(total.transpose(1, 2), 2)
    return (normal * c["scale"] + c["shift"]).numpy()


@pytest.fixture(scope="module")
def wanted():
    """What the canonical network gives in ONNX Runtime."""
    model, feeds = network()
    return run(with_bodies(model, STANDARD), feeds)[0]


def test_the_canonical_network_is_what_torch_says(wanted):
    model, feeds = network()
    assert model.opset_imports == {"": 18, canonical.DOMAIN: 1}
    np.testing.assert_allclose(wanted, in_torch(model, feeds), rtol=0, atol=1e-5)


def rewritten(target, opset, functions=False):
    model, feeds = network()
    to_dialect(model, target, opset, functions=functions)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert (untyped(proto), unread(proto)) == ([], [])
    assert [(value.name, value.shape.numpy()) for value in model.graph.inputs] == [(name, array.shape) for name, array in feeds.items()]
    assert [(value.name, value.shape.numpy()) for value in model.graph.outputs] == [("volume", (A, M * D, K))]
    return model, proto, feeds


@pytest.mark.parametrize("bias", ["batchnorm", "add", "input"])
@pytest.mark.parametrize("opset", range(11, 23))
def test_dl(opset, bias, wanted):
    target = with_settings(DL, Settings(dcn_bias=bias))
    model, proto, feeds = rewritten(target, opset)
    np.testing.assert_allclose(run(with_bodies(model, target), feeds)[0], wanted, rtol=0, atol=1e-5)
    assert check_contract(proto, target, EXPECTED) == []
    assert check_structure(proto, opset, ir_version_for(opset), False) == []
    assert check_old_operators(proto, opset) == []
    assert model.opset_imports == {"": opset, "DL": 1}
    custom = [node for node in model.graph if node.domain]
    attention = ("DL", "MultiScaleDeformableAttnFunction")
    assert [(node.domain, node.op_type) for node in custom] == [("DL", "ModulatedDeformConv2d"), attention, attention]
    assert len(custom[0].inputs) == (5 if bias == "input" else 4)
    assert "Div" not in operators(model)  # folded into the linear layers
    assert operators(model).count("BatchNormalization") == (bias == "batchnorm") + (opset < 21)
    assert operators(model).count("GroupNormalization") == (opset >= 21)


@pytest.mark.parametrize("opset", range(16, 23))
def test_dl_with_functions(opset, wanted):
    model, proto, feeds = rewritten(DL, opset, functions=True)
    assert [function.name for function in proto.functions] == ["MultiScaleDeformableAttnFunction", "ModulatedDeformConv2d"]
    assert {function.domain for function in proto.functions} == {"DL"}
    assert all({entry.domain: entry.version for entry in function.opset_import} == {"": opset} for function in proto.functions)
    assert check_structure(proto, opset, ir_version_for(opset), True) == []
    np.testing.assert_allclose(run(proto, feeds)[0], wanted, rtol=0, atol=1e-5)
    without, _, _ = rewritten(DL, opset)
    assert [(node.name, node.op_type) for node in model.graph] == [(node.name, node.op_type) for node in without.graph]


@pytest.mark.parametrize("opset", range(16, 23))
def test_standard(opset, wanted):
    model, proto, feeds = rewritten(STANDARD, opset)
    np.testing.assert_allclose(run(proto, feeds)[0], wanted, rtol=0, atol=1e-5)
    assert model.opset_imports == {"": opset} and not proto.functions
    assert check_contract(proto, STANDARD, EXPECTED) == []
    assert operators(model).count("DeformConv") == (opset >= 19)
    assert "Shape" not in operators(model) and "Constant" not in [node.op_type for node in model.graph]
    assert len({node.name for node in model.graph}) == len(model.graph)
    assert any(node.name.startswith("a_msda_gridsample") for node in model.graph)


def test_sampling_offsets_are_divided_in_the_weights():
    model, _, _ = rewritten(DL, 18)
    original, _ = network()
    (gemm,) = [node for node in model.graph if node.name == "Gemm_a_rows"]
    old = original.graph.initializers["a_weight"].const_value.numpy()
    size = np.tile([W, H], M * P)
    np.testing.assert_allclose(constant_of(gemm.inputs[1])[: 2 * M * P], old[: 2 * M * P] / size[:, None], rtol=1e-6)
    np.testing.assert_array_equal(constant_of(gemm.inputs[1])[2 * M * P :], old[2 * M * P :])


REFUSED = [
    (DL, 10, False, "--opset: expected 11 to 22, got 10"),
    (DL, 23, False, "--opset: expected 11 to 22, got 23"),
    (STANDARD, 10, False, "--opset: expected 11 to 22, got 10"),
    (
        DL, 15, True, "--functions: expected an opset from 16 on, where GridSample is standard, got opset 15; "
        "give --opset 16..22, or leave --functions out",
    ),
    (STANDARD, 20, True, "--functions: expected a dialect with custom nodes, got standard, which has none; leave --functions out"),
    (
        dialect.load("tensorrt"), 17, True, "--functions: expected a dialect whose nodes have a domain, got tensorrt: no body can stand in "
        "ONNX's own; leave --functions out: verification runs a twin of the file in memory",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("target", "opset", "functions", "message"), REFUSED)
def test_combinations_that_cannot_be(target, opset, functions, message):
    with pytest.raises(ExportError) as caught:
        check_target(target, opset, functions)
    assert str(caught.value) == message
    model, _ = network()
    with pytest.raises(ExportError):
        to_dialect(model, target, opset, functions=functions)


@pytest.mark.parametrize("broken", ["dtype", "shape", "dimension"])
def test_an_untyped_value_is_our_own_bug(broken):
    model, _ = network()
    check_types(model)
    value = next(iter(model.graph)).outputs[0]
    if broken == "dtype":
        value.type = None
    else:
        value.shape = None if broken == "shape" else ir.Shape(["n", C, H, W])
    with pytest.raises(AssertionError, match=r"^Reshape_x: x has type"):
        check_types(model)
