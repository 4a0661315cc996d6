"""The real backends on the tiny network: their stages add up, their labels agree, the references run without kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from exporting import MICRO, TINY, Exported
from occport.errors import FrameError, ModelFileError, UserError
from occport.measure import gemm, peak
from occport.measure.backend import Backend
from occport.measure.bench import Bench
from occport.measure.file_backend import FileBackend, spec_of
from occport.measure.labels import label_agreement
from occport.measure.peak import peak_of
from occport.measure.plan import Contender, Plan
from occport.measure.stages import STAGES, WHOLE
from occport.ops import native
from occport.progress import NullProgress

REFERENCES, FP32, BF16 = Contender("references", references=True), Contender("torch fp32"), Contender("torch bf16", "bf16")


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """A plan sets them for the whole process, and a test its own. Products are small ones."""
    monkeypatch.setattr(gemm, "SIZES", (((2, 3), 8, 4),))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def adds_up(backend: Backend, runs: int) -> None:
    for _ in range(runs):
        backend.run()
    laps = backend.laps()
    assert len(laps) == runs
    for lap in laps:
        parts = [lap[stage] for stage in STAGES]
        assert all(part >= 0 for part in parts)
        assert sum(parts) == pytest.approx(lap[WHOLE], rel=0.1, abs=2e-3)
        assert lap["backbone"] > 0 and lap["decoder"] > 0 and lap["level 2"] > 0


def test_in_torch():
    opened = Plan((REFERENCES, FP32, BF16), TINY, threads=1).open()
    references, fp32, bf16 = opened.backends
    assert [each.name for each in opened.backends] == ["references", "torch fp32", "torch bf16"]
    assert "plain references" in references.described and "bfloat16" in bf16.described
    assert references.weights == fp32.weights == bf16.weights
    for backend in opened.backends:
        adds_up(backend, 2)
    same = label_agreement(fp32.labels(), references.labels())
    assert same is not None and same.shares == dict.fromkeys(range(4), 1.0)
    near = label_agreement(bf16.labels(), references.labels())
    assert near is not None and min(near.shares.values()) > 0.8
    assert fp32.labels()[3].shape == (1, *opened.config.occ_size)
    assert sum(fp32.flops().values()) < sum(references.flops().values()), "two convolutions in a row are made one"
    assert fp32.flops()["backbone"] == references.flops()["backbone"]
    operators = {each.name: each for each in fp32.operators()}
    assert operators["occport.deform_conv2d"].flops > 0
    assert torch.get_num_threads() == 1


def test_the_references_run_without_kernels(monkeypatch):
    seen: dict[str, bool] = {}
    for backend in Plan((REFERENCES, FP32), TINY).open().backends:

        def look(module: object, inputs: object, name: str = backend.name) -> None:
            seen[name] = "switched off" in native.status()

        handle = backend._model.register_forward_pre_hook(look)
        backend.run()
        handle.remove()
    assert seen["references"] and not seen["torch fp32"]


def test_a_network_of_its_own_is_changed_in_place_and_a_shared_one_is_not():
    (alone,) = Plan((FP32,), TINY).open().backends
    alone.run()
    with_references = Plan((FP32, REFERENCES), TINY).open().backends
    for backend in with_references:
        backend.run()
    assert np.array_equal(alone.labels()[3], with_references[0].labels()[3])
    assert np.array_equal(alone.labels()[3], with_references[1].labels()[3])


@pytest.mark.parametrize("name", ["standard_export", "tables_export", "fixed_export", "functions_export"])
def test_files(name: str, request: pytest.FixtureRequest):
    good: Exported = request.getfixturevalue(name)
    opened = Plan((FP32, Contender("file", model=good.model)), TINY, threads=1).open()
    torch_backend, file = opened.backends
    torch_backend.run()
    adds_up(file, 2)
    assert file.weights == torch_backend.weights
    same = label_agreement(file.labels(), torch_backend.labels())
    assert same is not None and min(same.shares.values()) > 0.999
    own, done = torch_backend.flops()["backbone"], file.flops()["backbone"]
    assert done == pytest.approx(own, rel=0.05), "but for what bodies sample"
    operators = {each.name: each for each in file.operators()}
    assert operators["Conv"].flops > 0 and operators["Conv"].calls > 10
    assert file.described == f"ONNX Runtime (CPU) on {good.model.name}"


def test_a_file_alone_brings_its_config(standard_export: Exported):
    opened = Plan((Contender("file", model=standard_export.model),)).open()
    assert opened.config == spec_of(standard_export.model).config
    assert opened.loaded.img.shape == (1, 4, 3, 64, 96)


def test_a_file_of_another_size(standard_export: Exported):
    with pytest.raises(FrameError, match=r"expected 4 of 64 x 96 for .*\.onnx, got 6 of 128 x 224"):
        Plan((Contender("file", model=standard_export.model),), MICRO).open()


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ModelFileError, match="no such file"):
        spec_of(tmp_path / "none.onnx")
    (tmp_path / "bare.onnx").write_bytes(b"")
    with pytest.raises(ModelFileError, match="manifest"):
        spec_of(tmp_path / "bare.onnx")


def test_an_interrupted_run_of_a_file_does_not_count(standard_export: Exported):
    opened = Plan((Contender("file", model=standard_export.model),)).open()
    (file,) = opened.backends
    assert isinstance(file, FileBackend)
    file.run()
    file._session.run({port.name: np.zeros(port.shape, port.dtype) for port in file._session.inputs})  # recorded, never timed
    assert len(file.laps()) == 1


def test_the_whole_bench():
    bench = Bench(Plan((FP32, BF16), TINY), NullProgress(), warmup=1, repeat=2)
    assert bench.result() is None
    bench.measure(operators=True, memory=False)
    result = bench.result()
    assert result is not None
    assert [len(each.laps) for each in result.backends] == [2, 2]
    assert all(each.operators for each in result.backends) and result.backends[0].labels is None
    assert result.backends[1].labels is not None and set(result.gemm) == {"fp32", "bf16"}
    assert result.frame == "frame synthetic: 4 images of 64 x 96"
    assert result.machine["threads"] == torch.get_num_threads()


def test_peak_memory_is_that_of_a_process_of_its_own():
    plan = Plan((FP32,), TINY, threads=1)
    ballast = np.ones(2**28)  # 2 GiB here do not count there
    found = peak_of(plan)
    assert 2**27 < found.process < 2**31 < ballast.nbytes + 1
    assert found.device == 0


def test_what_fails_in_that_process_is_one_line():
    with pytest.raises(UserError, match=r"peak memory of torch fp32: config .*expected a file, got nothing there"):
        peak_of(Plan((FP32,), Path("/nowhere/config.py")))


def test_a_process_that_dies(monkeypatch):
    monkeypatch.setattr(peak, "_measure", _dies)
    with pytest.raises(UserError, match=r"peak memory of torch fp32: expected a process .*, got its end with status 3; .*--no-memory"):
        peak_of(replace(Plan((FP32,)), config=TINY))


def _dies(plan: Plan, pipe: object) -> None:
    import os

    os._exit(3)
