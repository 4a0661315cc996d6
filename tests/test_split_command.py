"""`occport split` as a user runs it: the folder, its files one after another, bodies, and what it refuses."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest

from exporting import assert_refused, contents, edit_initializer, export, run_cli
from occport.bringup.dumps.formats import load, sha256_of_array
from occport.bringup.dumps.index import read_index
from occport.bringup.split import write
from occport.bringup.split.backend_test import tolerance
from occport.bringup.split.place import read_parts
from occport.export.network_file import feeds_of, read_network
from occport.graph.dialect import load as load_dialect
from occport.graph.model_file import sha256_of
from occport.graph.runnable import make_runnable
from occport.session import Session, open_session

EIGHT = ["tables", "backbone", "neck", "level_0", "level_1", "level_2", "decoder", "heads"]


@pytest.fixture(scope="module")
def eight(runtime_export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split") / "eight"
    ran = run_cli("split", runtime_export.model, "-o", folder, "--npy")
    assert ran.status == 0, ran.err
    assert "chain = whole, bit for bit\n" in ran.out and "8 parts on frame synthetic" in ran.out
    return folder


def pb(path):
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def test_the_files_one_after_another_give_the_golden_outputs(eight, runtime_export):
    """With what a stranger has: the parts' files, plain sessions, tensors handed on by name."""
    file = read_network(runtime_export.model, None, standard=True)
    values = dict(feeds_of(file, None, None)[0])
    whole = onnx.ModelProto()
    whole.CopyFrom(file.model)
    make_runnable(whole, file.dialect)
    want = open_session(whole, weights_folder=file.folder).run(values)
    for record in read_parts(eight).parts:
        place = eight / record.folder
        model = onnx.load(place / "model.onnx")
        make_runnable(model, file.dialect)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        assert [port.name for port in session.get_inputs()] == list(record.inputs)
        for i, name in enumerate(record.inputs):
            np.testing.assert_array_equal(pb(place / f"test_data_set_0/input_{i}.pb"), values[name])
        got = session.run(list(record.outputs), {name: values[name] for name in record.inputs})
        for i, (name, array) in enumerate(zip(record.outputs, got, strict=True)):
            np.testing.assert_array_equal(pb(place / f"test_data_set_0/output_{i}.pb"), array)
            values[name] = array
    for name, array in want.items():
        np.testing.assert_array_equal(values[name], array, err_msg=name)


def test_each_part_is_a_whole_model(eight, runtime_export):
    parts = read_parts(eight)
    assert [record.name for record in parts.parts] == EIGHT and parts.same_bits and not parts.functions
    assert (parts.dialect, parts.opset, parts.model_sha256) == ("dl", 11, sha256_of(runtime_export.model))
    custom = {}
    for record in parts.parts:
        path = eight / record.folder / "model.onnx"
        assert record.sha256 == sha256_of(path) and record.size == path.stat().st_size
        model = onnx.load(path)
        onnx.checker.check_model(model)
        assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
        assert {entry.domain for entry in model.opset_import} == {node.domain for node in model.graph.node} | {""}
        assert model.ir_version == 6 and model.graph.name == record.name and not model.functions
        custom[record.name] = sum(node.domain == "DL" for node in model.graph.node)
        assert {path.name for path in (eight / record.folder).iterdir()} == {"model.onnx", "data.json", "test_data_set_0"}
    whole = runtime_export.skeleton.graph
    assert sum(custom.values()) == sum(node.domain == "DL" for node in whole.node)
    assert [name for name, count in custom.items() if count] == ["backbone", "level_0", "level_1", "level_2"]


def test_the_index_tells_every_tensor_at_a_cut(eight):
    index, parts = read_index(eight), read_parts(eight)
    assert {entry.name for entry in index.tensors} == {name for one in parts.parts for name in (*one.inputs, *one.outputs)}
    for entry in index.tensors:
        array = load(eight, index, entry)
        assert sha256_of_array(array) == entry.sha256
        np.testing.assert_array_equal(np.load(eight / f"{entry.name}.npy"), array)
    assert index.entry("img").file == "test_backbone/test_data_set_0/input_0.pb"
    neck = next(one for one in parts.parts if one.name == "neck")
    assert index.entry(neck.outputs[1]).file == "test_neck/test_data_set_0/output_1.pb"
    assert {entry.stage for entry in index.tensors if entry.name in neck.outputs} == {"neck"}
    assert index.entry("labels_scale3").role == "output" and index.entry("lidar2img").role == "input"


def test_other_verbs_take_a_part(eight, tmp_path):
    model = eight / "test_level_2/model.onnx"
    ran = run_cli("golden", model, "-o", tmp_path / "golden", "--dialect", "dl", "--inputs", eight)
    assert ran.status == 0, ran.err
    assert any(entry.op_type == "DL::MultiScaleDeformableAttnFunction" for entry in read_index(tmp_path / "golden").tensors)
    ran = run_cli("split", eight / "test_neck/model.onnx", "-o", tmp_path / "again", "--inputs", eight)
    assert ran.status == 0, ran.err
    assert [one.name for one in read_parts(tmp_path / "again").parts] == ["neck"]


def test_some_parts_and_then_others(runtime_export, tmp_path):
    folder = tmp_path / "out"
    assert run_cli("split", runtime_export.model, "-o", folder, "--parts", "heads", "neck").status == 0
    assert [one.name for one in read_parts(folder).parts] == ["neck", "heads"]
    (folder / "test_neck/mine.txt").write_text("kept")
    assert run_cli("split", runtime_export.model, "-o", folder, "--parts", "heads").status == 0
    assert {path.name for path in folder.iterdir()} == {"parts.json", "index.json", "test_heads", "test_neck"}
    assert {path.name for path in (folder / "test_neck").rglob("*")} == {"mine.txt"}


def test_a_part_by_its_ends_inside_of_a_fusion(runtime_export, tmp_path):
    """A convolution that ONNX Runtime computes together with the sum behind it; the other summand is read from inside of the part."""
    add = next(node for node in runtime_export.skeleton.graph.node if node.name == "img_backbone_layer1_1_Add")
    ran = run_cli("split", runtime_export.model, "-o", tmp_path / "out", "--to", add.input[0])
    assert ran.status == 0, ran.err
    (record,) = read_parts(tmp_path / "out").parts
    assert (record.name, record.stage, record.inputs, record.outputs) == ("part", "", ("img",), (add.input[0],))
    assert {entry.name for entry in read_index(tmp_path / "out").tensors} == {"img", add.input[0]}


def test_fusions_across_a_cut_are_told(runtime_export, tmp_path, monkeypatch):
    """Where the usual run of the parts differs from that of the whole, and the run of every operator by itself does not."""
    monkeypatch.setattr(write, "Runner", _rounding(only_optimised=True))
    ran = run_cli("split", runtime_export.model, "-o", tmp_path / "out", "--parts", "neck")
    assert ran.status == 0 and not read_parts(tmp_path / "out").same_bits
    assert "chain = whole, bit for bit, with every operator run by itself" in ran.out
    assert "fused, logits_scale0_zyx: max abs" in ran.err


def _rounding(only_optimised: bool):
    """A runner whose whole has other last bits."""

    class Rounding(write.Runner):
        def whole(self, feeds, more):
            got = super().whole(feeds, more)
            if self.optimise or not only_optimised:
                got["logits_scale0_zyx"] = got["logits_scale0_zyx"] * np.float32(1 + 2e-7)
            return got

    return Rounding


def test_a_wrong_part_is_not_put_in_place(runtime_export, tmp_path, monkeypatch):
    real = write.write_part

    def spoiling(file, part, path, bodies):
        real(file, part, path, bodies)
        if part.graph.name == "neck":
            model = onnx.load(path)
            weight = next(tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 4)
            edit_initializer(model, weight, path.parent, lambda array: np.copyto(array[3], array[3] * np.float32(1.01)))
            onnx.save(model, path)

    monkeypatch.setattr(write, "write_part", spoiling)
    ran = run_cli("split", runtime_export.model, "-o", tmp_path / "out")
    assert ran.status == 1 and not (tmp_path / "out").exists()
    assert "FAILED logits_scale" in ran.out and "verification failed" in ran.err


def test_bodies_go_into_parts_of_an_opset_that_has_them(quick, tmp_path):
    made = export(tmp_path / "model", "--opset", "17")
    assert run_cli("split", made.model, "-o", tmp_path / "out", "--functions").status == 0
    parts = read_parts(tmp_path / "out")
    assert parts.functions and parts.same_bits
    for record in parts.parts:
        place = tmp_path / "out" / record.folder
        model = onnx.load(place / "model.onnx")
        assert bool(model.functions) == any(node.domain == "DL" for node in model.graph.node)
        stock = onnxruntime.InferenceSession(model.SerializeToString())
        stock.run(None, {name: pb(place / f"test_data_set_0/input_{i}.pb") for i, name in enumerate(record.inputs)})


def test_nodes_of_the_empty_domain_stand_there_again(quick, tmp_path):
    made = export(tmp_path / "model", "--dialect", "bevformer_tensorrt")
    assert load_dialect("bevformer_tensorrt").in_empty_domain
    assert run_cli("split", made.model, "-o", tmp_path / "out", "--parts", "level_1").status == 0
    model = onnx.load(tmp_path / "out/test_level_1/model.onnx")
    assert {node.domain for node in model.graph.node} == {""} and [entry.domain for entry in model.opset_import] == [""]
    kinds = {node.op_type for node in made.skeleton.graph.node}
    assert load_dialect("bevformer_tensorrt").msda.op_type in {node.op_type for node in model.graph.node} & kinds
    line = assert_refused(run_cli("split", made.model, "-o", tmp_path / "more", "--functions"), "no body can stand in ONNX's own")
    assert "leave --functions out" in line


def test_parts_of_16_bits(tmp_path):
    """Golden tensors have the file's type, and are rounded behind every node; geometry stays in float32."""
    made = export(tmp_path / "model", "--precision", "bf16")
    assert run_cli("split", made.model, "-o", tmp_path / "out").status == 0
    index, parts = read_index(tmp_path / "out"), read_parts(tmp_path / "out")
    assert parts.same_bits and [one.name for one in parts.parts] == EIGHT
    neck = next(one for one in parts.parts if one.name == "neck")
    for name in neck.outputs:
        array = load(tmp_path / "out", index, index.entry(name))
        assert array.dtype == ml_dtypes.bfloat16 and array.astype(np.float32).std() > 0
    kinds = {entry.dtype for entry in index.tensors if entry.stage == "tables"}
    assert kinds == {"float32", "int64"}
    assert_refused(run_cli("split", made.model, "-o", tmp_path / "more", "--functions"), "expected a file of float32")


def test_a_beginning_with_nothing_behind_it(standard_export):
    ran = run_cli("split", standard_export.model, "--list", "--from", "labels_scale0")
    assert "name an earlier one" in assert_refused(ran, "--from labels_scale0: expected a tensor that an output follows from")


def test_the_list_runs_nothing(runtime_export, monkeypatch):
    monkeypatch.setattr(Session, "run", None)
    ran = run_cli("split", runtime_export.model, "--list")
    assert ran.status == 0 and [line.split(":")[0] for line in ran.out.splitlines() if line[0] != " "] == EIGHT
    ran = run_cli("split", runtime_export.model, "--list", "--to", "labels_scale0", "--from", "img", "lidar2img")
    assert ran.out.splitlines()[0].startswith("part: ") and ran.out.splitlines()[1:] == ["  < img", "  < lidar2img", "  > labels_scale0"]


def test_what_cannot_be_is_refused(runtime_export, standard_export, tmp_path, monkeypatch):
    model, out = runtime_export.model, tmp_path / "out"
    assert_refused(run_cli("split", model), "-o DIR: expected a folder for the parts, got none")
    assert_refused(run_cli("split", tmp_path / "none.onnx", "-o", out), "no such file")
    assert_refused(run_cli("split", model, "-o", out, "--parts", "nek"), "--parts nek: expected stages, or some of tables")
    line = assert_refused(run_cli("split", model, "-o", out, "--parts", "neck", "--to", "labels_scale0"), "--from and --to")
    assert "got --parts neck, too; leave one out" in line
    assert_refused(run_cli("split", model, "-o", out, "--to", "labels"), "--to labels: expected one of")
    line = assert_refused(run_cli("split", model, "-o", out, "--functions"), "--functions: expected a file of opset 16 to 22, got opset 11")
    assert "export with --opset 16..22" in line
    assert_refused(run_cli("split", standard_export.model, "-o", out, "--functions"), "--functions: expected a file with custom nodes")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    assert_refused(run_cli("split", model, "-o", tmp_path / "mine"), "expected a new or empty folder, or one of earlier parts")
    assert_refused(run_cli("split", model, "-o", tmp_path / "mine/thesis.txt"), "got a file; choose another with -o")
    (tmp_path / "mine/parts.json").write_text(json.dumps({"format_version": 1, "parts": 3}))
    assert_refused(run_cli("split", model, "-o", tmp_path / "mine"), "got one with other files in it")
    assert contents(tmp_path / "mine").keys() == {"thesis.txt", "parts.json"} and not out.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    line = assert_refused(run_cli("split", model, "-o", out), "bytes of free disk, got 1,048,576")
    needed = int(line.split("expected ")[1].split(" bytes")[0].replace(",", ""))
    sizes = [tensor.dims for tensor in runtime_export.skeleton.graph.initializer]
    assert 4 * sum(int(np.prod(dims)) for dims in sizes) * 0.9 < needed and not out.exists()


def test_arrays_that_do_not_fit_are_refused(runtime_export, tmp_path):
    file = read_network(runtime_export.model, None, standard=True)
    feeds = feeds_of(file, None, None)[0]
    for name, array in feeds.items():
        np.save(tmp_path / f"{name}.npy", array[..., :-1] if name == "img" else array)
    ran = run_cli("split", runtime_export.model, "-o", tmp_path / "out", "--inputs", tmp_path)
    line = assert_refused(ran, "input 'img' of model 'backbone'")
    assert str(list(feeds["img"].shape)) in line and not (tmp_path / "out").exists()


def test_weights_that_are_missing_are_the_files_fault(tmp_path):
    """And not the disk's that the parts go to."""
    weight = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 64]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="m")], "g", ports[:1], ports[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    np.save(tmp_path / "x.npy", np.ones((2, 64), np.float32))
    flags = ("-o", tmp_path / "out", "--to", "y", "--inputs", tmp_path)
    assert run_cli("split", tmp_path / "m.onnx", *flags).status == 0
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "m.data").write_bytes(bytes(100))
    line = assert_refused(run_cli("split", tmp_path / "m.onnx", *flags), "16384 bytes from offset 0 for 'w', got 100")
    assert "free some space" not in line and not (tmp_path / "out").exists()
    (tmp_path / "m.data").unlink()
    assert_refused(run_cli("split", tmp_path / "m.onnx", *flags), "got no such file")


def test_an_output_that_is_a_weight(tmp_path):
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xyw"]
    weight = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"], name="r")], "g", ports[:1], ports[1:], [weight])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.ones(4, np.float32))
    ran = run_cli("split", tmp_path / "m.onnx", "-o", tmp_path / "out", "--from", "x", "--inputs", tmp_path)
    assert ran.status == 0 and "chain = whole, bit for bit" in ran.out, ran.err


def test_tolerance_for_other_machines():
    floats = np.array([3.0, 4.0], np.float32)  # root mean square 3.5355
    assert tolerance([floats]) == {"rtol": 1e-3, "atol": pytest.approx(1e-4 * 12.5**0.5)}
    assert tolerance([floats, floats * 100]) == tolerance([floats])
    assert tolerance([floats, np.arange(3)]) == {"rtol": 0.0, "atol": pytest.approx(1e-4 * 12.5**0.5)}
    assert tolerance([np.ones(3, np.float16)]) == {"rtol": 16 / 1024, "atol": 16 / 1024}
    assert tolerance([np.ones(3, ml_dtypes.bfloat16), floats])["rtol"] == 16 / 128
    assert tolerance([np.arange(3)]) == {"rtol": 0.0, "atol": 0.0}
    assert tolerance([floats * 1e6, np.arange(3)])["atol"] == 0.5  # whole numbers stay exact
    assert tolerance([np.array([np.nan, np.inf], np.float32), floats * 0])["atol"] == 0.0
