"""The cost of whole files: sums, memory, and the figures of PyTorch's counter and of ONNX Runtime's profile."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from occport.bringup.cost.cost import cost_of
from occport.bringup.cost.liveness import Liveness
from occport.export.network_file import feeds_of, read_network
from occport.graph.runnable import make_runnable
from occport.measure.flops import flops_of_stages, parameters_of
from occport.measure.profile import read_profile
from occport.session import open_session


def chain(tmp_path):
    """img (1, 2, 4, 4) → Conv to 3 → Relu → Reshape → MatMul with (16, 5) → (3, 5); one weight is read twice."""
    weights = [
        numpy_helper.from_array(np.ones((3, 2, 1, 1), np.float32), "w"),
        numpy_helper.from_array(np.array([3, 16]), "s"),
        numpy_helper.from_array(np.ones((16, 5), np.float32), "m"),
    ]
    nodes = [
        helper.make_node("Conv", ["img", "w"], ["c"], name="net_conv_Conv"),
        helper.make_node("Relu", ["c"], ["r"], name="net_relu_Relu"),
        helper.make_node("Reshape", ["r", "s"], ["f"], name="net_Reshape"),
        helper.make_node("MatMul", ["f", "m"], ["a"], name="net_MatMul"),
        helper.make_node("MatMul", ["f", "m"], ["b"], name="net_MatMul_1"),
        helper.make_node("Add", ["a", "b"], ["out"], name="net_Add"),
    ]
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [port("img", TensorProto.FLOAT, [1, 2, 4, 4])], [port("out", TensorProto.FLOAT, [3, 5])], weights
    )  # fmt: skip
    path = tmp_path / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return read_network(path, None, standard=True)


def test_a_chain_by_hand(tmp_path):
    cost = cost_of(chain(tmp_path))
    total = cost.total
    assert total.products == 3 * 16 * 2 + 2 * (3 * 5 * 16)
    assert total.parameters == 6 + 80  # the shape is no parameter, the matrix counts once
    assert total.operations == 48 + 15  # Relu, Add
    conv, relu, reshape, first, second, add = cost.nodes
    assert (conv.read_bytes, conv.write_bytes) == (4 * (32 + 6), 4 * 48)
    assert (relu.read_bytes, relu.write_bytes) == (4 * 48, 4 * 48)
    assert reshape.moved == 0
    assert (first.read_bytes, second.read_bytes) == (4 * (48 + 80),) * 2 and second.parameters == 0
    assert (add.read_bytes, add.write_bytes) == (4 * 30, 4 * 15)
    assert cost.rows("operator")[0].intensity == pytest.approx(2 * 480 / (2 * 4 * (48 + 80 + 15)))
    assert [row.name for row in cost.rows("layer")] == ["net", "net_conv", "net_relu"]
    assert cost.network is None and cost.custom == {} and cost.without_rule == ()
    assert cost.constants == 4 * 86 + 8 * 2


def test_memory_by_hand(tmp_path):
    """Conv and Relu hold two maps of 48 numbers; the input is gone by then, and a Reshape keeps nothing of its own."""
    peak = cost_of(chain(tmp_path)).peak
    assert (peak.total, peak.node) == (4 * 96, "net_relu_Relu") and peak.tensors == (("c", 192), ("r", 192))


def test_buffers_that_fit_stay_on_the_chip(tmp_path):
    file = chain(tmp_path)
    live = Liveness(file.model.graph, {"img": 128, "c": 192, "r": 192, "a": 60, "b": 60, "out": 60, "f": 192})
    assert live.buffer["f"] == "r" and live.spans["r"] == (1, 4) and live.spans["out"] == (5, 5)
    assert live.totals == [320, 384, 192, 252, 312, 180]
    assert live.fitting(1000) == {"img", "c", "r", "a", "b", "out"}
    assert "r" not in live.fitting(200) and "out" in live.fitting(200)
    assert live.fitting(0) == set()
    assert live.fitting(400, {"r": 0.5, "c": 0.5}) >= {"c", "r"}


@pytest.mark.parametrize("export", ["runtime_export", "standard_export", "tables_export", "functions_export"])
def test_products_are_those_of_pytorchs_counter(export, request):
    """The network that has been made ready joins the same convolutions as the exporter; only the slots differ, by the budgets."""
    file = read_network(request.getfixturevalue(export).model, None, standard=True)
    cost, spec = cost_of(file), file.spec
    rig = file.manifest["frame"]["lidar2img"]
    shape = (1, spec.config.num_cameras, 3, *spec.image_hw)
    ready = flops_of_stages(spec.config, shape, rig, ready=True)
    got = {row.name: 2 * row.macs for row in cost.rows("stage")}
    for stage in ("backbone", "decoder"):
        assert got[stage] == ready[stage]
    assert cost.network.macs == {stage: count // 2 for stage, count in flops_of_stages(spec.config, shape, rig).items()}
    assert cost.network.parameters == parameters_of(spec.config)
    assert cost.without_rule == ()


def test_products_are_those_of_onnx_runtimes_profile(runtime_export, tmp_path):
    file = read_network(runtime_export.model, None, standard=True)
    feeds, _ = feeds_of(file, None, None)
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    make_runnable(model, file.dialect)
    session = open_session(model, weights_folder=file.folder, profile=tmp_path / "p.json")
    session.run(feeds)
    (run,) = read_profile(session.profile())
    nodes = cost_of(file).nodes
    for stage in ("neck", "level 0", "level 1", "level 2", "decoder"):  # bodies of deformable convolutions have products of their own
        # of a ConvTranspose the profile has no shape of the weight, once it is packed
        mine = [node.work.products for node in nodes if node.stage == stage and node.op_type != "ConvTranspose"]
        assert run.flops[stage] == 2 * sum(mine) > 0, stage


def test_custom_nodes_are_counted_by_name(runtime_export):
    cost = cost_of(read_network(runtime_export.model, None, standard=True))
    model = onnx.load(runtime_export.model, load_external_data=False)
    want = {}
    for node in model.graph.node:
        if node.domain == "DL":
            want[f"DL::{node.op_type}"] = want.get(f"DL::{node.op_type}", 0) + 1
    assert cost.custom == want and sum(want.values()) >= 4


def test_json_holds_every_node_and_sums(runtime_export):
    cost = cost_of(read_network(runtime_export.model, None, standard=True))
    table = cost.to_json()
    for by in ("by_stage", "by_layer", "by_operator"):
        for key in ("nodes", "parameters", "macs", "read_bytes", "write_bytes"):
            assert sum(row[key] for row in table[by]) == table["total"][key]
    assert sum(node["macs"] for node in table["nodes"]) == table["total"]["macs"]
    assert table["peak_activations"]["bytes"] == sum(row["bytes"] for row in table["peak_activations"]["alive"])
