"""The cost of whole files: sums, memory, and the figures of PyTorch's counter and of ONNX Runtime's profile."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from occport.bringup.cost.charts import svg
from occport.bringup.cost.chip import Chip
from occport.bringup.cost.cost import cost_of
from occport.bringup.cost.liveness import Liveness
from occport.bringup.cost.roofline import roofline
from occport.bringup.cost.text import cost_text, csv_text, roofline_text
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
    assert live.fitting(1000) == {"c", "r", "a", "b"}  # the input comes from outside, the output goes there
    assert "r" not in live.fitting(200) and "a" in live.fitting(200)
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


@pytest.mark.parametrize("export", ["runtime_export", "tables_export"])
def test_points_of_the_projection_are_no_parameters(export, request):
    cost = cost_of(read_network(request.getfixturevalue(export).model, None, standard=True))
    rows = {row.name: row.parameters for row in cost.rows("stage")}
    assert rows.get("tables", 0) == 0 < cost.total.parameters <= cost.network.parameters


def saved(tmp_path, nodes, ports, weights=()):
    """A file of nodes; `ports`: inputs, outputs, each (name, type, shape)."""
    made = ([helper.make_tensor_value_info(*one) for one in side] for side in ports)
    graph = helper.make_graph(nodes, "g", *made, list(weights))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    return read_network(tmp_path / "m.onnx", None, standard=True)


def test_a_first_output_that_is_left_out(tmp_path):
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (("w", (1, 32, 4)), ("r", (1, 32, 8)))]
    node = helper.make_node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=8)
    file = saved(tmp_path, [node], ([("x", 1, [5, 1, 4])], [("y", 1, [1, 1, 8])]), weights)
    (found,) = cost_of(file).nodes
    assert (found.name, found.stage, found.writes, found.parameters) == ("y", "rest", (("y", 32),), 384)


@pytest.mark.parametrize(
    ("given", "dtype", "nbytes"),
    [
        ({"value_float": 2.0}, "float32", 4), ({"value_floats": [2.0, 3.0, 4.0, 5.0]}, "float32", 16), ({"value_int": 3}, "int64", 8),
        ({"value_ints": [1, 2, 3, 4]}, "int64", 32), ({"value": numpy_helper.from_array(np.float32([2]))}, "float32", 4),
    ],
)  # fmt: skip
def test_a_constant_is_a_weight_however_it_is_written(tmp_path, given, dtype, nbytes):
    kind = TensorProto.FLOAT if dtype == "float32" else TensorProto.INT64
    nodes = [helper.make_node("Constant", [], ["c"], **given), helper.make_node("Mul", ["x", "c"], ["y"])]
    cost = cost_of(saved(tmp_path, nodes, ([("x", kind, [1, 4])], [("y", kind, [1, 4])])))
    (mul,) = cost.nodes
    assert (mul.dtype, mul.weight_bytes, mul.float_weight_bytes) == (dtype, nbytes, nbytes if dtype == "float32" else 0)
    assert cost.constants == nbytes and dict(mul.reads).keys() == {"x"}
    chip = Chip("c", 1.0, 1.0, 0.0, True, {"float32": 1.0}, {})
    assert roofline(cost, chip).times[0].moved == mul.moved


def test_nameless_nodes_are_told_apart(tmp_path):
    """By number: on a chip that fuses, each has its own launch and time, and is called after what it makes."""
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    cost = cost_of(saved(tmp_path, nodes, ([("x", 1, [4, 4])], [("y", 1, [4, 4])]), [weight]))
    found = roofline(cost, Chip("c", 1.0, 0.0, 5.0, True, {"float32": 1.0}, {}))
    assert [time.node.name for time in found.times] == ["a", "b", "y"]
    assert [time.launch for time in found.times] == pytest.approx([5e-6, 0.0, 5e-6])
    rows = csv_text(cost, found).splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["a", "b", "y"]
    assert [float(row.split(",")[-2]) for row in rows] == pytest.approx([time.seconds for time in found.times])
    assert cost.peak.node in ("a", "b", "y")


def test_whole_numbers_keep_their_width(tmp_path):
    """Labels of int64 beside logits, and indices among the weights: only what is floating-point shrinks."""
    weights = [numpy_helper.from_array(np.ones((3, 8), np.float32), "w"), numpy_helper.from_array(np.array([0, 2]), "i")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="m"), helper.make_node("Gather", ["a", "i"], ["b"], name="g"),
        helper.make_node("ArgMax", ["b"], ["y"], name="am", axis=1, keepdims=0),
    ]  # fmt: skip
    cost = cost_of(saved(tmp_path, nodes, ([("x", 1, [5, 3])], [("y", TensorProto.INT64, [2])]), weights))
    chip = Chip("c", 1.0, 0.0, 0.0, False, {"float32": 1.0, "float16": 1.0}, {})
    product, gather, labels = (time.moved for time in roofline(cost, chip, "float16").times)
    assert product == 2 * (15 + 24 + 40) and gather == 2 * (16 + 16) + 8 * 2 and labels == 2 * 16 + 8 * 2
    whole = sum(time.moved for time in roofline(cost, chip).times)
    assert whole == 4 * (15 + 24 + 40) + 4 * 32 + 16 + 4 * 16 + 16


def test_inputs_and_outputs_go_through_the_memory(tmp_path):
    file = chain(tmp_path)
    times = {time.node.name: time.moved for time in roofline(cost_of(file), Chip("c", 1.0, 1e3, 0.0, True, {"float32": 1.0}, {})).times}
    assert times["net_conv_Conv"] == 4 * (32 + 6) and times["net_relu_Relu"] == 0 and times["net_Add"] == 4 * 15


def test_the_rate_that_was_taken_is_named(tmp_path):
    cost = cost_of(chain(tmp_path))
    found = roofline(cost, Chip("c", 1.0, 0.0, 0.0, False, {"float16": 8.0, "bfloat16": 2.0}, {}), "int8")
    assert found.without_rate == ("int8",) and found.to_json()["rate_taken"] == "float16"
    assert "no rate for int8: float16's was taken" in roofline_text(found, 5)
    fine = roofline(cost, Chip("c", 1.0, 0.0, 0.0, False, {"int8": 8.0}, {}), "int8")
    assert fine.without_rate == () and fine.to_json()["rate_taken"] is None


@pytest.mark.parametrize(("size", "nodes"), [(4, 2), (0, 1), (4, 0)])
def test_networks_without_work_have_charts_and_tables(tmp_path, size, nodes):
    made = [helper.make_node("Relu", ["x" if i == 0 else f"y{i - 1}"], [f"y{i}"], name=f"/a/{i}") for i in range(nodes)]
    cost = cost_of(saved(tmp_path, made, ([("x", 1, [size])], [(f"y{nodes - 1}" if nodes else "x", 1, [size])])))
    found = roofline(cost, Chip("c", 1.0, 1.0, 0.0, True, {"float32": 1.0}, {}))
    assert svg(cost, None).startswith("<svg") and svg(cost, found).startswith("<svg")
    assert cost_text(cost, "stage", 5) and "c, dtypes of the file" in roofline_text(found, 5)


def test_nodes_without_traffic_are_drawn_and_counted(tmp_path):
    cost = cost_of(chain(tmp_path))
    found = roofline(cost, Chip("c", 1.0, 1e3, 0.0, True, {"float32": 1.0}, {}))
    assert sum(time.moved == 0 and time.flops > 0 for time in found.times) == 1
    assert "at the right edge 1 of 5 nodes that move nothing" in svg(cost, found)
    assert "right edge" not in svg(cost, roofline(cost, Chip("c", 1.0, 0.0, 0.0, False, {"float32": 1.0}, {})))


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
