"""Places where nodes sample, in the hazard report: every form of port, each level's own map, empty slots, what is not looked at."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporting import ROOT, run_cli
from occport.bringup.diff.rows import filled_slots
from occport.bringup.precision.hazards import hazards_of
from occport.bringup.precision.looker import Looker, pairs_of
from occport.bringup.precision.places import of_locations, of_pixels
from occport.bringup.precision.ports import Port, rows_of
from occport.bringup.precision.rounding import low
from occport.bringup.precision.tensors import Place
from occport.bringup.walk import walk
from occport.export.network_file import feeds_of, read_network

FP16, BF16 = low("fp16"), low("bf16")
PLACE = Place("t", "n", "Conv", "backbone")
MAPS = np.array([[100, 200], [40, 80]])
A, Q, M, D, L, P = 1, 30, 2, 4, 2, 2
DIALECTS = ROOT / "src/occport/graph/dialects"


def attention_file(folder, op_type, domain, ports, extra, opset=13):
    """A file of one attention behind Identity nodes, and NAME.npy of its inputs; ports: name → array."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in ports.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_port"], name=name) for name in ports]
    first, *rest = (f"{name}_port" for name in ports)
    outputs = [M, D] if domain == "" else [M * D]
    nodes.append(helper.make_node(op_type, [first, *extra, *rest], ["y"], name="attention", domain=domain))
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [A, Q, *outputs])],
        [numpy_helper.from_array(array, name) for name, array in extra.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "a.onnx")
    for name, array in ports.items():
        np.save(folder / f"{name}.npy", array)
    return folder / "a.onnx"


def report_of(path, dialect, precision):
    file = read_network(path, str(dialect), standard=True)
    return hazards_of(file, feeds_of(file, None, path.parent)[0], precision)


def random(*shape: int, start: float = 0.0, end: float = 1.0) -> np.ndarray:
    return np.random.default_rng(shape).uniform(start, end, shape).astype(np.float32)


def values():
    return {"value": random(A, int(MAPS.prod(1).sum()), M, D)}


def test_reference_points_offsets_and_logits_are_looked_at(tmp_path):
    ports = {
        **values(), "ref": random(A, Q, 1, 2, start=0.5), "offset": random(A, Q, M, L * P * 2, end=30),
        "logit": np.full((A, Q, M, L * P), 10.0, np.float32),
    }  # fmt: skip
    path = attention_file(tmp_path, "MultiScaleDeformableAttnTRT", "", ports, {"shapes": MAPS.astype(np.int32)})
    report = report_of(path, "bevformer_tensorrt", "bf16")
    found = {(hazard.kind, hazard.tensor, hazard.words.split(":")[0]) for hazard in report.found}
    assert ("location", "ref_port", "the reference points on map 0 of 2 rounded") in found
    assert any(kind == "sampling offset" and tensor == "offset_port" for kind, tensor, _ in found) and report.unseen == ()
    apart = np.abs(BF16.rounded(ports["ref"]) - ports["ref"].astype(np.float64)).reshape(-1, 2) * [200, 100]
    (first,) = (one for one in report.found if one.kind == "location" and "map 0" in one.words)
    assert first.figures["most"] == pytest.approx(apart.max(), rel=1e-6) and "200 x 100" in first.words
    (soft,) = (one for one in report_of(path, "bevformer_tensorrt", "fp16").found if one.kind == "softmax")
    assert soft.tensor == "logit_port" and soft.figures["terms"] == L * P


def varied(folder, new):
    """mmcv's dialect with other forms of its locations."""
    line = '    { name = "sampling_locations", form = "sampling_locations", dtype = "float32", rank = 6 },'
    text = (DIALECTS / "mmcv.toml").read_text()
    assert line in text
    path = folder / "mine.toml"
    path.write_text(text.replace(line, "\n".join(new)).replace('name = "mmcv"', 'name = "mine"', 1))
    return path


def test_merged_locations_of_two_levels_are_held_against_their_own_maps(tmp_path):
    ports = {**values(), "loc": random(A, Q, M, L * P * 2), "weight": random(A, Q, M, L, P)}
    dialect = varied(tmp_path, ['    { name = "l", form = "sampling_locations_merged", dtype = "float32", rank = 4 },'])
    extra = {"shapes": MAPS, "start": np.array([0, 20_000])}
    path = attention_file(tmp_path, "MMCVMultiScaleDeformableAttention", "mmcv", ports, extra)
    found = [one for one in report_of(path, dialect, "bf16").found if one.kind == "location product" and one.tensor == "loc_port"]
    assert len(found) == 2
    for level, ((height, width), hazard) in enumerate(zip(MAPS, sorted(found, key=lambda one: one.words), strict=True)):
        points = ports["loc"].reshape(A, Q, M, L, P, 2)[:, :, :, level].reshape(-1, 2)
        size = np.array([width, height])
        half = BF16.rounded(BF16.rounded(BF16.rounded(points) * size) - 0.5)
        assert hazard.figures["most"] == pytest.approx(np.abs(half - (points * np.float64(size) - 0.5)).max())
        assert f"on map {level} of 2" in hazard.words and f"{width} x {height}" in hazard.words


def test_ports_that_are_not_looked_at_are_told(tmp_path):
    ports = {**values(), "x": random(A, Q, M, L, P), "y_": random(A, Q, M, L, P), "weight": random(A, Q, M, L, P)}
    new = [f'    {{ name = "{part}", form = "sampling_locations_{part}", dtype = "float32", rank = 5 }},' for part in "xy"]
    dialect = varied(tmp_path, new)
    extra = {"shapes": MAPS, "start": np.array([0, 20_000])}
    path = attention_file(tmp_path, "MMCVMultiScaleDeformableAttention", "mmcv", ports, extra)
    ran = run_cli("hazards", path, "--dialect", dialect, "--inputs", tmp_path, "--json", tmp_path / "h.json")
    line = "sampling places with x and y on ports of their own: attention"
    assert ran.status == 0 and f"not looked at: {line}" in ran.out.splitlines()
    assert json.loads((tmp_path / "h.json").read_text())["not_looked_at"] == [line]


@pytest.mark.parametrize(("corners", "form"), [(0, "grid"), (1, "corner grid")])
def test_a_grid_is_rounded_as_it_is(tmp_path, corners, form):
    grid = random(1, 50, 3, 2, start=-0.9, end=0.9)
    sizes = np.array([200, 116])
    whole = sizes - 1 if corners else sizes

    def pixels(points, held=lambda array: array):
        wide = held(held(points + 1) * whole)
        return (wide if corners else held(wide - 1)) / 2

    exact = pixels(grid.astype(np.float64).reshape(-1, 2))
    found = {one.kind: one for one in of_locations(PLACE, grid, 200, 116, FP16, form, "grid")}
    port = np.abs(pixels(FP16.rounded(grid).reshape(-1, 2)) - exact)
    kernel = np.abs(pixels(FP16.rounded(grid).reshape(-1, 2), FP16.rounded) - exact)
    assert found["location"].figures["most"] == pytest.approx(port.max())
    assert found["location product"].figures["most"] == pytest.approx(kernel.max())
    ports = {"img": random(1, 1, 116, 200), "grid": grid}
    node = helper.make_node("GridSample", ["img", "grid"], ["y"], name="s", align_corners=corners)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in ports.items()]
    graph = helper.make_graph([node], "g", info, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 50, 3])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), tmp_path / "s.onnx")
    for name, array in ports.items():
        np.save(tmp_path / f"{name}.npy", array)
    file = read_network(tmp_path / "s.onnx", None, standard=True)
    report = hazards_of(file, feeds_of(file, None, tmp_path)[0])
    (hazard,) = (one for one in report.found if one.kind == "location")
    assert hazard.figures == found["location"].figures and "the grid rounded" in hazard.words


def test_offsets_longer_than_the_map_sample_nothing():
    offsets = np.array([[30.1, -2.0], [1e6, 0.0]], np.float32)
    (found,) = of_pixels(PLACE, offsets, 200, 116, BF16)
    assert found.figures["most"] == pytest.approx(abs(float(BF16.rounded(np.array([30.1]))[0]) - np.float64(np.float32(30.1))), abs=1e-6)
    assert found.figures["step"] == 0.125 and list(of_pixels(PLACE, offsets, 200, 116, FP16)) == []


def test_packed_offsets_become_pairs():
    packed = random(2, 9, 4, 5)  # three taps: all dx, all dy, the mask
    pairs = pairs_of(packed).reshape(2, 3, 2, 4, 5)
    np.testing.assert_array_equal(pairs[:, :, 0], packed[:, 3:6])
    np.testing.assert_array_equal(pairs[:, :, 1], packed[:, :3])


def test_rows_of_empty_slots_are_left_out():
    filled = filled_slots(np.array([[0, 3, 0], [2, 0, 0]]))
    locations = random(2, 3, 4, 1, 2, 2)
    port = Port("location", "locations", ((4, 4),), locations.shape)
    np.testing.assert_array_equal(rows_of(locations, port, filled), locations[[0, 0, 1], [0, 1, 0]])
    grid = locations.transpose(0, 2, 1, 3, 4, 5).reshape(8, 3, 2, 2)  # images times heads
    kept = rows_of(grid, Port("grid", "grid", ((4, 4),), (8, 3, 1, 1, 2, 2)), filled)
    assert sorted(kept.reshape(-1).tolist()) == sorted(locations[[0, 0, 1], [0, 1, 0]].reshape(-1).tolist())
    assert len(rows_of(locations, port, None)) == 6


@pytest.mark.parametrize("name", ["runtime_export", "tables_export", "fixed_export", "standard_export"])
def test_slot_tables_are_found_wherever_they_are(request, name):
    """Made by nodes, fed, or constant; the first layer of a fixed file depends on constants alone, and is looked at nevertheless."""
    file = read_network(request.getfixturevalue(name).model, None, standard=True)
    feeds = feeds_of(file, None, None)[0]
    looker = Looker(file, BF16)
    report = hazards_of(file, feeds, "bf16")
    levels = set()
    for tensor, array in walk(file, feeds, [*looker.tables, *looker.wanted]):
        list(looker.look(tensor, array))
        for port in looker._ports.get(tensor, ()):
            if port.kind in ("location", "grid"):
                level = int(port.stage.removeprefix("level "))
                heads = port.shape[0] // file.spec.config.num_cameras if port.kind == "grid" else 1
                kept = len(rows_of(array, port, looker._filled[port.stage]))
                assert kept == report.hits[0].levels[level][0] * heads < port.shape[0] * port.shape[1]
                levels.add(level)
    assert levels == {0, 1, 2}
    kinds = {hazard.tensor for hazard in report.found if hazard.kind == "location product"}
    assert any("transformer_0_encoder_layers_0" in tensor for tensor in kinds)
