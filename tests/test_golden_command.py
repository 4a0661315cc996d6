"""`occport golden` as a user runs it: the folder, the index, marks, formats, the disk, and what it refuses."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from exporting import assert_refused, contents, run_cli
from occport.bringup.dumps import golden
from occport.bringup.dumps.axes import axes_of, levels_of
from occport.bringup.dumps.formats import FORMATS, load, sha256_of_array
from occport.bringup.dumps.index import read_index
from occport.bringup.dumps.marks import custom_nodes_of, marked, named_tensors
from occport.errors import UserError
from occport.export.network_file import feeds_of, read_network
from occport.graph.model_file import sha256_of
from occport.graph.submodel import value_types


@pytest.fixture(scope="module")
def everything(runtime_export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "all"
    ran = run_cli("golden", runtime_export.model, "-o", folder, "--mark", "all")
    assert ran.status == 0, ran.err
    return folder


def test_all_is_every_tensor_that_follows_from_the_inputs(everything, runtime_export):
    index = read_index(everything)
    file = read_network(runtime_export.model, None, standard=True)
    live = set(file.input_names)
    for node in file.model.graph.node:
        if live & set(node.input):
            live |= set(node.output)
    assert {entry.name for entry in index.tensors} == live & set(value_types(file.model.graph))
    order = [*file.input_names, *(name for node in file.model.graph.node for name in node.output)]
    names = [entry.name for entry in index.tensors]
    assert names == sorted(names, key=order.index)
    assert index.model_sha256 == sha256_of(runtime_export.model) and index.dialect == "dl" and len(index.cameras) == 4
    for entry in index.tensors:
        array = load(everything, index, entry)
        assert sha256_of_array(array) == entry.sha256, entry.name
    np.testing.assert_array_equal(np.load(everything / "img.npy"), feeds_of(file, None, None)[0]["img"])


def test_entries_tell_node_operator_and_place(everything, runtime_export):
    index = read_index(everything)
    custom = [entry for entry in index.tensors if "::" in entry.op_type]
    assert {entry.op_type for entry in custom} == {"DL::ModulatedDeformConv2d", "DL::MultiScaleDeformableAttnFunction"}
    assert all(entry.node and entry.stage != "" and entry.role == "inner" for entry in custom)
    assert {entry.stage for entry in custom} <= {"backbone", "level 0", "level 1", "level 2"}
    assert [entry.role for entry in index.tensors if not entry.op_type] == ["input", "input"]
    assert {entry.name for entry in index.tensors if entry.role == "output"} == {
        info.name for info in onnx.load(runtime_export.model, load_external_data=False).graph.output
    }


def test_slots_say_which_voxel_and_axes_fit(everything):
    index = read_index(everything)
    assert len(index.slots) == len(index.grids) == 3
    for name, grid in zip(index.slots, index.grids, strict=True):
        table = load(everything, index, index.entry(name))
        assert index.entry(name).axes == ("A", "K") and table.min() == 0 and table.max() < np.prod(grid)
        rows = [row[: np.count_nonzero(row)] for row in table]
        assert all((np.diff(row[1:]) > 0).all() for row in rows)  # ascending voxels
    by_axes = {entry.axes for entry in index.tensors}
    for axes in (("A", "C", "H", "W"), ("A", "K", "M", "L", "P", "2"), ("V", "C"), ("B", "C", "Z", "Y", "X"), ("A", "S", "M", "D")):
        assert axes in by_axes
    assert all(len(entry.axes) in (0, len(entry.shape)) for entry in index.tensors)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_holds_the_same(form, everything, runtime_export, tmp_path):
    ran = run_cli("golden", runtime_export.model, "-o", tmp_path / "g", "--format", form)
    assert ran.status == 0 and "tensors on frame" in ran.out, ran.err
    index, whole = read_index(tmp_path / "g"), read_index(everything)
    file = read_network(runtime_export.model, None, standard=True)
    assert [entry.name for entry in index.tensors] == marked(file, ["custom"])
    for entry in index.tensors:
        got, want = load(tmp_path / "g", index, entry), load(everything, whole, whole.entry(entry.name))
        if got.dtype == np.float32:  # cut elsewhere: ONNX Runtime fuses other operators
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(float(np.abs(want).max()), 1e-3))
        else:
            assert np.mean(got != want) < 1e-3


def test_custom_marks_inputs_and_outputs_of_each_custom_node(runtime_export):
    file = read_network(runtime_export.model, None, standard=True)
    names = set(marked(file, ["custom"]))
    nodes, weights = custom_nodes_of(file), {tensor.name for tensor in file.model.graph.initializer}
    assert len(nodes) >= 4
    for node in nodes:
        assert set(node.output) <= names
        assert {name for name in node.input if name in set(named_tensors(file)) - weights} <= names


def test_stages_marks_what_goes_from_one_to_another(runtime_export):
    file = read_network(runtime_export.model, None, standard=True)
    names = marked(file, ["stages"])
    assert "img" in names and "projection_Clip" not in names
    assert any("img_neck" in name for name in names) and any("layer" in name for name in names)


def test_list_runs_nothing_and_tells_the_bytes(runtime_export, tmp_path):
    ran = run_cli("golden", runtime_export.model, "--list", "--mark", "img", "lab*")
    assert ran.status == 0 and ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0].split()[0] == "input" and lines[0].endswith("img")
    total = sum(int(line.split(" B ")[0].split()[-1].replace(",", "")) for line in lines[:-1])
    assert lines[-1] == f"{len(lines) - 1} tensors, {total:,} bytes"


def test_a_second_time_replaces_the_first(runtime_export, tmp_path):
    folder = tmp_path / "g"
    assert run_cli("golden", runtime_export.model, "-o", folder, "--mark", "stages").status == 0
    (folder / "notes.txt").write_text("mine")
    assert run_cli("golden", runtime_export.model, "-o", folder, "--mark", "img", "--format", "pb").status == 0
    index = read_index(folder)
    assert {path.name for path in folder.iterdir()} == {"index.json", "notes.txt", *(entry.file for entry in index.tensors)}
    assert all(entry.file.endswith(".pb") for entry in index.tensors)


def test_a_file_without_manifest_takes_arrays(runtime_export, everything, tmp_path):
    model = tmp_path / "plain.onnx"
    shutil.copy(runtime_export.model, model)
    ran = run_cli("golden", model, "--dialect", "dl", "--inputs", everything, "-o", tmp_path / "g", "--mark", "img")
    assert ran.status == 0, ran.err
    index = read_index(tmp_path / "g")
    assert index.cameras == () and index.grids == ()
    assert_refused(run_cli("golden", model, "-o", tmp_path / "h"), "name it with --dialect")


@pytest.mark.parametrize("export", ["tables_export", "standard_export", "fixed_export", "functions_export"])
def test_every_calibration_and_dialect_can_be_looked_into(export, request, tmp_path):
    exported = request.getfixturevalue(export)
    file = read_network(exported.model, None, standard=True)
    assert len(levels_of(file)) == (0 if export == "fixed_export" else 3)
    assert len(axes_of(file)) > 20
    ran = run_cli("golden", exported.model, "-o", tmp_path / "g", "--mark", "stages")
    assert ran.status == 0, ran.err
    assert len(read_index(tmp_path / "g").tensors) > 8


def test_what_cannot_be_is_refused_in_one_line(runtime_export, standard_export, tmp_path, monkeypatch):
    model = runtime_export.model
    assert_refused(run_cli("golden", model), "expected a folder for the tensors")
    assert_refused(run_cli("golden", tmp_path / "no.onnx", "-o", tmp_path / "g"), "no such file")
    assert_refused(run_cli("golden", model, "-o", tmp_path / "g", "--mark", "imgg"), "did you mean 'img'?")
    assert_refused(run_cli("golden", model, "-o", tmp_path / "g", "--mark", "zz*"), "no such tensor")
    assert_refused(run_cli("golden", standard_export.model, "-o", tmp_path / "g"), "--mark stages")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    assert_refused(run_cli("golden", model, "-o", tmp_path / "full"), "one with other files in it")
    assert_refused(run_cli("golden", model, "-o", tmp_path / "full/thesis.txt"), "got a file")
    monkeypatch.setattr(golden.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    before = contents(tmp_path)
    assert_refused(run_cli("golden", model, "-o", tmp_path / "g"), "bytes of free disk, got 1,000")
    assert contents(tmp_path) == before


def test_an_interrupt_leaves_nothing(runtime_export, tmp_path, monkeypatch):
    def stopped(file, feeds, wanted):
        yield "img", np.zeros(3, np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(golden, "walk", stopped)
    assert run_cli("golden", runtime_export.model, "-o", tmp_path / "g").status == 130
    assert not (tmp_path / "g").exists()


def test_a_spoilt_index_is_told(everything, tmp_path):
    table = json.loads((everything / "index.json").read_text())
    for broken in ({**table, "format_version": 9}, {**table, "tensors": 3}, [], {}):
        (tmp_path / "index.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match="what this occport writes"):
            read_index(tmp_path)
    with pytest.raises(UserError, match="make one with `occport golden"):
        read_index(tmp_path / "none")
