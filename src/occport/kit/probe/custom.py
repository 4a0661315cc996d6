"""Tiny models of the two custom nodes, each of one node alone or with what follows it in the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from ...graph import canonical
from ...graph.attributes import Window, lower_window
from ...graph.contract import Contract, Port
from ...graph.dialect import Dialect
from ...graph.forms import NUMBERS
from ...graph.functions import Arithmetics, functions_for
from ...graph.port_arrays import lower_arrays
from .small import Arrays, Small, node, random, run, standard, typed

A, M, D, Q, P = 2, 4, 8, 40, 4  # images, heads, head width, queries, points: within every built-in dialect's limits
H, W = 6, 9
C, O = 8, 16  # noqa: E741 - the letters of the forms
WINDOW = Window((3, 3), (1, 1), (1, 1), (1, 1), 1, 1)  # the network's own
TAPS = 9


@cache
def attention_quantities() -> dict[str, np.ndarray]:
    """What the canonical wide node computes with, and its output; locations inside, on and outside of the border."""
    shapes = np.array([[H, W]], np.int64)
    inputs = {
        "value": random(A, H * W, M, D),
        "reference_points": random(A, Q, 1, 2, scale=0.3) + np.float32(0.5),
        "sampling_offsets": random(A, Q, M, 1, P, 2, scale=2),
        "attention_logits": random(A, Q, M, 1, P, scale=2),
    }
    constants = {"spatial_shapes": shapes, "level_start_index": np.zeros(1, np.int64)}
    made = node(canonical.MSDA, canonical.MSDA_INPUTS, "output", domain=canonical.DOMAIN)
    small = standard([made], inputs, {"output": "float32"}, constants, 11, Arithmetics("gather", "gather"), {"output": (A, Q, M * D)})
    return {**inputs, **constants, **small.outputs}


@cache
def conv_quantities() -> dict[str, np.ndarray]:
    """Inputs of a deformable convolution without bias."""
    return {
        "input": random(A, C, H, W),
        "offset": random(A, 2 * TAPS, H, W, scale=1.5),
        "mask": np.abs(random(A, TAPS, H, W, scale=0.3)),
        "weight": random(O, C, 3, 3, scale=0.2),
    }


def attention(base: Dialect, contract: Contract, opset: int) -> Small:
    """The attention node of a contract: its numbers are constants, everything else is an input of the graph in the port's own form."""
    quantities = {name: array for name, array in attention_quantities().items() if name != "output"}
    held = lower_arrays(contract, quantities)
    attributes = {one.name: one.default for one in contract.attributes}
    shape = (A, Q, M, D) if contract.output.form == "heads_split" else (A, Q, M * D)
    return _one_node(replace(base, msda=contract), contract, held, attributes, shape, opset)


def convolution(base: Dialect, contract: Contract, opset: int) -> Small:
    """The deformable convolution of a contract, with a bias only where the port must be there."""
    held = lower_arrays(contract, conv_quantities())
    return _one_node(replace(base, dcn=contract), contract, held, lower_window(contract, WINDOW), (A, O, H, W), opset)


def convolution_with_bias(base: Dialect, bias: str, opset: int) -> Small:
    """The deformable convolution and what follows it: "batchnorm", "add", or nothing and a bias as its own "input"; then Relu."""
    assert base.dcn is not None
    quantities = conv_quantities()
    if bias == "input":
        quantities = {**quantities, "bias": random(O)}
    small = convolution_of(base, quantities, opset)
    vectors = {"scale": np.abs(random(O)) + np.float32(0.5), "shift": random(O), "mean": random(O), "variance": np.abs(random(O)) + 1}
    added = {"shift": random(1, O, 1, 1)}
    behind, constants = {
        "batchnorm": ([node("BatchNormalization", ["out", *vectors], "normal", {"epsilon": 1e-5})], vectors),
        "add": ([node("Add", ["out", "shift"], "normal")], added),
        "input": ([], {}),
    }[bias]
    return _followed(base, small, [*behind, node("Relu", ["normal" if behind else "out"], "y")], constants)


def convolution_of(base: Dialect, quantities: Arrays, opset: int) -> Small:
    """The base dialect's convolution of these quantities."""
    assert base.dcn is not None
    held = lower_arrays(base.dcn, quantities)
    return _one_node(base, base.dcn, held, lower_window(base.dcn, WINDOW), (A, O, H, W), opset)


def with_function(base: Dialect, operator: str, opset: int) -> Small:
    """The base dialect's node of an operator, and its body as a function in the file."""
    assert base.msda is not None and base.dcn is not None
    small = attention(base, base.msda, opset) if operator == "msda" else convolution(base, base.dcn, opset)
    forms = Arithmetics("gridsample", "gridsample")
    small.model.functions.extend(ir.to_proto(one) for one in functions_for(ir.from_proto(small.model), base, opset, forms))
    return small


def unknown(opset: int) -> Small:
    """A node that no compiler can know: whoever takes it takes everything."""
    x = random(2, 5)
    graph = helper.make_graph([node("NoSuchOperator", ["x"], "y", domain="nowhere")], "probe", [typed("x", x)], [typed("y", x)])
    return Small(helper.make_model(graph, opset_imports=_imports(opset, "nowhere", 1)), {"x": x}, {"y": x})


def attention_in_standard(form: str, opset: int) -> Small:
    """The attention by standard operators, in a form of `graph/bodies`, from locations and softmaxed weights."""
    quantities = attention_quantities()
    w = lower_arrays(canonical.SAMPLED_CONTRACT, quantities)
    inputs = {name: w[name].astype(np.float32) for name in ("value", "sampling_locations", "attention_weights")}
    constants = {name: quantities[name] for name in ("spatial_shapes", "level_start_index")}
    made = node(canonical.SAMPLED, canonical.SAMPLED_INPUTS, "y", domain=canonical.DOMAIN)
    return standard([made], inputs, {"y": "float32"}, constants, opset, Arithmetics(form, ""), {"y": (A, Q, M * D)})


def convolution_in_standard(form: str, opset: int) -> Small:
    """The deformable convolution by standard operators, in a form of `graph/bodies`."""
    quantities = conv_quantities()
    inputs = {name: array for name, array in quantities.items() if name != "weight"}
    attributes = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "deform_groups": 1}
    made = node(canonical.DCN, canonical.DCN_INPUTS[:4], "y", attributes, canonical.DOMAIN)
    weight = {"weight": quantities["weight"]}
    return standard([made], inputs, {"y": "float32"}, weight, opset, Arithmetics("", form), {"y": (A, O, H, W)})


def _one_node(
    base: Dialect, contract: Contract, held: Arrays, attributes: Mapping[str, Any], shape: tuple[int, ...], opset: int
) -> Small:
    """One node of a contract. `base` is the dialect with this contract in it."""
    ports = {port.name: port for port in contract.inputs}
    constants = {name: array for name, array in held.items() if ports[name].form in (*NUMBERS, "weight", "bias")}
    inputs = {name: array for name, array in held.items() if name not in constants}
    spelled = [name for name in constants if _is_constant_node(ports[name])]
    nodes = [node("Constant", [], name, {"value": numpy_helper.from_array(constants[name], name)}) for name in spelled]
    nodes.append(node(contract.op_type, list(held), "out", attributes, contract.domain))
    graph = helper.make_graph(
        nodes, "probe", [typed(name, array) for name, array in inputs.items()],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name not in spelled],
        value_info=[typed(name, constants[name]) for name in spelled],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=_imports(opset, contract.domain, contract.version))
    return Small(model, inputs, run(model, base, inputs))


def _followed(base: Dialect, small: Small, nodes: list[onnx.NodeProto], constants: Arrays) -> Small:
    """The same with nodes behind it that end in `y`; every value in between has the output's shape."""
    graph = small.model.graph
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items())
    between = list(graph.output)
    del graph.output[:]
    for one in nodes[:-1]:
        between.append(typed(one.output[0], small.outputs["out"]))
    graph.value_info.extend(between)
    graph.output.append(typed("y", small.outputs["out"]))
    return small._replace(outputs=run(small.model, base, small.inputs))


def _is_constant_node(port: Port) -> bool:
    return port.form in NUMBERS and port.place == "constant"


def _imports(opset: int, domain: str, version: int) -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, version)] if domain else [])]
