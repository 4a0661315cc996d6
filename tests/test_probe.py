"""The probes themselves: their values, their files, and that they ask for exactly what the network needs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from exporting import assert_refused
from occport.graph import dialect as dialects
from occport.graph.bodies.body import default_form
from occport.kit.probe import custom
from occport.kit.probe.candidates import attentions, biases, convolutions
from occport.kit.probe.operators import FAMILIES
from occport.kit.probe.plan import CUSTOM, STANDARD, Plan, needs
from occport.kit.probe.questions import QUESTIONS, probes_of
from occport.kit.probe.small import tolerance
from occport.kit.probe.write import write_probes
from probing import run_probe, written_network

DL = dialects.load("dl")
CUSTOM_QUESTIONS = ("control", "msda", "dcn", "dcn_bias")


@pytest.fixture(scope="module")
def probes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probes") / "dl"
    ran = run_probe("-o", folder)
    assert ran.status == 0 and ran.err == ""
    return folder, ran


def entries(folder):
    return json.loads((folder / "index.json").read_text())["probes"]


def test_command_says_what_to_do_next(probes):
    folder, ran = probes
    count = len(entries(folder))
    assert ran.out.splitlines() == [
        f"{count} probes around dialect dl in {folder}",
        f"next: CMD='mycompiler --model {{model}} --inputs {{inputs}} --outputs {{outputs}}' sh {folder}/run.sh",
    ]


@pytest.mark.parametrize("name", dialects.names())
def test_every_dialect_has_probes_with_plain_names(name):
    probes = probes_of(dialects.load(name))
    assert {probe.question for probe in probes} <= set(QUESTIONS)
    assert all(probe.name.replace("_", "").isalnum() for probe in probes)
    asked = {probe.question for probe in probes}
    assert ("msda" in asked) == (name != "standard") and {"opset", "ir", "control", *(family.key for family in FAMILIES)} <= asked


def test_files_of_every_probe(probes):
    folder, _ = probes
    for entry in entries(folder):
        path = folder / entry["name"]
        model = onnx.load(path / "model.onnx")
        versions = {one.domain: one.version for one in model.opset_import}
        assert (versions[""], model.ir_version) == (entry["opset"], entry["ir"])
        infos = (*model.graph.input, *model.graph.output)
        ports = [(info.name, [dim.dim_value for dim in info.type.tensor_type.shape.dim]) for info in infos]
        assert ports == [(one["name"], one["shape"]) for one in (*entry["inputs"], *entry["outputs"])]
        for one in (*entry["inputs"], *entry["outputs"]):
            array = np.load(path / one["file"])
            assert (array.dtype.name, list(array.shape)) == (one["dtype"], one["shape"]) and np.isfinite(array).all()
            assert (path / one["file"]).with_suffix(".bin").read_bytes() == array.tobytes()
        assert all((one["atol"] == 0) == (one["dtype"] != "float32") for one in entry["outputs"])
    assert (folder / "external_data/model.onnx.data").stat().st_size > 9000


def test_standard_probes_run_in_stock_onnx_runtime(probes):
    """At the opset that they say, without bodies from us; among them functions in the file."""
    folder, _ = probes
    count = 0
    for entry in entries(folder):
        if entry["question"] in CUSTOM_QUESTIONS:
            continue
        path = folder / entry["name"]
        onnx.checker.check_model(path / "model.onnx", full_check=entry["question"] != "value_info")
        session = onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
        got = session.run(None, {one["name"]: np.load(path / one["file"]) for one in entry["inputs"]})
        for array, one in zip(got, entry["outputs"], strict=True):
            want = np.load(path / one["file"])
            assert array.dtype == want.dtype
            np.testing.assert_allclose(array, want, rtol=0, atol=one["atol"] / 100, err_msg=entry["name"])
        count += 1
    assert count > 70


def test_attention_values_against_a_loop():
    q = custom.attention_quantities()
    A, Q, M, _, P, _ = q["sampling_offsets"].shape
    (H, W), D = q["spatial_shapes"][0], q["value"].shape[3]
    place = (q["reference_points"][:, :, None, :, None] + q["sampling_offsets"] / [W, H]) * [W, H] - 0.5
    share = np.exp(q["attention_logits"].astype(np.float64))
    share /= share.sum((-2, -1), keepdims=True)
    want = np.zeros((A, Q, M, D))
    for a, one, m, p in np.ndindex(A, Q, M, P):
        x, y = place[a, one, m, 0, p]
        for row, column in ((r, c) for r in (int(np.floor(y)), int(np.floor(y)) + 1) for c in (int(np.floor(x)), int(np.floor(x)) + 1)):
            if 0 <= row < H and 0 <= column < W:
                near = (1 - abs(y - row)) * (1 - abs(x - column))
                want[a, one, m] += share[a, one, m, 0, p] * near * q["value"][a, row * W + column, m]
    np.testing.assert_allclose(q["output"], want.reshape(A, Q, M * D), atol=1e-5)


def test_convolution_values_against_a_loop():
    q = custom.conv_quantities()
    A, C, H, W = q["input"].shape
    columns = np.zeros((A, C, 9, H, W))
    for a, k, i, j in np.ndindex(A, 9, H, W):
        y = i + k // 3 - 1 + q["offset"][a, 2 * k, i, j]
        x = j + k % 3 - 1 + q["offset"][a, 2 * k + 1, i, j]
        for row, column in ((r, c) for r in (int(np.floor(y)), int(np.floor(y)) + 1) for c in (int(np.floor(x)), int(np.floor(x)) + 1)):
            if 0 <= row < H and 0 <= column < W:
                near = (1 - abs(y - row)) * (1 - abs(x - column))
                columns[a, :, k, i, j] += near * q["input"][a, :, row, column] * q["mask"][a, k, i, j]
    want = np.einsum("ocK,acKij->aoij", q["weight"].reshape(-1, C, 9), columns)
    assert DL.dcn is not None
    np.testing.assert_allclose(custom.convolution(DL, DL.dcn, 11).outputs["out"], want, atol=1e-4)


@pytest.mark.parametrize("name", ["dl", "tensorrt", "ascend"])
def test_every_way_of_writing_a_node_means_the_same(name):
    base = dialects.load(name)
    for candidate in attentions(base):
        got = custom.attention(base, candidate.contract, base.opset).outputs["out"]
        np.testing.assert_allclose(got.reshape(2, 40, -1), custom.attention_quantities()["output"], atol=1e-5, err_msg=candidate.key)
    want = custom.convolution(base, base.dcn, base.opset).outputs["out"]
    for candidate in convolutions(base):
        np.testing.assert_allclose(custom.convolution(base, candidate.contract, base.opset).outputs["out"], want, atol=1e-5)


def test_scalars_hold_numbers_that_differ():
    """Else a wrong order of bs, num_queries and num_embed would not show."""
    assert DL.msda is not None
    model = custom.attention(DL, DL.msda, 11).model
    values = {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in model.graph.node if node.op_type == "Constant"}
    assert [values[name].item() for name in ("bs", "num_queries", "num_embed")] == [2, 40, 32]
    assert [values[name].shape for name in ("bs", "spatial_shapes")] == [(), (1, 2)]


def test_number_variants_of_dl():
    found = {candidate.key: candidate.contract for candidate in attentions(DL)}
    ports = {port.name: port for port in found["msda_rank1_int32_initializer"].inputs}
    assert (ports["bs"].rank, ports["bs"].dtype, ports["bs"].place, ports["spatial_shapes"].dtype) == (1, "int32", "initializer", "int32")
    mixed = {port.name: port.dtype for port in found["msda_rank0_int32_constant_shapes_int64"].inputs}
    assert mixed["bs"] == "int32" and mixed["spatial_shapes"] == "int64"
    assert found["msda_no_domain"].domain == "" and found["msda_num_embed_head"].num_embed == "head"
    assert biases(DL) == ["batchnorm", "add", "input"] and biases(dialects.load("ascend"))[0] == "input"


def signature(node: ir.Node) -> tuple[str, str, int]:
    output = node.outputs[0]
    assert output.dtype is not None and output.shape is not None
    return node.op_type, output.dtype.name, len(output.shape)


@pytest.mark.parametrize(("name", "opset"), [("dl", 11), ("dl", 13), ("dl", 17), ("dl", 21), ("bevformer_tensorrt", 13), ("standard", 20)])
@pytest.mark.parametrize("calibration", ["runtime", "tables"])
def test_probes_ask_for_exactly_the_operators_of_the_network(name, opset, calibration, tiny_network, quick):
    network = ir.from_proto(written_network(tiny_network, name, opset, calibration)).graph
    base = replace(dialects.load(name), opset=opset)
    plan = Plan(CUSTOM, opset, calibration, "int64", "msda", "dcn", "batchnorm")
    if base.msda is None:
        plan = Plan(STANDARD, opset, calibration, "int64", default_form("msda", opset), default_form("dcn", opset))
    wanted = set(needs(plan, base))
    asked = [ir.from_proto(one.small().model).graph for one in probes_of(base) if (one.question, one.value) in wanted]
    probes = [node for graph in asked for node in graph if not node.domain]
    custom_names = {contract.op_type for contract in (base.msda, base.dcn) if contract is not None}
    mine = [node for node in network if not node.domain and node.op_type not in custom_names]
    assert {node.op_type for node in mine} == {node.op_type for node in probes} - custom_names
    assert {signature(node) for node in mine if node.op_type not in ("Reshape", "Constant")} <= {signature(node) for node in probes}


def test_tolerance():
    assert tolerance(np.array([1, -50], np.float32)) == 1.0 and tolerance(np.array([7])) == 0


def test_folder_in_use_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    line = assert_refused(run_probe("-o", tmp_path), "a new or empty one")
    assert "choose another with -o" in line and [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_unknown_dialect_is_refused(tmp_path):
    assert_refused(run_probe("-o", tmp_path / "new", "--dialect", "nobody"), "dialect 'nobody'")
    assert not (tmp_path / "new").exists()


def test_command_wants_one_of_two(tmp_path):
    assert_refused(run_probe(), "one of the arguments -o/--output-dir --results is required")
    assert_refused(run_probe("-o", tmp_path, "--results", tmp_path), "not allowed with")
    assert_refused(run_probe("--results", tmp_path, "--dialect", "dl"), "leave --dialect out")


def test_probes_around_a_dialect_of_ones_own(tmp_path):
    """An earlier round's dialect.toml is one too."""
    path = tmp_path / "mine.toml"
    path.write_text('base = "dl"\nname = "mine"\nopset = 17\nir = 7\n')
    probes = write_probes(tmp_path / "new", dialects.read(path))
    index = json.loads((tmp_path / "new/index.json").read_text())
    assert (index["dialect"], index["built_in"], index["table"]["opset"]) == ("mine", False, 17)
    by_name = {probe.name: probe for probe in probes}
    assert (by_name["conv3d"].opset, by_name["conv3d"].ir, by_name["split_12"].opset, by_name["split_17"].opset) == (17, 7, 12, 17)
    assert "msda_dl" not in by_name  # the same node
