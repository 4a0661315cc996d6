"""The C kernels on conformance vectors: right on every case, under sanitizers too, and with a planted bug `grade` names it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kernels
from occport.kit.grading.grade import grade
from vector_files import small_file, write
from vector_kernels import run_all

SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
Changes = tuple[tuple[str, str], ...]
PLANTED: dict[str, tuple[str, Changes]] = {  # the bug as `grade` names it: file, and what is right and wrong in it
    "half_pixel_missing": ("msda.c", (("->h - 0.5f", "->h"), ("->w - 0.5f", "->w"))),
    "xy_swapped": ("msda.c", (("location[0], location[1]", "location[1], location[0]"),)),
    "weights_ignored": ("msda.c", (("const float share = weight *", "(void)weight;\n        const float share ="),)),
    "mask_ignored": ("deform_conv.c", (("* mask[k * outputs + pixel]", "+ 0.0f * mask[k * outputs + pixel]"),)),
    "offsets_as_dxdy": ("deform_conv.c", (("float dy = offset", "float dx = offset"), (", dx = offset", ", dy = offset"))),
    "bias_missing": ("deform_conv.c", (("bias ? (double)bias[o] : 0.0", "bias ? 0.0 : 0.0"),)),
}


@pytest.fixture(scope="module")
def vectors(runtime_export, tmp_path_factory) -> Path:
    """Of the tiny export: its own nodes and all edge cases, in little room."""
    folder = tmp_path_factory.mktemp("vectors") / "of_export"
    write(runtime_export.model, folder, max_bytes=3_000_000)
    return folder


def test_the_kernels_pass_every_case_of_an_export(vectors, tmp_path):
    count = run_all(vectors, tmp_path / "theirs", kernels.library())
    report = grade(vectors, tmp_path / "theirs")
    assert report.passed and len(report.cases) == count and {case.dtype for case in report.cases} == {"float32"}
    assert sum("_edge_" not in case.name for case in report.cases) == 7  # three convolutions and four attentions of the network
    assert [(verdict.operator, verdict.kind) for verdict in report.verdicts] == [("msda", "passed"), ("dcn", "passed")]


def test_the_wide_kernel_passes_every_case_of_a_wide_node(tmp_path):
    """A node with reference points, offsets and logits inside, whose output has heads on an axis of their own."""
    path, inputs = small_file(tmp_path, "bevformer_tensorrt")
    write(path, tmp_path / "vectors", dialect="bevformer_tensorrt", inputs=inputs)
    run_all(tmp_path / "vectors", tmp_path / "theirs", kernels.library())
    assert grade(tmp_path / "vectors", tmp_path / "theirs").passed


def planted(folder: Path, name: str, changes: Changes) -> Path:
    """A copy of the sources with something wrong in one of them."""
    source = Path(shutil.copytree(kernels.FOLDER, folder / "kernels"))
    text = (source / name).read_text()
    for right, wrong in changes:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    (source / name).write_text(text)
    return source


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_named(bug, vectors, tmp_path):
    name, changes = PLANTED[bug]
    run_all(vectors, tmp_path / "theirs", kernels.library(kernels.USUAL, planted(tmp_path, name, changes)))
    report = grade(vectors, tmp_path / "theirs")
    told = {verdict.operator: (verdict.kind, [found.name for found in verdict.bugs]) for verdict in report.verdicts}
    operator = "msda" if name == "msda.c" else "dcn"
    other = "dcn" if operator == "msda" else "msda"
    assert told == {operator: ("named", [bug]), other: ("passed", [])}


def sanitized(sources: Path, vectors: Path, outputs: Path) -> subprocess.CompletedProcess[str]:
    """All cases by kernels with sanitizers; Python itself runs under the address sanitizer, so that it knows the bounds of every array."""
    asked = subprocess.run([kernels.compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    runtime = Path(asked.stdout.strip())
    if not (runtime.is_absolute() and runtime.is_file()):
        pytest.skip("this C compiler has no address sanitizer that can be loaded into Python")
    program = str(Path(__file__).with_name("vector_kernels.py"))
    command = [sys.executable, program, str(vectors), str(outputs), str(sources), *kernels.STRICT, *SANITIZERS]
    setting = {"LD_PRELOAD": str(runtime), "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | setting)


def test_sanitizers_find_nothing_on_any_case(vectors, tmp_path):
    done = sanitized(kernels.FOLDER, vectors, tmp_path / "theirs")
    assert done.returncode == 0, done.stderr
    assert grade(vectors, tmp_path / "theirs").passed and done.stdout == f"{len(list((tmp_path / 'theirs').iterdir()))} cases\n"


def test_sanitizers_find_a_read_outside(vectors, tmp_path):
    source = planted(tmp_path, "msda.c", (("level->map + corners[i].place", "level->map + (corners[i].place + sizes->S)"),))
    done = sanitized(source, vectors, tmp_path / "theirs")
    assert done.returncode and "AddressSanitizer" in done.stderr and "add_sample" in done.stderr
