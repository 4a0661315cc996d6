"""Grading: the confusion matrix of kernels with injected bugs, files of every kind, what is missing or misshapen, and the command."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kit import DTYPES, attention_kernel, deform_kernel, write_outputs, write_vectors
from occport.commands import grade as command
from occport.errors import ExportError, ModelFileError, UserError
from occport.graph.dialect import load
from occport.graph.port_arrays import lower_arrays, lower_output
from occport.kit.cases.case import split_shape
from occport.kit.cases.folder import Held, write_case, write_index
from occport.kit.cases.golden import golden
from occport.kit.cases.record import Index
from occport.kit.cases.tolerance import bound
from occport.kit.grading.grade import grade
from occport.kit.vectors.edge_cases import edge_cases

CHOSEN = ("plain", "no_bias", "stride", "dilation", "padding_uneven", "row_kernel", "deform_groups", "both_groups", "far_offsets")
CASES = {
    "narrow": edge_cases("msda"), "wide": edge_cases("msda", wide=True),
    "dcn": tuple(case for case in edge_cases("dcn") if case.name.removeprefix("dcn_edge_") in CHOSEN),
}  # fmt: skip
KERNELS = {"narrow": attention_kernel, "wide": attention_kernel, "dcn": deform_kernel}
READING = ["border", "nearest", "corner_weights_exchanged"]
ATTENTION = [
    *READING, "half_pixel_missing", "align_corners", "softmax_again", "weights_ignored", "starts_ignored", "shapes_as_wh",
    "value_of_first_image", "value_heads_first", "output_channels_first", "output_transposed", "scaled",
]  # fmt: skip
BUGS = {
    "narrow": [*ATTENTION, "xy_swapped"],
    "wide": [*ATTENTION, "softmax_missing", "softmax_of_points", "offsets_by_hw", "offsets_not_divided"],
    "dcn": [
        *READING, "stride_ignored", "dilation_ignored", "padding_ignored", "weight_by_columns", "first_deform_group_for_all",
        "input_of_first_image", "offsets_in_blocks", "offsets_as_dxdy", "half_pixel_left", "mask_ignored", "sigmoid_again", "bias_missing",
        "bias_twice", "output_channels_last",
    ],
}  # fmt: skip
PAIRS = [
    ("narrow", "xy_swapped+half_pixel_missing"), ("narrow", "border+align_corners"), ("wide", "softmax_again+starts_ignored"),
    ("wide", "offsets_by_hw+scaled"), ("dcn", "mask_ignored+bias_missing"), ("dcn", "offsets_as_dxdy+border"),
    ("dcn", "half_pixel_left+bias_twice"),
]  # fmt: skip


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A vectors folder for each set of cases. Nobody writes into them."""
    folders = {}
    for name, cases in CASES.items():
        folders[name] = tmp_path_factory.mktemp("vectors") / name
        write_vectors(folders[name], cases)
    return folders


def graded(vectors, tmp_path, form, dtype, bug=""):
    write_outputs(tmp_path / "theirs", CASES[form], KERNELS[form](dtype, bug))
    return grade(vectors[form], tmp_path / "theirs", dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", CASES)
def test_right_kernels_pass(vectors, tmp_path, form, dtype):
    report = graded(vectors, tmp_path, form, dtype)
    assert report.passed and [verdict.kind for verdict in report.verdicts] == ["passed"]
    assert all(case.status == "passed" and case.dtype == dtype and case.outside == 0 and case.total > 0 for case in report.cases)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("form", "bug"), [(form, bug) for form, names in BUGS.items() for bug in names])
def test_the_confusion_matrix(vectors, tmp_path, form, bug, dtype):
    """Kernels with one bug each, which share no code with the table: the verdict names that bug and no other."""
    report = graded(vectors, tmp_path, form, dtype, bug)
    assert not report.passed
    assert [(verdict.kind, [found.name for found in verdict.bugs]) for verdict in report.verdicts] == [("named", [bug])]
    if bug == "scaled":
        assert "0.125" in report.verdicts[0].bugs[0].what


@pytest.mark.parametrize(("form", "bug"), PAIRS)
def test_two_bugs_at_once_are_unknown(vectors, tmp_path, form, bug):
    verdict = graded(vectors, tmp_path, form, "float32", bug).verdicts[0]
    assert (verdict.kind, verdict.bugs) == ("unknown", ())


def test_an_unknown_deviation_is_unknown(vectors, tmp_path):
    write_outputs(tmp_path / "theirs", CASES["narrow"], lambda case: golden(case).astype(np.float32) + np.float32(0.01))
    verdict = grade(vectors["narrow"], tmp_path / "theirs").verdicts[0]
    assert (verdict.kind, verdict.bugs) == ("unknown", ())


def test_a_bug_that_does_not_explain_the_passed_cases_is_not_named(vectors, tmp_path):
    wrong = attention_kernel("float32", "align_corners")
    write_outputs(tmp_path / "theirs", CASES["narrow"], lambda case: wrong(case) if case.name == "msda_edge_plain" else golden(case))
    report = grade(vectors["narrow"], tmp_path / "theirs")
    assert sum(case.status == "failed" for case in report.cases) == 1 and report.verdicts[0].kind == "unknown"


def test_bugs_that_cannot_be_told_apart_are_all_listed(tmp_path):
    """One case of one point says little: with its last point lost, a kernel gives zero as well."""
    case = next(case for case in CASES["narrow"] if case.name == "msda_edge_one_point")
    write_vectors(tmp_path / "one", [case])
    write_outputs(tmp_path / "theirs", [case], lambda case: np.zeros_like(golden(case)))
    verdict = grade(tmp_path / "one", tmp_path / "theirs").verdicts[0]
    assert verdict.kind == "ambiguous" and {bug.name for bug in verdict.bugs} == {"zero", "last_point_lost"}
    write_outputs(tmp_path / "theirs", [case], attention_kernel("float32", "weights_ignored"))
    assert grade(tmp_path / "one", tmp_path / "theirs").passed  # a softmax of one point is 1


def test_operators_are_judged_apart(tmp_path):
    cases = [*CASES["narrow"], *CASES["dcn"]]
    write_vectors(tmp_path / "vectors", cases)
    msda, dcn = attention_kernel("float32", "nearest"), deform_kernel("float32")
    write_outputs(tmp_path / "theirs", cases, lambda case: msda(case) if case.operator == "msda" else dcn(case))
    verdicts = grade(tmp_path / "vectors", tmp_path / "theirs").verdicts
    assert [(verdict.operator, verdict.kind) for verdict in verdicts] == [("msda", "named"), ("dcn", "passed")]


@pytest.mark.parametrize("name", ["bevformer_tensorrt", "ascend", "far3d_trt"])
def test_dialects_with_other_ports(tmp_path, name):
    """Ports are raised to quantities by their forms: merged points, offsets in blocks with the mask, heads on an axis of their own."""
    dialect = load(name)
    cases, records = [], []
    for form, contract in (("wide", dialect.msda), ("dcn", dialect.dcn)):
        case = CASES[form][0]
        ports = lower_arrays(contract, case.quantities)
        held = [Held(port.name, port.form, ports[port.name]) for port in contract.inputs if port.name in ports]
        shape = lower_output(contract, golden(case), case.quantities).shape
        records.append(write_case(tmp_path / "vectors", case, held, golden(case), shape, b"", {}))
        cases.append(case)
    write_index(tmp_path / "vectors", Index(name, {}, tuple(records)))
    shapes = {record.name: record.shape for record in records}
    write_outputs(tmp_path / "theirs", cases, lambda case: golden(case).reshape(shapes[case.name]))
    assert grade(tmp_path / "vectors", tmp_path / "theirs", "float16").passed
    msda, dcn = attention_kernel("float32", "half_pixel_missing"), deform_kernel("float32", "offsets_in_blocks")
    write_outputs(tmp_path / "theirs", cases, lambda case: (msda if case.operator == "msda" else dcn)(case).reshape(shapes[case.name]))
    found = [[bug.name for bug in verdict.bugs] for verdict in grade(tmp_path / "vectors", tmp_path / "theirs").verdicts]
    assert found == [["half_pixel_missing"], ["offsets_in_blocks"]]


def test_the_worst_element_is_named(vectors, tmp_path):
    case = CASES["narrow"][0]
    output = golden(case).astype(np.float32)
    A, Q, M, D = split_shape(case)
    output.reshape(A, Q, M, D)[1, 3, 0, 2] += 0.5
    output.reshape(A, Q, M, D)[0, 1, 1, 1] -= 0.001
    write_outputs(tmp_path / "theirs", CASES["narrow"], lambda each: output if each is case else golden(each))
    report = grade(vectors["narrow"], tmp_path / "theirs")
    got = next(one for one in report.cases if one.name == case.name)
    assert got.status == "failed" and (got.outside, got.total, got.nans) == (2, A * Q * M * D, 0)
    want, index = golden(case), np.ravel_multi_index((1, 3, 0, 2), (A, Q, M, D))
    assert got.worst.place == "image 1, query 3, head 0, channel 2"
    assert got.worst.expected == want.flat[index] and got.worst.got == output.flat[index]
    assert got.worst.allowed == bound(case, "float32").flat[index]


def test_nan_is_counted(vectors, tmp_path):
    def kernel(case):
        output = golden(case).astype(np.float32)
        output.flat[:2] = np.nan
        return output

    write_outputs(tmp_path / "theirs", CASES["dcn"], kernel)
    report = grade(vectors["dcn"], tmp_path / "theirs")
    assert all(case.nans == case.outside == 2 and case.note == f"2 of {case.total} values are nan" for case in report.cases)
    assert report.verdicts[0].kind == "unknown" and report.cases[0].worst.place == "image 0, channel 0, row 0, column 0"
    assert report.to_json()["cases"][0]["worst"]["got"] == "nan"
    write_outputs(tmp_path / "theirs", CASES["dcn"], lambda case: golden(case) * np.nan)
    assert [bug.name for bug in grade(vectors["dcn"], tmp_path / "theirs").verdicts[0].bugs] == ["nan"]


def test_another_shape(vectors, tmp_path):
    """The same numbers in another shape, a transposition, and another size."""
    A, Q, M, D = split_shape(CASES["narrow"][0])
    write_outputs(tmp_path, CASES["narrow"], lambda case: golden(case).reshape(split_shape(case)))
    report = grade(vectors["narrow"], tmp_path)
    assert {case.status for case in report.cases} == {"shape"} and report.verdicts[0].kind == "shape" and not report.passed
    note = f"expected shape [{A}, {Q}, {M * D}], got [{A}, {Q}, {M}, {D}]; the values are right in this order: reshape the output"
    assert report.cases[0].note == note

    write_outputs(tmp_path, CASES["dcn"], lambda case: golden(case).transpose(0, 2, 3, 1))
    report = grade(vectors["dcn"], tmp_path)
    assert report.cases[0].note == "expected shape [2, 6, 5, 7], got [2, 5, 7, 6]; the values are right after transpose(0, 3, 1, 2)"
    back = np.load(tmp_path / f"{report.cases[0].name}.npy").transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(back, golden(CASES["dcn"][0]))
    assert [bug.name for bug in report.verdicts[0].bugs] == ["output_channels_last"]

    write_outputs(tmp_path, CASES["dcn"], lambda case: golden(case)[:, :, 1:])
    report = grade(vectors["dcn"], tmp_path)
    assert report.cases[0].note == "expected shape [2, 6, 5, 7], got [2, 6, 4, 7]" and report.cases[0].worst is None
    assert (report.verdicts[0].kind, report.verdicts[0].unjudged) == ("unjudged", len(CASES["dcn"]))

    write_outputs(tmp_path, CASES["dcn"], lambda case: np.random.default_rng(0).normal(size=golden(case).T.shape))
    report = grade(vectors["dcn"], tmp_path)
    assert report.cases[0].note == "expected shape [2, 6, 5, 7], got [7, 5, 6, 2]" and report.verdicts[0].kind == "unknown"


def test_bad_input(vectors, tmp_path):
    with pytest.raises(UserError, match=r"outputs .*nowhere: expected a folder, got nothing; name it with --outputs"):
        grade(vectors["dcn"], tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a folder, got a file"):
        grade(vectors["dcn"], tmp_path / "file")
    (tmp_path / "empty").mkdir()
    wanted = r"expected an output of each case, such as dcn_edge_plain.npy, dcn_edge_plain.pb, .*, got none; name them after the cases"
    with pytest.raises(UserError, match=wanted):
        grade(vectors["dcn"], tmp_path / "empty")
    with pytest.raises(ModelFileError, match=r"expected an index.json in it, got .*; give the folder that `occport vectors"):
        grade(tmp_path / "empty", tmp_path / "empty")
    write_vectors(tmp_path / "none", [])
    with pytest.raises(UserError, match="expected cases, got none; write the vectors again"):
        grade(tmp_path / "none", tmp_path / "empty")


def test_the_vectors_folder_filled_in_place(vectors, tmp_path):
    """Its own right outputs are no kernel's: nothing passes by being looked for where the vectors are."""
    folder = Path(shutil.copytree(vectors["dcn"], tmp_path / "filled"))
    with pytest.raises(UserError, match=r"expected an output of each case, such as dcn_edge_plain.npy, .*, got none"):
        grade(folder, folder)
    for case in CASES["dcn"]:
        np.save(folder / case.name / "output.npy", deform_kernel("float32")(case))
    assert grade(folder, folder).passed and grade(vectors["dcn"], folder).passed


def test_an_operator_without_any_output(tmp_path):
    cases = [CASES["narrow"][0], CASES["dcn"][0]]
    write_vectors(tmp_path / "vectors", cases)
    write_outputs(tmp_path / "theirs", cases[:1], golden)
    report = grade(tmp_path / "vectors", tmp_path / "theirs")
    assert not report.passed and [verdict.kind for verdict in report.verdicts] == ["passed", "unjudged"]


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command(vectors, tmp_path, capsys):
    write_outputs(tmp_path / "theirs", CASES["dcn"], deform_kernel("float16"))
    assert run(vectors["dcn"], "--outputs", tmp_path / "theirs") == 0
    shown = capsys.readouterr().out
    assert f"{len(CASES['dcn'])} of {len(CASES['dcn'])} cases passed" in shown and "dcn: all cases passed" in shown
    assert shown.splitlines()[0].startswith("passed     dcn_edge_plain") and shown.splitlines()[0].endswith("float16")

    write_outputs(tmp_path / "theirs", CASES["dcn"], deform_kernel("float32", "bias_missing"))
    (tmp_path / "theirs" / "dcn_edge_stride.npy").unlink()
    report = tmp_path / "reports" / "grade.json"
    assert run(vectors["dcn"], "--outputs", tmp_path / "theirs", "--dtype", "float32", "--json", report) == 1
    shown = capsys.readouterr().out
    assert "missing    dcn_edge_stride" in shown and "no dcn_edge_stride.npy" in shown
    assert "1 of 9 cases passed" in shown  # no_bias
    assert "dcn: one known bug explains all cases (1 without an output to judge by)" in shown
    assert "  bias_missing: the bias is not added\n    look at: the fifth input\n" in shown
    assert "failed     dcn_edge_plain" in shown and "worst at image " in shown and "(100.0%)" in shown
    written = json.loads(report.read_text())
    assert written["format"] == "occport grade 1" and written["passed"] is False and written["dialect"] == "dl"
    verdict = written["verdicts"][0]
    assert (verdict["operator"], verdict["kind"], verdict["unjudged"]) == ("dcn", "named", 1)
    assert verdict["bugs"][0] == {"name": "bias_missing", "what": "the bias is not added", "look_at": "the fifth input"}
    statuses = {case["name"]: case["status"] for case in written["cases"]}
    assert statuses["dcn_edge_stride"] == "missing" and statuses["dcn_edge_no_bias"] == "passed"
    assert {"place", "got", "expected", "allowed"} == set(written["cases"][0]["worst"])


def test_a_report_that_cannot_be_written(vectors, tmp_path):
    write_outputs(tmp_path / "theirs", CASES["dcn"], golden)
    with pytest.raises(ExportError, match=r"--json .*theirs: expected a file to write, got a folder; choose another with --json"):
        run(vectors["dcn"], "--outputs", tmp_path / "theirs", "--json", tmp_path / "theirs")
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"--json .*grade.json: expected a file that can be written, got .*; choose another with --json"):
        run(vectors["dcn"], "--outputs", tmp_path / "theirs", "--json", tmp_path / "file" / "grade.json")
