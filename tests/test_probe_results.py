"""From results to a dialect: simulated compilers of many tastes, each held against the network in what was found for it."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilers import TASTES, Taste, compile_all, complaints
from exporting import TINY, assert_refused, run_cli
from occport.graph import dialect as dialects
from occport.graph.contract import Attribute
from occport.graph.dialect import Guess
from occport.kit.probe.reading import Reading, read_probes
from occport.kit.probe.results import read_results
from occport.kit.probe.toml import dialect_toml
from occport.kit.probe.write import write_probes
from probing import run_probe, written_network

TODAY = datetime.date(2026, 3, 1)


@pytest.fixture
def folder(probes, tmp_path) -> Path:
    return Path(shutil.copytree(probes, tmp_path / "probes"))


def ask(folder: Path, taste: Taste) -> Reading:
    compile_all(folder, taste)
    return read_probes(folder, TODAY)


FOUND = {  # taste → the dialect's fields that differ from dl's, in one round
    "easy": {},
    "allow_list": {},
    "low_opset": {},
    "no_functions": {},
    "wants_value_info": {},
    "compiler_only": {},
    "no_int64": {"calibration": "fixed", "outputs": "logits", "msda": "msda_rank0_int32_constant", "dropped": False},
    "rank1_scalars": {"msda": "msda_rank1_int64_constant"},
    "no_constant_nodes": {"msda": "msda_rank1_int32_initializer"},
    "no_rank6": {"msda": "msda_bevformer_tensorrt"},
    "standard_only": {"way": "standard operators", "msda": "gridsample", "dcn": "deformconv", "opset": 19},
    "old_standard_only": {"way": "standard operators", "msda": "gather", "dcn": "gather"},
    "no_batchnorm_behind": {"bias": "add"},
    "empty_domain": {"msda": "msda_no_domain", "dcn": "dcn_no_domain"},
    "mmdeploy": {"msda": "msda_mmdeploy", "dcn": "dcn_mmdeploy"},
    "no_argmax": {"outputs": "logits"},
    "no_cum_sum": {"calibration": "tables"},
}
IN_TWO_ROUNDS = {
    "old_ir": {"ir": 5},
    "high_opset": {"opset": 17, "ir": 6},
    "wants_functions": {"opset": 16, "way": "custom nodes with bodies in the file"},
}
PLAIN = {
    "way": "custom nodes", "opset": 11, "ir": 0, "calibration": "runtime", "outputs": "", "msda": "msda", "dcn": "dcn", "bias": "batchnorm",
    "dropped": True,
}  # fmt: skip


def facts(reading: Reading) -> dict[str, object]:
    plan, dialect = reading.found.plan, reading.dialect
    bias = "batchnorm" if plan.way == "standard operators" else plan.bias
    return {
        "way": plan.way, "opset": dialect.opset, "ir": dialect.ir, "calibration": dialect.export.calibration, "msda": plan.msda,
        "outputs": dialect.export.outputs, "dcn": plan.dcn, "bias": bias, "dropped": dialect.export.dropped,
    }  # fmt: skip


@pytest.mark.parametrize("taste", FOUND)
def test_the_dialect_found_lets_the_network_through(taste, folder, tiny_network, quick):
    reading = ask(folder, TASTES[taste])
    assert reading.complete and facts(reading) == PLAIN | FOUND[taste]
    found = dialects.read(folder / "dialect.toml")
    assert found == reading.dialect and not found.guesses and not found.default
    assert found.checked_against == f"probed on 2026-03-01 with {len(reading.results.results)} probes around dialect dl"
    assert complaints(written_network(tiny_network, folder / "dialect.toml"), TASTES[taste]) == []


@pytest.mark.parametrize("taste", IN_TWO_ROUNDS)
def test_a_second_round_around_what_the_first_has_found(taste, folder, tmp_path, tiny_network, quick):
    first = ask(folder, TASTES[taste])
    assert not first.complete and not first.found.refused and first.found.unknown
    assert "**Not finished**" in (folder / "report.md").read_text() and first.dialect.guesses
    assert first.again == f"occport probe -o {folder}-2 --dialect {folder}/dialect.toml"
    write_probes(tmp_path / "again", dialects.read(folder / "dialect.toml"))
    second = ask(tmp_path / "again", TASTES[taste])
    assert second.complete and facts(second) == PLAIN | IN_TWO_ROUNDS[taste]
    assert "base =" not in (tmp_path / "again/dialect.toml").read_text()  # written out in full
    assert complaints(written_network(tiny_network, tmp_path / "again/dialect.toml"), TASTES[taste]) == []


@pytest.mark.parametrize("taste", ["no_batchnorm_behind", "no_int64"])
def test_through_the_command_line(taste, folder, tmp_path, quick):
    """Verified too: what `export` writes is right, and the compiler takes it."""
    compile_all(folder, TASTES[taste])
    told = run_probe("--results", folder)
    assert told.status == 0 and told.err == "" and f"--dialect {folder}/dialect.toml" in told.out.splitlines()[-1]
    ran = run_cli("export", "--config", TINY, "--dialect", folder / "dialect.toml", "--output-dir", tmp_path / "out")
    assert ran.status == 0, ran.err
    (path,) = (tmp_path / "out").glob("*.onnx")
    assert complaints(onnx.load(path), TASTES[taste]) == []


@pytest.mark.parametrize(
    ("taste", "sentence"),
    [
        ("no_conv_transpose", "a transposed 2x2x2 convolution of stride 2: 11-22 is needed and was refused"),
        ("nothing_without_rank6", "tensors of rank 6, as sampling locations are: 11-22 is needed and was refused"),
        ("refuses_everything", "opsets: 11 is needed and was refused"),
        ("standard_without_int64", "the attention by standard operators: gather 11-22 is needed and was refused"),
    ],
)
def test_no_way_is_said_plainly(taste, sentence, folder):
    compile_all(folder, TASTES[taste])
    ran = run_probe("--results", folder)
    said = [line for line in ran.out.splitlines() if line.startswith("no way: ")]
    assert ran.status == 1 and any(line.startswith(f"no way: {sentence} (") for line in said) and "occport" not in ran.out
    assert ran.out.splitlines()[-1].startswith("next: show these probes to whoever makes the compiler")
    page = (folder / "report.md").read_text()
    assert "**No way is left" in page and f"- {sentence} (" in page and "occport export" not in page
    dialects.read(folder / "dialect.toml")  # as far as it goes


def test_what_comes_closest_stands_at_an_opset_that_is_taken(folder):
    """An opset that is refused hides what else would be: a plan there must not look better than one at the opset that is taken."""
    reading = ask(folder, TASTES["standard_without_int64"])
    assert (reading.found.plan.opset, reading.found.plan.calibration, reading.found.unknown) == (11, "fixed", ())
    assert reading.found.refused == (("msda_form", "gather 11-22"), ("dcn_form", "gather 11-22"))
    assert "(msda_gather_11: int64 " in (folder / "report.md").read_text()  # in the compiler's own words


def test_a_compiler_that_takes_anything_proves_nothing(folder):
    compile_all(folder, TASTES["takes_anything"])
    ran = run_probe("--results", folder)
    assert ran.status == 1 and "still unknown" in ran.out
    page = (folder / "report.md").read_text()
    assert "the control, an operator that nobody has, was taken" in page and "let the command write outputs" in page


def test_report_gives_question_answer_evidence(folder):
    ask(folder, TASTES["rank1_scalars"])
    page = (folder / "report.md").read_text()
    numbers = "scalars of rank 1, int64, as a Constant node; spatial_shapes int64, as a Constant node"
    assert f"| the attention node | DL::MultiScaleDeformableAttnFunction; {numbers} | msda_rank1_int64_constant passed |" in page
    assert "| what stands behind the deformable convolution | batchnorm | dcn_bias_batchnorm passed |" in page
    assert "rank 0 of " in page  # what the compiler said
    assert f"occport export --config CONFIG --checkpoint CHECKPOINT --dialect {folder}/dialect.toml" in page
    assert page.count("\n| ") == len(read_results(folder).results) + page.split("## What contradicts")[0].count("\n| ") + 1


def grade(folder: Path, name: str) -> tuple[str, str]:
    return next((result.grade, result.detail) for result in read_results(folder).results if result.name == name)


def put(folder: Path, name: str, files: dict[str, bytes | np.ndarray], status: str = "0") -> None:
    result = folder / name / "result"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir()
    for path, content in files.items():
        if isinstance(content, bytes):
            (result / path).write_bytes(content)
        else:
            np.save(result / path, content)
    (result / "status").write_text(status + "\n")


def test_grades(folder):
    want = np.load(folder / "conv3d/expected_0_y.npy")
    labels = np.load(folder / "labels_int64/expected_0_labels.npy")
    near = want * np.float32(1.01)
    for name in ("output_0.npy", "output_0_y.npy", "y.npy"):
        put(folder, "conv3d", {name: near})
        assert grade(folder, "conv3d")[0] == "passed"
    put(folder, "conv3d", {"output_0.bin": near.tobytes()})
    assert grade(folder, "conv3d")[0] == "passed"
    put(folder, "conv3d", {})
    assert grade(folder, "conv3d") == ("compiled only", "")
    put(folder, "conv3d", {"output_0.npy": want[:, ::-1]})
    assert grade(folder, "conv3d")[0] == "wrong values" and "max abs" in grade(folder, "conv3d")[1]
    put(folder, "conv3d", {"output_0.bin": near.tobytes()[:-4]})
    assert grade(folder, "conv3d")[1] == f"output_0.bin cannot be read: expected {want.nbytes} bytes, got {want.nbytes - 4}"
    put(folder, "conv3d", {"output_0.npy": b"no array"})
    assert grade(folder, "conv3d")[0] == "wrong values"
    put(folder, "conv3d", {"output_0.npy": want[0]})
    assert "expected shape" in grade(folder, "conv3d")[1]
    put(folder, "labels_int64", {"output_0.npy": labels.astype(np.int32)})  # another width is no other label
    assert grade(folder, "labels_int64") == ("passed", "equal")
    put(folder, "labels_int64", {"output_0.npy": labels + 1})
    assert grade(folder, "labels_int64")[0] == "wrong values"
    put(folder, "scatter", {"output_0.npy": np.load(folder / "scatter/expected_0_y.npy")})
    assert grade(folder, "scatter") == ("wrong values", "no output z, though there are others")
    put(folder, "volume", {"log.txt": b"first\nlast \x1b[31mline\n\n"}, status="139")
    assert grade(folder, "volume") == ("refused", "last [31mline")
    put(folder, "volume", {}, status="139")
    assert grade(folder, "volume") == ("refused", "exit status 139")


def test_wrong_values_are_no_answer_and_a_contradiction(folder):
    """An attention that ignores its scalars' rank but swaps x and y compiles, and is not taken."""
    compile_all(folder, TASTES["easy"])
    for path in folder.glob("msda*/result/output_0.npy"):
        if path.parent.parent.name != "msda_rank1_int32_constant":
            np.save(path, np.load(path)[::-1])
    reading = read_probes(folder, TODAY)
    assert reading.complete and reading.found.plan.msda == "msda_rank1_int32_constant"
    assert "- msda was compiled and gave wrong values (out: max abs" in (folder / "report.md").read_text()


def test_one_opset_refused_and_taken_is_a_contradiction(folder):
    compile_all(folder, TASTES["easy"])
    (folder / "opset_13/result/status").write_text("1\n")
    read_probes(folder, TODAY)
    assert "- opset_13 was refused, but resize_13, of the same opset, was taken" in (folder / "report.md").read_text()


def test_what_was_not_run_is_unknown(folder):
    compile_all(folder, TASTES["easy"])
    shutil.rmtree(folder / "conv3d/result")
    reading = read_probes(folder, TODAY)
    assert not reading.complete and reading.found.unknown == (("conv3d", "11-22"),)
    assert reading.dialect.guesses == (Guess("a 3x3x3 convolution of a volume: 11-22, which no probe has answered", ""),)
    assert "not run: conv3d" in (folder / "report.md").read_text()


def test_half_a_run_is_no_refusal(folder):
    """Opsets that were never tried are not refused: the rest of the run may still find a way."""
    compile_all(folder, TASTES["high_opset"])
    for result in folder.glob("*/result"):
        if result.parent.name not in ("conv2d", "opset_11"):
            shutil.rmtree(result)
    ran = run_probe("--results", folder)
    assert ran.status == 1 and "no way" not in ran.out and "probes were not run, run.sh goes on where it stopped" in ran.out
    page = (folder / "report.md").read_text()
    assert "**Not finished**" in page and "go on with `run.sh`" in page and "**No way is left" not in page


def test_results_are_read_again(folder):
    compile_all(folder, TASTES["standard_only"])
    first = run_probe("--results", folder)
    page = (folder / "report.md").read_text()
    assert run_probe("--results", folder).out == first.out and (folder / "report.md").read_text() == page


def test_external_data_where_weights_inside_are_refused(folder):
    compile_all(folder, TASTES["easy"])
    (folder / "conv2d/result/status").write_text("1\n")
    assert read_probes(folder, TODAY).export.endswith("--external-data")


def test_bad_folders_are_refused(folder, tmp_path):
    assert "give the folder that `occport probe -o` wrote" in assert_refused(run_probe("--results", tmp_path / "none"), "no index.json")
    assert_refused(run_probe("--results", folder), f"run CMD='…' sh {folder}/run.sh first")
    index = folder / "index.json"
    whole = json.loads(index.read_text())
    for table in ([], {"format": 2}, {**whole, "probes": [{}]}, {**whole, "probes": 3}):
        index.write_text(json.dumps(table))
        assert "write the probes anew" in assert_refused(run_probe("--results", folder), "what `occport probe -o` writes")
    index.write_text("{")
    assert_refused(run_probe("--results", folder), "JSONDecodeError")


@pytest.mark.parametrize("name", dialects.names())
def test_toml_of_every_dialect(name, tmp_path):
    dialect = dialects.load(name)
    for base in (name, None, "dl" if dialect.msda is not None else "standard"):
        (tmp_path / "found.toml").write_text(dialect_toml(dialect, base, "a comment"), encoding="utf-8")
        assert dialects.read(tmp_path / "found.toml") == dialect
    plain = f'# a comment\nbase = "{name}"\nname = "{name}"\n'
    assert dialect_toml(dialect, name, "a comment") == plain + "default = true\n" * dialect.default


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.booleans())
def test_toml_of_wild_values(tmp_path_factory, text, number, real, flag):
    dl = dialects.load("dl")
    assert dl.msda is not None
    attributes = (Attribute("a", "int", default=number), Attribute("b", "float", default=real), Attribute("c", "string", default=text))
    msda = replace(dl.msda, attributes=attributes)
    wild = replace(dl, title=text, functions=flag, msda=msda, guesses=(Guess(text, "--flag"),))
    path = tmp_path_factory.getbasetemp() / f"wild-{text.encode().hex()[:16]}-{number}.toml"
    path.write_text(dialect_toml(wild, "dl", "a comment"), encoding="utf-8", newline="\n")
    assert dialects.read(path) == wild
