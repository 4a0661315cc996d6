"""The hazard report of files made by hand, and its text: where numbers begin to break, what exports keep, whose rig it is."""

from __future__ import annotations

import csv
import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporting import run_cli
from occport.bringup.precision.hazards import hazards_of
from occport.bringup.precision.text import hazards_text
from occport.bringup.walk import walk
from occport.export.network_file import feeds_of, read_network
from own_frames import write_frames


def written(folder, nodes, inputs, outputs, weights=None, opset=17):
    """A file, and NAME.npy of its inputs; outputs: name → shape."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in inputs.items()]
    graph = helper.make_graph(
        nodes, "g", info, [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in (weights or {}).items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), folder / "m.onnx")
    for name, array in inputs.items():
        np.save(folder / f"{name}.npy", np.asarray(array, np.float32))
    return folder / "m.onnx"


def report_of(path, precision="fp16"):
    file = read_network(path, None, standard=True)
    return hazards_of(file, feeds_of(file, None, path.parent)[0], precision)


def node(op_type, inputs, outputs, name):
    return helper.make_node(op_type, inputs, outputs, name=name)


FLOAT = TensorProto.FLOAT


def test_infinities_of_the_float32_run_are_told_where_they_begin(tmp_path):
    nodes = [node("Exp", ["x"], ["a"], "ex"), node("Sub", ["a", "a"], ["b"], "sub"), node("Relu", ["b"], ["y"], "r")]
    path = written(tmp_path, nodes, {"x": np.array([100.0, 200.0, 1.0])}, {"y": (FLOAT, [3])})
    ran = run_cli("hazards", path, "--inputs", tmp_path, "--json", tmp_path / "h.json", "--csv", tmp_path / "h.csv")
    assert ran.status == 0 and "not finite already in float32 (3)" in ran.out
    assert "begins at a (rest, Exp) [2.718, 2.718]: 2 infinite and 0 NaN of 3 numbers" in ran.out
    found = [one for one in json.loads((tmp_path / "h.json").read_text())["hazards"] if one["kind"] == "not finite"]
    assert [(one["tensor"], one["severity"], one["begins"]) for one in found[:2]] == [("a", "breaks", True), ("b", "breaks", False)]
    assert [row["begins"] for row in csv.DictReader((tmp_path / "h.csv").open()) if row["tensor"] == "a"] == ["yes"]


def test_the_text_says_where_an_overflow_begins(tmp_path):
    """The first in graph order, not the largest, and each that nothing before it explains."""
    names = [f"t{i}" for i in range(6)]
    nodes = [node("Mul", [before, "two"], [after], after) for before, after in zip(["first", *names], names, strict=False)]
    nodes = [node("Mul", ["x", "many"], ["first"], "first"), *nodes, node("Mul", ["x", "many"], ["other"], "other")]
    outputs = {"t5": (FLOAT, [2]), "other": (FLOAT, [2])}
    path = written(tmp_path, nodes, {"x": np.array([3.0, 1.0])}, outputs, {"two": 2.0, "many": 30_000.0})
    report = report_of(path)
    text = hazards_text(report, everything=False)
    assert "begins at first (rest, Mul)" in text and "begins at other (rest, Mul)" in text and "t5" not in text
    assert [one.tensor for one in report.found if one.kind == "overflow" and one.begins] == ["first", "other"]
    assert hazards_text(report, everything=True).count("numbers beyond 65,504") == 8


def test_what_the_geometry_has_is_folded(runtime_export, tmp_path):
    nodes = [
        node("Mul", ["x", "many"], ["p"], "projection_Mul"), node("Identity", ["p"], ["q"], "projection_Identity"),
        node("Mul", ["q", "few"], ["y"], "img_neck_Mul"),
    ]  # fmt: skip
    path = written(tmp_path, nodes, {"x": np.array([3.0])}, {"y": (FLOAT, [1])}, {"many": [1e5], "few": [0.5]})
    report = report_of(path)
    kinds = [(one.tensor, one.kind, one.severity, one.begins) for one in report.found]
    assert kinds == [
        ("y", "overflow", "breaks", True), ("many", "weight overflow", "kept", False), ("p", "overflow", "kept", False),
        ("q", "overflow", "kept", False),
    ]  # fmt: skip
    text = hazards_text(report, everything=False)
    assert "in the geometry (tables): overflow 2, weight overflow 1; up to 300,000 at p; --all shows them" in text
    assert "kept (3): it would, but a 16-bit export keeps these in float32" in text
    assert "projection" not in text and "begins at y (neck, Mul)" in text
    table = json.loads(json.dumps(report.to_json()))
    assert table["severities"] == {"breaks": 1, "loses": 0, "watch": 0, "kept": 3} and len(table["hazards"]) == 4
    out = run_cli("hazards", runtime_export.model).out
    assert "projection: the rig that is fed" in out


def test_tensors_that_follow_from_constants_alone_are_looked_at(tmp_path):
    nodes = [node("Mul", ["w", "w"], ["c"], "c"), node("Mul", ["c", "w"], ["d"], "d"), node("Relu", ["x"], ["z"], "z")]
    outputs = {"d": (FLOAT, [2]), "z": (FLOAT, [2])}
    path = written(tmp_path, nodes, {"x": np.ones(2)}, outputs, {"w": [300.0, 1.0]})
    report = report_of(path)
    assert report.tensors == 4 and [one.tensor for one in report.found if one.kind == "overflow"] == ["c", "d"]
    file = read_network(path, None, standard=True)
    got = dict(walk(file, {"x": np.ones(2, np.float32)}, ["c", "d"], at_once=1))  # a segment each, the first without any input
    np.testing.assert_array_equal(got["d"], np.array([2.7e7, 1.0], np.float32))


def test_a_node_without_its_first_output_is_looked_at(tmp_path):
    weights = {"w": np.ones((1, 32, 4)), "r": np.ones((1, 32, 8))}
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["", "yh"], name="lstm", hidden_size=8)
    nodes = [lstm, node("Mul", ["yh", "many"], ["y"], "mul")]
    path = written(tmp_path, nodes, {"x": np.ones((5, 1, 4))}, {"y": (FLOAT, [1, 1, 8])}, {**weights, "many": 90_000.0})
    report = report_of(path)
    assert {one.tensor for one in report.found if one.kind == "overflow"} == {"y"} and report.tensors == 3


def test_labels_among_one_class_and_a_long_softmax_run_through(tmp_path):
    nodes = [
        node("Relu", ["x"], ["a"], "r"), helper.make_node("ArgMax", ["a"], ["y"], name="am", axis=1, keepdims=0),
        helper.make_node("Softmax", ["a"], ["z"], name="sm", axis=0),
    ]  # fmt: skip
    outputs = {"y": (TensorProto.INT64, [10_000, 4]), "z": (FLOAT, [10_000, 1, 4])}
    report = report_of(written(tmp_path, nodes, {"x": np.full((10_000, 1, 4), 5.0)}, outputs))
    assert [(one.kind, one.figures["terms"]) for one in report.found if one.kind == "softmax"] == [("softmax", 10_000)]
    assert "margin" not in {one.kind for one in report.found}


def test_hits_are_those_of_the_given_rig(tables_export, fixed_export, tmp_path):
    """The tables of a frame do not tell its rig: it is given, or the report says that it is the export's."""
    file = read_network(tables_export.model, None, standard=True)
    feeds = feeds_of(file, None, None)[0]
    rig = np.array(tables_export.manifest["frame"]["lidar2img"])
    plain, own = hazards_of(file, feeds), hazards_of(file, feeds, rig=rig)
    assert own.rig == "the rig of the given frame" and plain.hits == own.hits
    assert plain.rig == "the rig of the export, whatever rig the tables that are fed are of" == plain.to_json()["rig"]
    turned = hazards_of(file, feeds, rig=rig[::-1] * np.array([1, 1.5, 1, 1])[None, :, None])
    assert turned.hits != plain.hits
    assert all(one.severity != "breaks" and "in the geometry file" in one.words for one in plain.found if one.kind == "geometry")
    write_frames(tmp_path)
    out = run_cli("hazards", tables_export.model, "--frame", tmp_path / "frame.json").out
    assert "projection: the rig of the given frame" in out.splitlines()
    fixed = read_network(fixed_export.model, None, standard=True)
    assert "which is baked in" in hazards_of(fixed, feeds_of(fixed, None, None)[0], rig=rig).rig
