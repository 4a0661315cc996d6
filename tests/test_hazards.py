"""The hazard report of half precision: each rule against numbers that are known, and the command."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporting import assert_refused, contents, run_cli
from occport.bringup.precision.geometry import _project, hits_in, of_geometry
from occport.bringup.precision.hazards import hazards_of
from occport.bringup.precision.places import of_locations, of_offsets, step_at
from occport.bringup.precision.rounding import low
from occport.bringup.precision.tensors import Place, of_reader, of_values, range_of
from occport.bringup.precision.weights import of_weights
from occport.export.network_file import feeds_of, read_network
from occport.export.spec import from_json
from occport.frames.visibility import hits, voxel_centres

FP16, BF16 = low("fp16"), low("bf16")
PLACE = Place("t", "n", "Conv", "backbone")


def of(array, kind=FP16):
    array = np.asarray(array, np.float32)
    return {hazard.kind: hazard for hazard in of_values(PLACE, array, range_of(array), kind)}


def read_by(op_type, array, axis, opset=17):
    array = np.asarray(array, np.float32)
    node = helper.make_node(op_type, ["t"], ["y"], axis=axis)
    return list(of_reader(PLACE, node, array, range_of(array), FP16, opset))


def test_overflow_counts_and_names_the_largest():
    found = of([1.0, -104_000.0, 70_000.0, 3.0])
    assert set(found) == {"overflow"} and found["overflow"].severity == "breaks"
    assert found["overflow"].figures == {"beyond": 2, "largest": 104_000} and "65,504" in found["overflow"].words
    assert "float32" in found["overflow"].advice and of([1.0, -104_000.0], BF16) == {}


def test_little_headroom_is_watched():
    assert set(of([20_000.0])) == {"headroom"} and of([16_000.0]) == {}


def test_underflow_counts_what_loses_bits_and_what_vanishes():
    found = of([0.0] * 50 + [1e-6] * 3 + [1e-9] * 1 + [0.5] * 6)["underflow"]
    assert found.figures["subnormal"] == pytest.approx(0.4) and found.figures["zero"] == pytest.approx(0.1) and found.severity == "loses"
    assert "underflow" not in of([1.0] * 1000 + [1e-9])


def test_nan_and_infinity_do_not_hide_the_range():
    found = range_of(np.array([np.nan, np.inf, -3.0, 2.0], np.float32))
    assert (found.low, found.high) == (-3.0, 2.0) and found.rms == pytest.approx(math.sqrt(6.5))
    assert (found.infinite, found.nan) == (1, 1)
    (hazard,) = of([np.nan, np.inf, -np.inf, 2.0]).values()
    assert hazard.kind == "not finite" and hazard.severity == "breaks" and hazard.figures == {"infinite": 2, "nan": 1}
    assert of([np.inf, 70_000.0])["overflow"].figures["beyond"] == 1


@pytest.mark.parametrize(
    ("opset", "axis", "terms"), [(17, 1, 10_000), (17, -1, 2), (13, 0, 1), (11, 1, 20_000), (11, -1, 2), (11, 0, 20_000)]
)  # fmt: skip
def test_terms_of_a_softmax_follow_its_axis(opset, axis, terms):
    found = read_by("Softmax", np.full((1, 10_000, 2), 11.5), axis, opset)
    assert [hazard.figures["terms"] for hazard in found] == [terms]


def test_a_choice_among_one_has_no_margin():
    assert read_by("ArgMax", np.zeros((2, 1, 4)), 1) == [] and read_by("ArgMax", np.zeros((2, 4, 1)), -1) == []


@pytest.mark.parametrize(
    ("scales", "severity"), [([1e-8] * 100, "breaks"), ([1e-8] * 5 + [1.0] * 95, "loses"), ([1e-8] + [1.0] * 999, "watch")]
)  # fmt: skip
def test_weights_that_become_0_count_by_their_share(scales, severity):
    (hazard,) = of_weights(PLACE, np.array([*scales, 0.0], np.float32), FP16)
    assert (hazard.kind, hazard.severity) == ("weight underflow", severity)
    assert hazard.figures["zero"] == pytest.approx(scales.count(1e-8) / len(scales))


def test_weights_that_only_lose_bits_are_told():
    (hazard,) = of_weights(PLACE, np.array([1e-5] * 2 + [1.0] * 98, np.float32), FP16)
    assert hazard.severity == "watch" and hazard.figures == {"zero": 0, "subnormal": 0.02} and "2 (2.0%)" in hazard.words
    (hazard,) = of_weights(PLACE, np.full(9, 1e-5, np.float32), FP16)
    assert hazard.severity == "loses" and list(of_weights(PLACE, np.full(9, 1e-5, np.float32), BF16)) == []
    assert list(of_weights(PLACE, np.array([1e-5], np.float32), FP16)) == []  # the epsilon of a normalisation
    kinds = [hazard.kind for hazard in of_weights(PLACE, np.array([np.nan, 1e6], np.float32), FP16)]
    assert kinds == ["not finite", "weight overflow"]


def test_the_step_of_half_precision_on_level_0():
    """Between 128 and 256 float16 has steps of 0.125; level 0 is 200 wide."""
    assert step_at(200, FP16) == 0.125 == float(np.spacing(np.float16(199)))
    assert step_at(100, FP16) == 0.0625 == float(np.spacing(np.float16(99))) and step_at(200, BF16) == 1.0


def test_locations_are_off_by_what_numpy_says():
    rng = np.random.default_rng(0)
    points = rng.uniform(0.1, 0.9, (500, 2)).astype(np.float32)
    found = {hazard.kind: hazard for hazard in of_locations(PLACE, points, 200, 116, FP16)}
    exact = points.astype(np.float64) * [200, 116] - 0.5
    port = np.abs(points.astype(np.float16).astype(np.float64) * [200, 116] - 0.5 - exact)
    half = (points.astype(np.float16) * np.array([200, 116], np.float16) - np.float16(0.5)).astype(np.float64)
    assert found["location"].figures["most"] == pytest.approx(port.max())
    assert found["location product"].figures["rms"] == pytest.approx(np.sqrt((np.abs(half - exact) ** 2).mean()))
    cells = (np.floor(half) != np.floor(exact)).any(1).mean()
    assert found["location product"].figures["cells"] == pytest.approx(cells) and found["location product"].figures["step"] == 0.125
    assert "0.125 px at the end of 200 x 116" in found["location"].words


def test_samples_outside_the_map_do_not_count():
    points = np.array([[5.0, 5.0], [-3.0, 0.5]], np.float32)
    assert list(of_locations(PLACE, points, 200, 116, FP16)) == []


def test_offsets_of_wide_maps_lose_pixels():
    offsets = np.full((1, 2, 4, 400), 0.3, np.float32)  # one tap: dy, dx
    (found,) = of_offsets(PLACE, offsets, 1, FP16)
    columns = np.arange(400) + float(np.float16(0.3))
    want = np.abs(columns.astype(np.float16).astype(np.float64) - (np.arange(400) + np.float64(np.float32(0.3)))).max()
    assert found.kind == "offset position" and found.figures["most"] == pytest.approx(want) and found.figures["step"] == 0.25
    assert list(of_offsets(PLACE, np.zeros((1, 2, 4, 8), np.float32), 1, FP16)) == []


def test_squares_exponentials_and_margins():
    (square,) = read_by("InstanceNormalization", [300.0, 1.0], 0)
    assert square.kind == "square" and square.figures["largest_square"] == 90_000
    assert read_by("InstanceNormalization", [200.0, 1.0], 0) == []
    (soft,) = read_by("Softmax", [[11.2, 0.0]], -1)
    assert soft.kind == "softmax" and "exp passes 65,504 from 11.09" in soft.words
    assert read_by("Softmax", [[9.0, 0.0]], -1) == []
    logits = np.array([[8.0, 8.001, 1.0], [8.0, 7.0, 1.0]]).T[None]  # (1, class, voxel)
    (margin,) = read_by("ArgMax", logits, 1)
    assert margin.figures == {"labels": 1, "share": 0.5}


@pytest.fixture(scope="module")
def spec(runtime_export):
    return from_json(runtime_export.manifest["spec"])


def test_hits_of_a_projection_against_a_plain_loop(spec, runtime_export):
    rig = np.array(runtime_export.manifest["frame"]["lidar2img"])
    level = spec.config.levels[2]
    points = voxel_centres((level.volume_h, level.volume_w, level.volume_z), spec.config.pc_range)
    seen, _, _, _ = _project(rig, points, spec.image_hw, scaled=True, dtype=np.dtype(np.float64))
    np.testing.assert_array_equal(seen, hits(rig, spec.image_hw, points))
    half, _, _, _ = _project(rig, points, spec.image_hw, scaled=False, dtype=np.dtype(np.float16))
    for camera in range(len(rig)):
        for number, (x, y, z) in enumerate(points.astype(np.float16)):
            row = rig[camera].astype(np.float16)
            u, v, depth = (((row[i, 2] * z + row[i, 3]) + row[i, 1] * y) + row[i, 0] * x for i in range(3))
            below = max(depth, np.float16(1e-5))
            u, v = u / below / np.float16(spec.image_hw[1]), v / below / np.float16(spec.image_hw[0])
            assert bool(half[camera, number]) == bool(depth > 1e-5 and 0 < u < 1 and 0 < v < 1)


def test_a_rig_of_large_images_passes_fp16_unscaled_and_not_scaled(spec):
    """The original's numbers reach 104,000 on the real rig: focal length times metres."""
    rig = np.array([[[1266.0, 816.0, 0, 0], [0, 491.0, -1266.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]]])
    large = replace(spec, image_hw=(928, 1600))
    unscaled, scaled = hits_in(large, rig, FP16)
    assert unscaled.largest > 65_504 > scaled.largest and unscaled.infinite > 0 == scaled.infinite
    (first, *_) = of_geometry([unscaled, scaled], FP16)
    assert first.kind == "geometry" and "beyond 65,504" in first.words and first.figures["largest"] == unscaled.largest


def test_a_planted_overflow_in_a_network_is_found_at_its_node(runtime_export, tmp_path):
    for path in runtime_export.model.parent.iterdir():
        shutil.copy(path, tmp_path)
    path = tmp_path / runtime_export.model.name
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if one.name == "img_neck_fpn_convs_0_conv_weight" or "lateral_convs_0" in one.name)
    array = numpy_helper.to_array(tensor).copy()
    array[:1] *= 1e7
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)
    file = read_network(path, None, standard=True)
    report = hazards_of(file, feeds_of(file, None, None)[0])
    kinds = {(hazard.kind, hazard.node) for hazard in report.found}
    node = next(one.name for one in model.graph.node if tensor.name in one.input)
    assert ("overflow", node) in kinds and ("weight overflow", node) in kinds


def test_the_report_of_an_export(runtime_export, standard_export, tmp_path):
    ran = run_cli("hazards", runtime_export.model, "--json", tmp_path / "h.json", "--csv", tmp_path / "h.csv")
    assert ran.status == 0, ran.err
    table = json.loads((tmp_path / "h.json").read_text())
    assert table["precision"] == "fp16" and table["largest"] == 65_504 and len(table["geometry"]) == 2
    assert sum(table["counts"].values()) == len(table["hazards"]) > 0
    assert {"kind", "severity", "tensor", "node", "op_type", "stage", "low", "high", "words"} < set(table["hazards"][0])
    order = ["breaks", "loses", "watch", "kept"]
    severities = [order.index(hazard["severity"]) for hazard in table["hazards"]]
    assert severities == sorted(severities)
    assert len(list(csv.DictReader((tmp_path / "h.csv").open()))) == len(table["hazards"])
    assert "do: accumulate in float32" in ran.out and "tensors of this frame" in ran.out
    assert len(run_cli("hazards", runtime_export.model, "--all").out) >= len(ran.out)
    bf16 = run_cli("hazards", standard_export.model, "--precision", "bf16")
    assert bf16.status == 0 and "sampling places rounded" in bf16.out


def test_places_of_the_standard_form_are_those_of_the_custom_nodes(runtime_export, standard_export):
    """A grid in [-1, 1] is rounded as such, which errs less in the middle of a map and as much at its ends."""
    found = []
    for export in (runtime_export, standard_export):
        file = read_network(export.model, None, standard=True)
        report = hazards_of(file, feeds_of(file, None, None)[0], "bf16")
        assert report.unseen == () and report.rig == "the rig that is fed"
        found.append(max(hazard.figures["rms"] for hazard in report.found if hazard.kind == "location product"))
    assert found[0] == pytest.approx(found[1], rel=0.5)


def test_what_cannot_be_is_refused(runtime_export, tmp_path):
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [port("x", TensorProto.FLOAT16, [2])], [port("y", TensorProto.FLOAT16, [2])]
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "low.onnx")
    np.save(tmp_path / "x.npy", np.zeros(2, np.float16))
    assert_refused(run_cli("hazards", tmp_path / "low.onnx", "--inputs", tmp_path), "give the float32 export")
    before = contents(tmp_path)
    assert_refused(run_cli("hazards", tmp_path / "no.onnx"), "no such file")
    assert_refused(run_cli("hazards", runtime_export.model, "--json", tmp_path), "got a folder")
    assert run_cli("hazards", runtime_export.model, "--precision", "int8").status == 2
    assert contents(tmp_path) == before
