"""The command: what it prints, its JSON, its exit status, one line for bad input; and it never imports torch or ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from linting import CUSTOM, clean, node, run_lint, saved, set_attribute, set_constant, set_type, with_more_convs
from occport.graph import dialect as dialects
from occport.graph.lint.finding import ERROR, NOTE, Finding, fold

DL = dialects.load("dl")


def test_a_clean_file_exits_0(tmp_path):
    for name in CUSTOM:
        path = saved(clean(dialects.load(name)), tmp_path)
        assert run_lint(path, "--dialect", name) == (0, "0 errors, 0 notes\n", "")


def test_errors_come_before_notes_and_exit_1(tmp_path):
    model = clean(DL, 13)
    set_attribute(model, "deformable_groups", 2, old="deform_groups")
    set_constant(model, "msda_num_embed", 8)
    status, out, err = run_lint(saved(model, tmp_path), "--dialect", "dl")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        "error: msda: num_embed (msda_num_embed)",
        "    expected 24",
        "    got      8",
        "    fix      it is M*D, heads x head width",
        "error: conv: attribute deform_groups",
        "    expected int, deform_groups",
        "    got      none",
        "    fix      it stands there as 'deformable_groups', which the target does not read",
        "error: conv: attribute deformable_groups",
        "    expected none of this name",
        "    got      2",
        "    fix      did you mean 'deform_groups'? A target does not notice a wrong name",
        "note: opset_import",
        "    expected 11, the dialect's own, or less",
        "    got      13",
        "    fix      give --opset 13 if the target takes it",
        "3 errors, 1 note",
    ]


def test_notes_alone_exit_0(tmp_path):
    path = saved(clean(DL, 13), tmp_path)
    status, out, _ = run_lint(path, "--dialect", "dl")
    assert status == 0 and out.endswith("0 errors, 1 note\n")
    assert run_lint(path, "--dialect", "dl", "--opset", 13) == (0, "0 errors, 0 notes\n", "")
    status, out, _ = run_lint(path, "--dialect", "dl", "--opset", 11)
    assert status == 1 and "error: opset_import\n    expected 11\n    got      13\n" in out and out.endswith("1 error, 0 notes\n")


def test_many_nodes_with_one_fault_are_one_paragraph_and_all_in_the_json(tmp_path):
    model = with_more_convs(clean(DL), 20)
    path = saved(model, tmp_path)
    status, out, _ = run_lint(path, "--dialect", "dl", "--json", tmp_path / "out.json")
    assert status == 1 and out.count("error:") == 1
    assert "error: conv and 20 more: attribute padding\n    expected ints, padding (h, w)\n    got      none\n" in out
    assert out.endswith("21 errors, 0 notes\n")
    table = json.loads((tmp_path / "out.json").read_text())
    assert [row["node"] for row in table] == ["conv", *(f"conv{i}" for i in range(20))]
    assert table[0] == {
        "node": "conv", "what": "attribute padding", "expected": "ints, padding (h, w)", "got": "none",
        "fix": "a target takes a default of its own", "severity": "error",
    }  # fmt: skip


def test_the_json_does_not_take_the_place_of_the_model(tmp_path):
    path = saved(clean(DL), tmp_path)
    before = path.read_bytes()
    status, _, said = run_lint(path, "--dialect", "dl", "--json", path)
    assert status == 2 and said == f"occport: --json {path}: expected another file than the model, got the same; choose another name\n"
    assert path.read_bytes() == before


def test_folding_joins_what_differs_in_node_tensor_or_value_alone():
    lines = [
        Finding("a", "bs (x)", "2", "3", "fix"), Finding("b", "bs (y)", "2", "4", "fix"), Finding("c", "bs (z)", "2", "3", "another"),
        Finding("d", "bs (x)", "2", "3", "fix", NOTE), Finding("e", "num (x)", "2", "3", "fix"),
    ]  # fmt: skip
    folded = fold(lines)
    assert [(each.first.node, each.count, each.same_everywhere) for each in folded] == [
        ("a", 2, False), ("c", 1, True), ("d", 1, True), ("e", 1, True),
    ]  # fmt: skip
    assert str(lines[0]) == "a: bs (x): expected 2, got 3" and str(Finding("", "what")) == "what"
    assert str(Finding("n", "", "x\n y")) == "n: expected x y"
    assert {each.severity for each in lines} == {ERROR, NOTE}


def test_different_values_are_told_to_differ(tmp_path):
    model = clean(DL)
    set_type(model, "msda_value", (2, 47, 3, 8), TensorProto.FLOAT16)
    set_type(model, "conv_input", ["n", 4, 5, 7])
    set_type(model, "conv_mask", ["n", 18, 5, 7])
    _, out, _ = run_lint(saved(model, tmp_path), "--dialect", "dl")
    assert "error: input (conv_input) and 1 more\n    expected a static shape\n    got      float32 [?, 4, 5, 7], and others\n" in out


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "got an empty file"),
        (b"this is a text file, not a network\n" * 40, "expected an ONNX model"),
        (clean(DL).SerializeToString()[:-300], "expected an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_model_exits_2(tmp_path, data, words):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    status, out, err = run_lint(path, "--dialect", "dl")
    assert (status, out) == (2, "") and words in err and err.startswith("occport: model file") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dialect", "mmcvv"], "dialect 'mmcvv': expected one of ascend,"),
        (["--dialect", "none.toml"], "dialect file none.toml: expected a TOML file, got No such file"),
        (["--dialect", "dl", "--opset", "10"], "--opset: expected 11 to 22, got 10"),
        (["--dialect", "dl", "--json", "."], "--json .: expected a place that can be written to, got Is a directory"),
    ],
)
def test_bad_flags_exit_2(tmp_path, arguments, words):
    status, _, err = run_lint(saved(clean(DL), tmp_path), *arguments)
    assert status == 2 and words in err and err.count("\n") == 1


def test_a_file_that_is_not_there_exits_2(tmp_path):
    status, _, err = run_lint(tmp_path / "none.onnx", "--dialect", "dl")
    assert status == 2 and "No such file or directory" in err


def external(model: onnx.ModelProto, name: str, location: str, folder) -> None:
    """Moves the numbers of an initializer into a file of their own."""
    tensor = next(each for each in model.graph.initializer if each.name == name)
    (folder / location).write_bytes(numpy_helper.to_array(tensor).tobytes())
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def test_numbers_in_external_data_are_read_and_weights_are_not(tmp_path):
    tensorrt = dialects.load("tensorrt")
    model = clean(tensorrt)
    external(model, "msda_value_level_start_index", "starts.bin", tmp_path)
    external(model, "conv_weight", "weight.bin", tmp_path)
    (tmp_path / "weight.bin").unlink()
    path = saved(model, tmp_path)
    assert run_lint(path, "--dialect", "tensorrt")[0] == 0
    (tmp_path / "starts.bin").write_bytes(np.array([0, 36], np.int32).tobytes())
    status, out, _ = run_lint(path, "--dialect", "tensorrt")
    assert status == 1 and "msda: value_level_start_index" in out and "got      [0, 36]" in out
    (tmp_path / "starts.bin").unlink()
    status, _, err = run_lint(path, "--dialect", "tensorrt")
    assert status == 2 and "external data" in err and "got no such file" in err


def test_a_constant_that_is_damaged_exits_2(tmp_path):
    model = clean(DL)
    constant = next(each for each in model.graph.node if "msda_spatial_shapes" in each.output)
    constant.attribute[0].t.raw_data = b"\0" * 7
    status, _, err = run_lint(saved(model, tmp_path), "--dialect", "dl")
    assert status == 2 and "constant" in err and "expected data of int64 for shape [2, 2]" in err and err.count("\n") == 1


def test_a_dialect_of_the_users_own(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "dl"\nname = "mine"\n[dcn]\nop_type = "Own"\n')
    model = clean(DL)
    node(model, "conv").op_type = "Own"
    assert run_lint(saved(model, tmp_path), "--dialect", tmp_path / "mine.toml") == (0, "0 errors, 0 notes\n", "")


def test_big_weights_stay_on_disk(tmp_path):
    """A weight of 4 MB in the file: the same findings as without, and the file itself is not changed."""
    model = clean(DL)
    big = numpy_helper.from_array(np.ones(1 << 20, np.float32), "big")
    model.graph.initializer.append(big)
    model.graph.node.append(helper.make_node("ReduceMean", ["big"], ["mean"], "mean_node", keepdims=1))
    model.graph.output.append(helper.make_tensor_value_info("mean", 1, [1]))
    path = saved(model, tmp_path)
    before = path.read_bytes()
    assert run_lint(path, "--dialect", "dl") == (0, "0 errors, 0 notes\n", "")
    assert path.read_bytes() == before


def test_neither_torch_nor_a_runtime_is_imported(tmp_path):
    model = clean(DL)
    del model.graph.value_info[:]
    path = saved(model, tmp_path)
    script = (
        "import argparse, sys\nfrom occport.commands import lint\n"
        "before = sorted(name for name in sys.modules if name.partition('.')[0] in ('onnx', 'onnx_ir', 'numpy'))\n"
        "parser = argparse.ArgumentParser()\nlint.add_arguments(parser)\n"
        f"status = lint.run(parser.parse_args([{str(path)!r}, '--dialect', 'dl']))\n"
        "heavy = sorted({'torch', 'onnxruntime', 'onnxscript', 'PIL', 'rich'} & set(sys.modules))\n"
        "print(status, before, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 [] []", done.stdout + done.stderr
