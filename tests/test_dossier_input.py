"""What `occport dossier` makes of files and arguments that are not as usual: refusals in one line, and networks of any shape."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from exporting import assert_refused, contents, run_cli
from occport.export.network_file import feeds_of, read_network


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (("--chip", "nonesuch"), "nonesuch"),
        (("--vectors", "nowhere"), "vectors folder nowhere"),
        (("--frame", "gone.json"), "gone.json"),
        (("--dialect", "mmcv"), "--dialect mmcv"),
        (("--precision", "fp8"), "invalid choice"),
        (("--inputs", "nowhere"), "nowhere/img.npy: expected the array of input img"),
        (("--inputs", "nowhere", "--frame", "gone.json"), "--frame and --inputs: expected one of them"),
        (("--no-run", "--inputs", "nowhere"), "--no-run: expected no --inputs with it"),
        (("--no-run", "--frame", "gone.json"), "--no-run: expected no --frame with it"),
    ],
)
def test_what_the_user_names_must_be_usable(runtime_export, tmp_path, flags, fragment):
    assert_refused(run_cli("dossier", runtime_export.model, "-o", tmp_path / "out", *flags), fragment)
    assert contents(tmp_path) == {}


def test_arrays_of_another_shape_or_type_are_refused(runtime_export, tmp_path):
    feeds = feeds_of(read_network(runtime_export.model, None), None, None)[0]
    for name, array in feeds.items():
        np.save(tmp_path / f"{name}.npy", array[..., :-1] if name == "img" else array)
    flags = ("-o", tmp_path / "out", "--inputs", tmp_path)
    shape = list(feeds["img"].shape)
    ran = run_cli("dossier", runtime_export.model, *flags)
    assert_refused(ran, f"expected float32 {shape}, got float32 {[*shape[:-1], shape[-1] - 1]}")
    np.save(tmp_path / "img.npy", feeds["img"].astype(np.float64))
    assert_refused(run_cli("dossier", runtime_export.model, *flags), f"expected float32 {shape}, got float64 {shape}")
    assert not (tmp_path / "out").exists()


def test_networks_without_work_names_or_first_outputs(tmp_path):
    """A weight that is an output, an output that is left out, a constant without a tensor, sizes of zero, and no nodes at all."""
    port, made = onnx.helper.make_tensor_value_info, {}
    lstm = [onnx.numpy_helper.from_array(np.ones((1, 32, size), np.float32), name) for name, size in (("w", 4), ("r", 8))]
    node = onnx.helper.make_node
    made["weight"] = ([node("Relu", ["x"], ["y"])], [("x", [4])], [("y", [4]), ("w", [1, 32, 4])], lstm[:1])
    made["lstm"] = ([node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=8)], [("x", [5, 1, 4])], [("y", [1, 1, 8])], lstm)
    made["constant"] = ([node("Constant", [], ["c"], value_float=2.0), node("Mul", ["x", "c"], ["y"])], [("x", [4])], [("y", [4])], [])
    made["zero"] = ([node("Relu", ["x"], ["y"])], [("x", [0, 4])], [("y", [0, 4])], [])
    made["empty"] = ([], [("x", [4])], [("x", [4])], [])
    for name, (nodes, inputs, outputs, weights) in made.items():
        sides = ([port(one, 1, shape) for one, shape in side] for side in (inputs, outputs))
        graph = onnx.helper.make_graph(nodes, name, *sides, weights)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / f"{name}.onnx")
        ran = run_cli("dossier", tmp_path / f"{name}.onnx", "-o", tmp_path / "out", "--no-run", "--chip", "example-edge")
        assert ran.status == 0, ran.err
        table = json.loads((tmp_path / f"out/{name}.dossier.json").read_text())
        assert [one["name"] for one in table["about"]["outputs"]] == [info.name for info in model.graph.output]
        assert table["cost"]["roofline"] is not None


def test_a_place_that_cannot_be_written_to(runtime_export, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(run_cli("dossier", runtime_export.model, "-o", tmp_path / "file", "--no-run"), "output folder")
    assert_refused(run_cli("dossier", tmp_path / "none.onnx", "-o", tmp_path), "no such file")
