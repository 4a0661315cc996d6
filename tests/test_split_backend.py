"""The parts of a file under ONNX's own test runner, on ONNX Runtime's own backend."""

from __future__ import annotations

import unittest
from pathlib import Path

import onnx
import pytest
from onnx.backend.test import loader, runner
from onnxruntime.backend.backend import OnnxRuntimeBackend
from onnxruntime.backend.backend_rep import OnnxRuntimeBackendRep

from exporting import MICRO, export, run_cli
from occport.bringup.split.place import read_parts
from occport.graph.dialect import load
from occport.graph.runnable import make_runnable

FRAME = Path(__file__).resolve().parents[2] / "shared/data/nuscenes_frame"


class Stock(OnnxRuntimeBackend):
    """ONNX Runtime as it is. Its backend for ONNX's tests skips models of domains that it does not know, with bodies or without."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str | None = None, **settings: object) -> OnnxRuntimeBackendRep:
        return OnnxRuntimeBackend.prepare(model.SerializeToString(), device, **settings)

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str | None = None, **settings: object) -> bool:
        return True


class WithBodies(Stock):
    """With custom nodes made runnable in memory."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str | None = None, **settings: object) -> OnnxRuntimeBackendRep:
        make_runnable(model, load("dl"))
        return Stock.prepare(model, device, **settings)


def passed(folder: Path, backend: type) -> tuple[int, list[str]]:
    """How many tests of a folder ran, and what failed. The runner brings thousands of its own, which are left out here."""
    cases = loader.load_model_tests(data_dir=str(folder.parent), kind=folder.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "load_model_tests", lambda kind: cases if kind == "real" else [])
        suite = runner.Runner(backend, __name__).include("_cpu$").exclude("_cuda$").test_suite
    result = unittest.TestResult()
    suite.run(result)
    return result.testsRun - len(result.skipped), [text for _, text in (*result.failures, *result.errors)]


def split(model: Path, folder: Path, *flags: object) -> None:
    ran = run_cli("split", model, "-o", folder, *flags)
    assert ran.status == 0, ran.err
    assert len(read_parts(folder).parts) == 8


@pytest.mark.parametrize(
    ("made", "backend"), [("standard_export", OnnxRuntimeBackend), ("functions_export", Stock), ("runtime_export", WithBodies)]
)
def test_the_eight_parts_pass_the_runner(made, backend, request, tmp_path):
    split(request.getfixturevalue(made).model, tmp_path / "parts", "--npy")
    assert passed(tmp_path / "parts", backend) == (8, [])


def test_the_runner_would_find_a_wrong_part(standard_export, tmp_path):
    split(standard_export.model, tmp_path / "parts")
    data = tmp_path / "parts/test_neck/test_data_set_0/output_1.pb"
    wrong = onnx.TensorProto.FromString(data.read_bytes())
    array = onnx.numpy_helper.to_array(wrong).copy()
    array[0, 1, 2, 3] += 0.01
    data.write_bytes(onnx.numpy_helper.from_array(array, wrong.name).SerializeToString())
    count, wrong_ones = passed(tmp_path / "parts", OnnxRuntimeBackend)
    assert count == 8 and len(wrong_ones) == 1 and "Mismatched elements: 1 /" in wrong_ones[0]


@pytest.mark.full
@pytest.mark.xdist_group("full")
@pytest.mark.skipif(not FRAME.exists(), reason="the real nuScenes frame is not here")
@pytest.mark.parametrize(
    ("flags", "backend"), [(["--dialect", "standard", "--opset", "20"], OnnxRuntimeBackend), (["--opset", "11"], WithBodies)]
)
def test_the_eight_parts_of_the_full_network_pass_the_runner(flags, backend, tmp_path):
    made = export(tmp_path / "model", "--frame", FRAME, *flags, config=MICRO.with_name("surroundocc.py"))
    split(made.model, tmp_path / "parts")
    assert read_parts(tmp_path / "parts").same_bits
    assert passed(tmp_path / "parts", backend) == (8, [])
    made.model.unlink()
