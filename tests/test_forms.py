"""Forms: arrays there and back, and the body of every contract on what its ports hold, against the operators in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from occport.graph import dialect, forms, port_arrays
from occport.graph.arithmetic import Arrays
from occport.graph.attributes import Window, lower_window
from occport.graph.functions import functions_for
from occport.graph.opset import ir_version_for
from occport.graph.twin import to_twin
from occport.ops import deform_conv, msda
from small_graphs import random, run

INVENTED = Path(__file__).with_name("invented.toml")
DIALECTS = {name: dialect.load(name) for name in dialect.names() if name != "standard"} | {"invented": dialect.read(INVENTED)}
WINDOW = Window((3, 2), (2, 2), (1, 1), (1, 1), 2, 2)
LEVELS = {"one": [(3, 5)], "two": [(4, 3), (2, 6)]}
SHARED = ("bevformer_tensorrt", "bevformer_tensorrt_trt2")  # one reference point for all levels


def attention(levels: str, *, points: int = 2) -> dict[str, np.ndarray]:
    """Quantities of a wide attention node."""
    sizes = np.array(LEVELS[levels])
    L, A, Q, M, D = len(sizes), 2, 7, 3, 4
    return {
        "value": random(A, int(sizes.prod(1).sum()), M, D), "spatial_shapes": sizes,
        "level_start_index": np.concatenate([[0], sizes.prod(1).cumsum()[:-1]]),
        "reference_points": random(A, Q, L, 2, scale=0.6) + np.float32(0.5), "sampling_offsets": random(A, Q, M, L, points, 2, scale=3),
        "attention_logits": random(A, Q, M, L, points, scale=2),
    }  # fmt: skip


def conv(*, bias: bool) -> dict[str, np.ndarray]:
    """Quantities of a deformable convolution with `WINDOW`: 4 channels, 6 output channels, 7 x 9 maps."""
    G, T, size = WINDOW.deform_groups, 6, (4, 5)
    arrays = {"input": random(2, 4, 7, 9), "offset": random(2, G * T * 2, *size, scale=2), "mask": np.abs(random(2, G * T, *size))}
    return arrays | {"weight": random(6, 2, 3, 2)} | ({"bias": random(6)} if bias else {})


def close(got, want) -> None:
    np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=0, atol=2e-6)


def run_body(contract, target, ports: dict[str, np.ndarray], attributes: dict, opset: int) -> np.ndarray:
    """One node of the contract with its body in ONNX Runtime; scalars and sizes are constants."""
    constant = [port.name for port in contract.inputs if port.name in ports and port.form in forms.NUMBERS]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in ports.items()
    ]
    names = [port.name if port.name in ports else "" for port in contract.inputs]
    while not names[-1]:
        names.pop()
    node = helper.make_node(contract.op_type, names, ["out"], name="node", domain=contract.domain, **attributes)
    graph = helper.make_graph(
        [node], "one", [value for value in values if value.name not in constant], [helper.make_tensor_value_info("out", 1, None)],
        [onnx.numpy_helper.from_array(ports[name], name) for name in constant],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    imports += [helper.make_opsetid(contract.domain, contract.version)] if contract.domain else []
    model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=max(8, ir_version_for(opset))))
    for name in ports:
        if name in constant:
            model.graph.initializers[name].shape = ir.Shape(ports[name].shape)
    to_twin(model, target)
    for function in functions_for(model, target, opset):
        model.functions[function.identifier()] = function
    return run(model, {name: array for name, array in ports.items() if name not in constant})[0]


@pytest.mark.parametrize("opset", [11, 13, 18, 22])
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", DIALECTS)
def test_attention_of_every_dialect(name, levels, opset):
    target, quantities = DIALECTS[name], attention(levels)
    if name in SHARED and levels == "two":
        with pytest.raises(KeyError, match="reference_points_shared"):
            port_arrays.lower_arrays(target.msda, quantities)
        return
    ports = port_arrays.lower_arrays(target.msda, quantities)
    assert [(ports[port.name].dtype, ports[port.name].ndim) for port in target.msda.inputs] == [
        (np.dtype(port.dtype), port.rank) for port in target.msda.inputs
    ]
    attributes = {attribute.name: attribute.default for attribute in target.msda.attributes}
    got = port_arrays.raise_output(target.msda, run_body(target.msda, target, ports, attributes, opset))
    tensors = [torch.from_numpy(quantities[key]) for key in ("value", "reference_points", "sampling_offsets", "attention_logits")]
    flat = [int(size) for size in quantities["spatial_shapes"].reshape(-1)]
    want = msda.reference(tensors[0], flat, *tensors[1:]).numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    split = port_arrays.lower_output(target.msda, want, quantities)
    assert split.ndim == target.msda.output.rank
    np.testing.assert_array_equal(port_arrays.raise_output(target.msda, split), want)


@pytest.mark.parametrize("opset", [11, 16, 19])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", DIALECTS)
def test_convolution_of_every_dialect(name, bias, opset):
    target, quantities = DIALECTS[name], conv(bias=bias)
    ports = port_arrays.lower_arrays(target.dcn, quantities)
    got = run_body(target.dcn, target, ports, lower_window(target.dcn, WINDOW), opset)
    tensors = [torch.from_numpy(quantities[key]) for key in ("input", "offset", "mask", "weight")]
    want = deform_conv.reference(*tensors, torch.from_numpy(quantities["bias"]) if bias else None, *WINDOW[1:])
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", DIALECTS)
def test_attention_arrays_there_and_back(name, levels):
    contract, quantities = DIALECTS[name].msda, attention(levels)
    if name in SHARED and levels == "two":
        return
    found = port_arrays.raise_arrays(contract, port_arrays.lower_arrays(contract, quantities))
    wide = any(port.form == "reference_points_shared" for port in contract.inputs)
    narrow = {"value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights"}
    assert set(found) == (set(quantities) if wide else narrow)
    known = forms.Raised(quantities, Arrays(len(LEVELS[levels])))
    for quantity, array in found.items():
        close(array, known.get_or_none(quantity))


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", DIALECTS)
def test_convolution_arrays_there_and_back(name, bias):
    contract, quantities = DIALECTS[name].dcn, conv(bias=bias)
    found = port_arrays.raise_arrays(contract, port_arrays.lower_arrays(contract, quantities))
    needs_bias = any(port.form == "bias" and not port.optional for port in contract.inputs)
    want = quantities | ({"bias": np.zeros(6)} if needs_bias and not bias else {})
    assert set(found) == set(want)
    for quantity, array in found.items():
        np.testing.assert_array_equal(array, want[quantity])


def test_points_take_shared_reference_points_in_turn():
    """Four reference points and eight points: point p looks from number p mod 4, as BEVFormer's spatial attention has it."""
    contract, A, Q, M, P, R = DIALECTS["bevformer_tensorrt"].msda, 2, 7, 3, 8, 4
    ports = port_arrays.lower_arrays(contract, attention("one", points=P))
    ports["reference_points"] = random(A, Q, 1, 2 * R, scale=0.3) + np.float32(0.5)
    found = port_arrays.raise_arrays(contract, ports)
    offsets = ports["sampling_offsets"].reshape(A, Q, M, 1, P, 2).astype(np.float64)
    for p in range(P):
        reference = ports["reference_points"][:, :, 0, 2 * (p % R) : 2 * (p % R) + 2]
        close(found["sampling_locations"][..., 0, p, :], reference[:, :, None] + offsets[..., 0, p, :] / [5, 3])
    got = port_arrays.raise_output(contract, run_body(contract, DIALECTS["bevformer_tensorrt"], ports, {}, 17))
    weights = torch.softmax(torch.from_numpy(ports["attention_weights"]), -1).reshape(A, Q, M, 1, P)
    locations = torch.from_numpy(found["sampling_locations"]).float()
    want = msda.sample_weighted(torch.from_numpy(ports["value"]), [3, 5], locations, weights)
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-5)


def test_packed_offsets_are_all_dx_then_all_dy_then_the_mask():
    quantities = conv(bias=False)
    packed = port_arrays.lower_arrays(DIALECTS["ascend"].dcn, quantities)["offset"]
    np.testing.assert_array_equal(
        packed, np.concatenate([quantities["offset"][:, 1::2], quantities["offset"][:, ::2], quantities["mask"]], 1)
    )


def test_scalars_hold_sizes():
    ports = port_arrays.lower_arrays(DIALECTS["dl"].msda, attention("two"))
    assert [int(ports[name]) for name in ("bs", "num_queries", "num_embed")] == [2, 7, 12]
    assert port_arrays.lower_arrays(DIALECTS["invented"].msda, attention("two"))["width"].tolist() == [4]


def test_what_is_not_there_is_named():
    quantities = attention("one")
    del quantities["attention_logits"]
    quantities["attention_weights"] = random(2, 7, 3, 1, 2)
    with pytest.raises(KeyError, match="attention_logits"):
        port_arrays.lower_arrays(DIALECTS["bevformer_tensorrt"].msda, quantities)


def test_every_form_says_what_it_holds():
    for name, form in forms.PORT_FORMS.items():
        assert form.what and form.operator in ("msda", "dcn", "output") and (form.shape or name in forms.SCALARS), name
