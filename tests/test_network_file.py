"""Which file gets vectors, and what it is fed with: every way that it can be refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

from exporting import Exported
from occport.errors import ExportError, FrameError, ModelFileError
from occport.export.network_file import feeds_of, read_network
from occport.export.request import load_input
from occport.export.spec import from_json
from occport.export.subject import Subject
from vector_files import small_file


def test_an_export_brings_its_dialect_and_its_frame(runtime_export):
    file = read_network(runtime_export.model, None)
    assert (file.dialect.name, file.opset, file.input_names) == ("dl", 11, ["img", "lidar2img"])
    feeds, source = feeds_of(file, None, None)
    spec = from_json(runtime_export.manifest["spec"])
    loaded = load_input(spec.config, None, 0)
    np.testing.assert_array_equal(feeds["img"], loaded.img)
    np.testing.assert_array_equal(feeds["lidar2img"], loaded.lidar2img)
    assert source == "frame synthetic"


def test_tables_come_from_the_geometry_file(tables_export):
    file = read_network(tables_export.model, "dl")
    feeds, _ = feeds_of(file, None, None)
    spec = from_json(tables_export.manifest["spec"])
    want = Subject(spec, tables_export.model, tables_export.geometry).tables(load_input(spec.config, None, 0).lidar2img)
    assert list(feeds) == file.input_names and len(feeds) == 13
    for name in set(feeds) - {"img"}:
        np.testing.assert_array_equal(feeds[name], want[name])


def copied(good: Exported, folder, change) -> str:
    """The manifest of an export with a change, beside an empty file."""
    folder.mkdir()
    table = json.loads(json.dumps(good.manifest))
    change(table)
    path = folder / "m.onnx"
    path.with_suffix(".json").write_text(json.dumps(table))
    path.symlink_to(good.model)
    return path


def test_a_geometry_file_that_is_gone(tables_export, tmp_path):
    path = copied(tables_export, tmp_path / "a", lambda table: None)
    with pytest.raises(ModelFileError, match=r"geometry file of .*expected the one of the export, got no .*geometry.onnx; keep the files"):
        feeds_of(read_network(path, None), None, None)
    path = copied(tables_export, tmp_path / "b", lambda table: table["files"].pop("geometry"))
    with pytest.raises(ModelFileError, match="expected the one of the export, got none"):
        feeds_of(read_network(path, None), None, None)


def test_a_frame_that_is_gone_or_of_another_size(runtime_export, tmp_path):
    path = copied(runtime_export, tmp_path / "a", lambda table: table["frame"].update(spec="/nowhere/frame.json"))
    with pytest.raises(FrameError, match=r"frame /nowhere/frame.json: expected the frame of the export, got none; give --frame"):
        feeds_of(read_network(path, None), None, None)
    path = copied(runtime_export, tmp_path / "b", lambda table: table["spec"].update(image_hw=[32, 96]))
    with pytest.raises(FrameError, match=r"padded image size: expected \(32, 96\), got \(64, 96\)"):
        feeds_of(read_network(path, None), None, None)


def test_branches_and_loops_are_refused(tmp_path):
    """What is inside reads values of the main graph without a port, which no cut, count or walk would follow."""
    port = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    inner = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "inner", [], [port])
    node = onnx.helper.make_node("If", ["c"], ["y"], name="choice", then_branch=inner, else_branch=inner)
    inputs = [onnx.helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (("x", 1, [2]), ("c", 9, []))]
    graph = onnx.helper.make_graph([node], "g", inputs, [port])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=r"all nodes in the main graph, got a graph inside If choice; export it without") as got:
        read_network(tmp_path / "m.onnx", None, standard=True)
    assert "\n" not in str(got.value)


def test_another_dialect_than_the_manifests(runtime_export, standard_export):
    with pytest.raises(ExportError, match=r"--dialect ascend: expected dl, as the manifest of .* says; leave --dialect out"):
        read_network(runtime_export.model, "ascend")
    with pytest.raises(ExportError, match=r"--dialect nothing: expected one of .*got an unknown name"):
        read_network(runtime_export.model, "nothing")
    with pytest.raises(ExportError, match="expected a dialect with custom nodes, got standard"):
        read_network(standard_export.model, None)


def test_a_file_without_a_manifest_needs_a_dialect_and_arrays(tmp_path):
    path, inputs = small_file(tmp_path, "mmdeploy")
    with pytest.raises(ModelFileError, match=r"dialect of .*expected a manifest beside it that tells, got none; name it with --dialect"):
        read_network(path, None)
    file = read_network(path, "mmdeploy")
    wanted = r"expected --inputs FOLDER with img.npy, slots.npy, ref_uv.npy, got"
    with pytest.raises(ModelFileError, match=f"{wanted} none"):
        feeds_of(file, None, None)
    with pytest.raises(ModelFileError, match=f"{wanted} --frame"):
        feeds_of(file, "frame.json", None)
    with pytest.raises(FrameError, match="--frame and --inputs: expected one of them, got both"):
        feeds_of(file, "frame.json", inputs)
    feeds, source = feeds_of(file, None, inputs)
    assert list(feeds) == ["img", "slots", "ref_uv"] and source == "the arrays in mmdeploy_inputs"
    np.testing.assert_array_equal(feeds["img"], np.load(inputs / "img.npy"))


@pytest.mark.parametrize(("spoil", "got"), [
    (lambda path: path.unlink(), "got No such file or directory; the folder needs one for each input: img, slots, ref_uv"),
    (lambda path: path.write_bytes(b"text"), "expected the array of input slots, got"),
    (lambda path: np.save(path, np.array([{}], object), allow_pickle=True), "got Object arrays cannot be loaded"),
    (lambda path: shutil.move(_archive(path), path), "got an npz archive; save it with numpy.save"),
])  # fmt: skip
def test_an_array_that_cannot_be_read(spoil, got, tmp_path):
    path, inputs = small_file(tmp_path, "dl")
    spoil(inputs / "slots.npy")
    with pytest.raises(ModelFileError, match=r"slots.npy: expected the array of input slots, ") as error:
        feeds_of(read_network(path, "dl"), None, inputs)
    assert got in str(error.value) and "\n" not in str(error.value)


def _archive(path):
    np.savez(path.with_suffix(".npz"), a=np.zeros(1))
    return path.with_suffix(".npz")


def test_a_file_of_another_dialect_speaks_of_this_commands_flag(tmp_path):
    path, _ = small_file(tmp_path, "dl")
    with pytest.raises(ModelFileError, match="choose another dialect with --dialect") as error:
        read_network(path, "ascend")
    assert "--from" not in str(error.value)
    with pytest.raises(ExportError, match="--dialect standard: expected a dialect with custom nodes"):
        read_network(path, "standard")
    with pytest.raises(ExportError, match="--dialect nothing: expected one of"):
        read_network(path, "nothing")
    with pytest.raises(ModelFileError, match=r"none.onnx: expected an ONNX file, got no such file"):
        read_network(tmp_path / "none.onnx", None)


def test_an_input_with_a_default_need_not_be_fed(tmp_path):
    path, _ = small_file(tmp_path, "dl")
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "conv_weight")
    model.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
    onnx.save(model, path)
    assert read_network(path, "dl").input_names == ["img", "slots", "ref_uv"]


def test_a_file_of_standard_operators_where_that_is_wanted(standard_export, tmp_path):
    file = read_network(standard_export.model, None, standard=True)
    assert file.dialect.name == "standard" and file.spec == from_json(standard_export.manifest["spec"])
    bare = tmp_path / "bare.onnx"
    bare.symlink_to(standard_export.model)
    file = read_network(bare, None, standard=True)
    assert (file.dialect.name, file.manifest, file.spec, file.opset) == ("standard", None, None, standard_export.manifest["opset"])
    assert all(info.type.tensor_type.HasField("shape") for info in file.model.graph.value_info)
