"""The files of somebody's outputs: every kind, those that cannot be read, and the dtype that they tell."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import numpy_helper

from kit import DTYPES, attention_kernel, write_outputs, write_vectors
from occport.kit.cases.golden import golden
from occport.kit.grading.grade import grade
from occport.kit.vectors.edge_cases import edge_cases

CASES = edge_cases("msda")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody writes into it."""
    folder = tmp_path_factory.mktemp("vectors")
    write_vectors(folder, CASES)
    return folder


def save_pb(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(numpy_helper.from_array(array, "output").SerializeToString())


FILES = [
    ("{}.npy", np.save, "float32"), ("{}.npy", np.save, "float16"), ("{}.npy", np.save, "bfloat16"), ("{}.npy", np.save, "float64"),
    ("{}.pb", save_pb, "float32"), ("{}.pb", save_pb, "float16"), ("{}.pb", save_pb, "bfloat16"), ("{}/output_0.pb", save_pb, "float32"),
    ("{}/test_data_set_0/output_0.pb", save_pb, "float32"), ("{}/output.npy", np.save, "float16"),
    ("{}.bin", lambda path, array: path.write_bytes(array.tobytes()), "float32"),
    ("{}.bin", lambda path, array: path.write_bytes(array.tobytes()), "float16"),
    ("{}.bin", lambda path, array: path.write_bytes(array.tobytes()), "float64"),
    ("{}/output.bin", lambda path, array: path.write_bytes(array.tobytes()), "bfloat16"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "save", "dtype"), FILES, ids=[f"{place}-{dtype}" for place, _, dtype in FILES])
def test_files_of_every_kind(vectors, tmp_path, place, save, dtype):
    """An output rounded to the dtype passes, and the file tells the dtype; of a .bin, only --dtype tells bfloat16 from float16."""
    kind = {**DTYPES, "float64": np.float64}[dtype]
    for case in CASES:
        path = tmp_path / place.format(case.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, golden(case).astype(kind))
    report = grade(vectors, tmp_path, "bfloat16" if place == "{}/output.bin" else None)
    assert report.passed and {case.dtype for case in report.cases} == {"float32" if dtype == "float64" else dtype}
    assert report.cases[0].file == str(tmp_path / place.format(report.cases[0].name))


def test_the_dtype_that_is_given_counts(vectors, tmp_path):
    """A float16 kernel that writes float32 fails as float32 and passes as what it is."""
    kernel = attention_kernel("float16")
    write_outputs(tmp_path, CASES, lambda case: kernel(case).astype(np.float32))
    assert not grade(vectors, tmp_path).passed
    assert grade(vectors, tmp_path, "float16").passed


def test_missing_and_unreadable_outputs(vectors, tmp_path):
    cases = CASES
    write_outputs(tmp_path, cases[5:], golden)
    (tmp_path / f"{cases[0].name}.npy").write_bytes(b"no npy")
    np.save(tmp_path / f"{cases[1].name}.npy", golden(cases[1]).astype(np.int32))
    (tmp_path / f"{cases[2].name}.bin").write_bytes(bytes(7))
    (tmp_path / f"{cases[3].name}.pb").write_bytes(b"\xff\xff")
    report = grade(vectors, tmp_path)
    assert [case.status for case in report.cases[:6]] == ["unreadable"] * 4 + ["missing", "passed"]
    assert "cannot be read" in report.cases[0].note and report.cases[1].note == "expected floats, got int32"
    assert report.cases[2].note == f"cannot be read: expected {golden(cases[2]).size} numbers of 2, 4 or 8 bytes, got 7 bytes"
    assert "cannot be read" in report.cases[3].note
    assert report.cases[4].note == f"no {cases[4].name}.npy or any other of its places" and not report.cases[4].file
    assert report.verdicts[0].kind == "incomplete" and report.verdicts[0].unjudged == 5 and not report.passed
    (tmp_path / f"{cases[3].name}.pb").write_bytes(b"")
    with (tmp_path / f"{cases[0].name}.npy").open("wb") as file:
        np.savez(file, a=np.zeros(1))
    notes = [case.note for case in grade(vectors, tmp_path).cases]
    assert "an npz archive" in notes[0] and notes[3] == "cannot be read: no ONNX tensor"


def test_the_bfloat16_that_numpy_saved(vectors, tmp_path):
    """numpy saves bfloat16 as two bytes without a meaning."""
    write_outputs(tmp_path, CASES, attention_kernel("bfloat16"))
    assert np.load(tmp_path / f"{CASES[0].name}.npy").dtype != ml_dtypes.bfloat16
    report = grade(vectors, tmp_path)
    assert report.passed and {case.dtype for case in report.cases} == {"bfloat16"}
