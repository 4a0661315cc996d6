"""The opset of a whole model: a torch module through every opset, functions, other domains, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from onnx.helper import make_node
from torch import nn

from lowering_model import assert_every_opset, build, convert, ops, run
from occport.errors import ExportError
from occport.graph.lowering.old_exporter import ops_unknown_to_old_exporter
from occport.graph.lowering.schema_check import Violation, check_nodes_against_schema, first_opset
from occport.graph.opset import LOWERINGS, OPSETS, convert_opset, ir_version_for


class Small(nn.Module):
    """Every kind of layer the network has, and its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.groups = nn.GroupNorm(4, 8)
        self.up, self.groups3d = nn.ConvTranspose3d(2, 4, 2, stride=2, bias=False), nn.GroupNorm(2, 4)
        self.layers, self.table = nn.LayerNorm(8), nn.Embedding(20, 8)

    def forward(self, x, index):
        fine = F.relu(self.groups(self.norm(self.conv(x))))  # (1, 8, 12, 16)
        coarse = F.max_pool2d(fine, 3, 2, 1)
        merged = fine + F.interpolate(coarse, size=fine.shape[2:], mode="nearest") + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        volume = self.groups3d(self.up(coarse.reshape(1, 2, 4, 6, 8)))  # (1, 4, 8, 12, 16)
        tokens = self.layers(coarse.flatten(2).permute(0, 2, 1))  # (1, 48, 8)
        left, right = torch.split(tokens, [3, 5], -1)
        first, second = tokens.chunk(2, 1)
        hit = (index > 3) & (index <= 15)
        count = torch.cumsum(hit.long(), 0)
        slot = torch.where(hit, count, torch.zeros_like(count)).clamp(max=4)
        places = torch.zeros(6, dtype=torch.int64).scatter(0, slot, index)
        taken = self.table(places.clamp(0, 19)[None]).gather(1, torch.ones(1, 2, 8, dtype=torch.int64))
        seen = 1.0 / torch.clamp(hit.sum(), min=1).float()
        soft = torch.softmax(tokens, 1) + torch.softmax(tokens, -1)
        reduced = (left.sum(-1) - right.amax(-1), tokens.norm(dim=-1), tokens.mean((0, 2)), volume.argmax(1))
        products = (taken * seen, first * torch.clamp(second, min=1e-5))
        return *reduced, *products, merged, soft, volume, torch.maximum(count, slot), places, (index >= 2) & ~hit, hit.any()


@pytest.fixture(scope="module")
def exported():
    """The module as torch exports it at opset 18, its inputs, and what torch says."""
    torch.manual_seed(3)
    module = Small().eval()
    with torch.no_grad():
        for norm in (module.norm, module.groups, module.groups3d, module.layers):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
        module.norm.running_mean.normal_()
    image, index = torch.randn(1, 3, 12, 16), torch.arange(10) * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, (image, index), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    with torch.no_grad():
        want = [output.numpy() for output in module(image, index)]
    return ir.to_proto(program.model), {"x": image.numpy(), "index": index.numpy()}, want


@pytest.mark.parametrize("opset", OPSETS)
def test_a_torch_module_at_every_opset(exported, opset):
    model, feeds, want = exported
    assert {entry.version for entry in model.opset_import if not entry.domain} == {18}
    made = convert(model, opset)
    for got, right in zip(run(made, feeds), want, strict=True):
        assert (got.dtype, got.shape) == (right.dtype, right.shape)
        np.testing.assert_allclose(got, right, rtol=0, atol=1e-5)
    assert [output.name for output in made.graph.output] == [output.name for output in model.graph.output]
    assert ops(made).get("GroupNormalization", 0) == (2 if opset >= 21 else 0)
    assert ops(made).get("LayerNormalization", 0) == (1 if opset >= 17 else 0)


def test_at_11_only_operators_of_its_time_are_left(exported):
    made = convert(exported[0], 11)
    assert set(ops_unknown_to_old_exporter(ir.from_proto(made))) <= {"Reciprocal"}


def test_helpers_carry_the_names_and_metadata_of_what_they_replace(exported):
    made = convert(exported[0], 11)
    parts = [node for node in made.graph.node if node.name.startswith("node_layer_norm")]
    assert len(parts) == 9
    scopes = [{entry.key: entry.value for entry in node.metadata_props}["pkg.torch.onnx.name_scopes"] for node in parts]
    assert len(set(scopes)) == 1 and "layers" in scopes[0]
    names = [name for node in made.graph.node for name in node.output] + [tensor.name for tensor in made.graph.initializer]
    assert len(names) == len(set(names))


def test_twice_is_once(exported):
    model, feeds, _ = exported
    down = convert(convert(model, 22), 18)
    assert ops(down) == ops(convert(model, 18))
    assert convert(down, 11).graph.node[-1].op_type == convert(model, 11).graph.node[-1].op_type
    assert_every_opset(down, feeds, tolerance=1e-5)


X = np.float32([[1, -2, 3]])


def with_custom_domain(body_opset=18):
    """A node of domain `occport` whose body sums, splits and takes the larger; a Sqrt behind it."""
    body = [
        helper.make_node("Constant", [], ["axes"], value_ints=[1]),
        helper.make_node("ReduceSum", ["a", "axes"], ["s"], name="sum", keepdims=1),
        helper.make_node("Constant", [], ["pieces"], value=helper.make_tensor("pieces", 7, [2], [1, 2])),
        helper.make_node("Split", ["a", "pieces"], ["p", "q"], name="pieces", axis=1),
        helper.make_node("Max", ["s", "p"], ["b"], name="last"),
    ]
    function = helper.make_function("occport", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", body_opset)])
    nodes = [helper.make_node("Twice", ["x"], ["y"], name="custom", domain="occport"), helper.make_node("Sqrt", ["y"], ["z"], name="root")]
    infos = {name: helper.make_tensor_value_info(name, 1, [1, width]) for name, width in (("x", 3), ("y", 1), ("z", 1))}
    graph = helper.make_graph(nodes, "small", [infos["x"]], [infos["z"]], value_info=[infos["y"]])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("occport", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)


@pytest.mark.parametrize("opset", OPSETS)
def test_functions_are_converted_too(opset):
    inside = ir.from_proto(with_custom_domain())
    convert_opset(inside, opset)
    proto = ir.to_proto(inside)
    assert [{entry.domain: entry.version for entry in part.opset_import}[""] for part in (proto, proto.functions[0])] == [opset, opset]
    assert proto.graph.node[0].op_type == "Twice" and proto.graph.node[0].domain == "occport"
    onnx.checker.check_model(proto, full_check=True)
    np.testing.assert_array_equal(run(proto, {"x": X})[0], np.sqrt(np.maximum(X.sum(1, keepdims=True), X[:, :1])))
    assert len([node for node in proto.functions[0].node if node.op_type == "Constant"]) == (2 if opset >= 13 else 0)


def test_functions_of_another_opset_are_refused():
    with pytest.raises(ExportError, match="function occport::Twice: expected opset 18, as in the model, got opset 17; convert"):
        convert_opset(ir.from_proto(with_custom_domain(body_opset=17)), 11)


def test_constants_inside_a_function_are_nodes():
    body = [helper.make_node("CastLike", ["a", "a"], ["b"])]
    function = helper.make_function("occport", "F", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    proto = with_custom_domain()
    proto.functions.append(function)
    with pytest.raises(ExportError, match="expected a second input of known type, got an unknown type"):
        convert_opset(ir.from_proto(proto), 14)
    proto = with_custom_domain()
    proto.functions[0].node.insert(0, helper.make_node("Shape", ["a"], ["rows"], name="rows", start=0, end=1))
    proto.functions[0].node.append(helper.make_node("Identity", ["rows"], ["unused"]))
    inside = ir.from_proto(proto)
    convert_opset(inside, 14)
    constants = {node.name for node in ir.to_proto(inside).functions[0].node if node.op_type == "Constant"}
    assert {"rows_start", "rows_end", "rows_axis"} <= constants


def test_subgraphs_are_converted_too():
    def branch(value):
        axes = helper.make_tensor(f"axes_{value}", 7, [1], [1])
        made = helper.make_node("ReduceSum", ["x", f"axes_{value}"], [value], name=f"sum_{value}", keepdims=1)
        return helper.make_graph([made], value, [], [helper.make_tensor_value_info(value, 1, [1, 1])], [axes])

    chosen = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch("p"), else_branch=branch("q"))
    feeds = {"x": X, "c": np.array(True)}
    made = assert_every_opset(build([chosen], feeds, ["y"]), feeds)
    branches = [attribute.g for attribute in made[11].graph.node[0].attribute]
    assert [[list(one.node[0].input), len(one.initializer)] for one in branches] == [[["x"], 0], [["x"], 0]]


def test_an_initializer_that_is_an_input_is_no_constant():
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], name="sum")], "small",
        [helper.make_tensor_value_info("x", 1, [1, 3]), helper.make_tensor_value_info("axes", 7, [1])],
        [helper.make_tensor_value_info("y", 1, [1, 1])], [helper.make_tensor("axes", 7, [1], [1])],
    )
    with pytest.raises(ExportError, match=r"node 'sum' \(ReduceSum\): expected constant axes, got values that are computed"):
        convert_opset(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])), 11)


@pytest.mark.parametrize("opset", [10, 23])
def test_opsets_outside_are_refused(opset):
    model = ir.from_proto(build([helper.make_node("Neg", ["x"], ["y"])], {"x": X}, ["y"]))
    with pytest.raises(ExportError, match=f"opset: expected 11 to 22, got {opset}; choose another with --opset"):
        convert_opset(model, opset)
    with pytest.raises(ExportError, match=f"got {opset}"):
        ir_version_for(opset)


def test_models_of_another_opset_are_refused():
    with pytest.raises(ExportError, match="opset of the model: expected 18 to 22, got 17; export it at opset 18 first"):
        convert_opset(ir.from_proto(build([helper.make_node("Neg", ["x"], ["y"])], {"x": X}, ["y"], opset=17)), 11)


def test_ir_versions():
    assert [ir_version_for(opset) for opset in OPSETS] == [6, 7, 7, 7, 8, 8, 8, 8, 9, 9, 10, 10]


@pytest.mark.parametrize(
    ("node", "opset", "reason"),
    [
        (make_node("Einsum", ["x", "x"], ["y"], name="n", equation="ij,ij->ij"), 11, "the operator appeared at opset 12"),
        (make_node("BitwiseNot", ["i"], ["y"], name="n"), 17, "the operator appeared at opset 18"),
        (make_node("IsInf", ["x"], ["y"], name="n", detect_all=1), 18, "attribute 'detect_all' is not one of version 10"),
        (make_node("Concat", ["x", "x"], ["y"], name="n"), 18, "attribute 'axis' is missing"),
        (make_node("Concat", ["x", "x"], ["y"], name="n", axis=1.5), 18, "attribute 'axis' must be INT, not FLOAT"),
        (make_node("Neg", ["x", "x"], ["y"], name="n"), 18, "2 inputs, where version 13 has 1 to 1"),
        (make_node("Neg", ["x"], ["y", "z"], name="n"), 18, "2 outputs, where version 13 has 1 to 1"),
        (make_node("Resize", ["x", "", "x"], ["y"], name="n"), 11, "input 'roi' is missing"),
        (make_node("Max", ["i", "i"], ["y"], name="n"), 11, "input 'data_0' cannot be tensor(int64) in version 8"),
        (make_node("Add", ["x", "i"], ["y"], name="n"), 18, "input 'B' is tensor(int64), where another of the same type is tensor(float)"),
        (make_node("Upsample", ["x", "x"], ["y"], name="n"), 18, "the operator is deprecated since opset 10"),
        (make_node("Nonsense", ["x"], ["y"], name="n"), 18, "no ONNX operator has this name"),
        (make_node("GridSample", ["x", "x"], ["y"], name="n", mode="linear"), 19, "attribute 'mode' cannot be 'linear' at opset 19"),
        (make_node("Neg", ["untyped"], ["y"], name="n"), 18, "input 'untyped' has no type"),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)  # fmt: skip
def test_what_the_schemas_do_not_allow(node, opset, reason):
    kinds = {"x": 1, "i": 7}
    out = kinds["i" if "i" in node.input and node.op_type != "Add" else "x"]
    infos = [helper.make_tensor_value_info(name, out, [1]) for name in node.output]
    hidden = helper.make_node("Custom", [], ["untyped"], domain="occport")
    given = [helper.make_tensor_value_info(name, kind, [1]) for name, kind in kinds.items()]
    graph = helper.make_graph([hidden, node], "small", given, infos)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    found = check_nodes_against_schema(model, opset)
    assert Violation("n", node.op_type, reason) in found
    assert f"node 'n' ({node.op_type}): {reason}" in map(str, found)


def test_a_violation_that_is_left_is_one_line():
    nodes = [helper.make_node("Einsum", ["x", "x"], [name], name=f"node_{name}", equation="ij,ij->ij") for name in "yz"]
    model = ir.from_proto(build(nodes, {"x": X}, ["y", "z"]))
    with pytest.raises(ExportError) as caught:
        convert_opset(model, 11)
    assert str(caught.value) == (
        "node 'node_y' (Einsum) and 1 more: expected an operator as opset 11 has it, got the operator appeared at opset 12; "
        "choose a later opset, or another form of this operator"
    )


def test_the_table_runs_from_new_to_old():
    versions = [step.version for step in LOWERINGS]
    assert versions == sorted(versions, reverse=True)
    for step in LOWERINGS:
        for op in step.op.replace("Reduce*", "ReduceMax").split(", "):
            assert first_opset(op) is not None, op
