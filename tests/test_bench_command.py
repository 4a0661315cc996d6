"""`occport bench`: its tables and JSON, what it refuses, and Ctrl-C."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from exporting import TINY, Exported, assert_refused, run_cli
from occport.cli import VERBS, Verb
from occport.measure import bench, gemm, peak, rounds
from occport.staging import Terminated


@pytest.fixture(autouse=True)
def verb(monkeypatch):
    monkeypatch.setattr(gemm, "SIZES", (((2, 3), 8, 4),))
    monkeypatch.setitem(VERBS, "bench", VERBS.get("bench", Verb("bench", "measure one frame")))


def test_two_precisions_side_by_side(tmp_path: Path):
    ran = run_cli(
        "bench", "--config", TINY, "--precision", "fp32", "bf16", "fp32", "--references", "--repeat", "2", "--operators", "--no-memory",
        "--threads", "1", "--json", tmp_path / "out" / "bench.json",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    (head,) = [line for line in lines if line.startswith("seconds ")]
    assert head.split() == ["seconds", "references", "least", "iqr", "torch", "fp32", "least", "iqr", "torch", "bf16", "least", "iqr"]
    assert any(line.startswith("backbone ") for line in lines) and any(line.startswith("whole ") for line in lines)
    assert any(line.startswith("torch fp32 ") and line.endswith("all of 3,510 labels") for line in lines)
    assert "operators of torch bf16" in ran.out
    table = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [backend["name"] for backend in table["backends"]] == ["references", "torch fp32", "torch bf16"]
    assert table["rounds"] == 2 and table["warmup"] == 1 and table["machine"]["threads"] == 1
    for backend in table["backends"]:
        stages = backend["stages"]
        whole = stages.pop("whole")["median_s"]
        assert sum(stage["median_s"] for stage in stages.values()) == pytest.approx(whole, rel=0.5)
        assert backend["operators"] and backend["peak_bytes"] is None


def test_a_file_beside_the_network_with_memory(standard_export: Exported, monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "peak_of", lambda plan: asked.append(plan.contenders) or peak.Peak(2**31, 0))
    flags = ("--model", standard_export.model, "--model", standard_export.model, "--warmup", "0", "--repeat", "1")
    ran = run_cli("bench", "--config", TINY, *flags)
    assert ran.status == 0, ran.err
    assert [names[0].name for names in asked] == ["torch fp32", "file 1", "file 2"]
    assert "2.00 GiB" in ran.out and "file 2: ONNX Runtime (CPU) on" in ran.out
    assert "1 round after 0 of warm-up" in ran.out


def test_a_file_alone(standard_export: Exported):
    ran = run_cli("bench", "--model", standard_export.model, "--repeat", "1", "--no-memory", "--provider", "cpu")
    assert ran.status == 0, ran.err
    assert [line.split()[:2] for line in ran.out.splitlines() if line.startswith("seconds")] == [["seconds", "file"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "network: expected --config FILE.py (PyTorch) or --model FILE.onnx (ONNX Runtime), got neither"),
        (("--model", "x.onnx", "--precision", "bf16"), "--precision: expected --config with it, got --model alone; leave it out"),
        (("--model", "x.onnx", "--references"), "--references: expected --config with it"),
        (("--model", "x.onnx", "--checkpoint", "x.pth"), "--checkpoint: expected --config with it"),
        (("--model", "x.onnx", "--cfg-options", "a=1"), "--cfg-options: expected --config with it"),
        (("--model", "x.onnx", "--device", "cpu"), "--device: expected --config with it"),
        (("--config", TINY, "--provider", "CPU"), "--provider: expected --model FILE.onnx with it"),
        (("--config", TINY, "--repeat", "0"), "--repeat: expected at least 1, got 0"),
        (("--config", TINY, "--warmup", "-1"), "--warmup: expected at least 0, got -1"),
        (("--config", TINY, "--threads", "0"), "--threads: expected at least 1, got 0"),
        (("--config", TINY, "--seed", "-1"), "--seed: expected at least 0, got -1"),
        (("--config", TINY, "--precision", "fp8"), "invalid choice: 'fp8'"),
    ],
)
def test_flags_that_do_not_go_together(flags: tuple[object, ...], message: str):
    assert_refused(run_cli("bench", *flags), message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config", "none.py"), "none.py"),
        (("--config", TINY, "none.json"), "no such file or folder"),
        (("--model", "none.onnx"), "model file none.onnx: expected an exported .onnx file, got no such file"),
        (("--config", TINY, "--precision", "fp16"), "precision on a CPU: expected fp32 or bf16, got fp16"),
        (("--config", TINY, "--device", "abacus"), "device abacus"),
    ],
)
def test_what_cannot_be_opened(flags: tuple[object, ...], message: str):
    assert_refused(run_cli("bench", *flags, "--no-memory"), message)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "x.json"):
        assert_refused(run_cli("bench", "--config", "none.py", "--json", place), f"--json {place}")


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 143)])
def test_an_interrupt_shows_what_was_measured(monkeypatch, tmp_path: Path, stop: BaseException, status: int):
    real = rounds.take_rounds

    def stopped(backends, count):
        real(backends, count - 1)
        backends[0].run()
        raise stop

    monkeypatch.setattr(bench, "take_rounds", stopped)
    ran = run_cli("bench", "--config", TINY, "--precision", "fp32", "bf16", "--repeat", "3", "--json", tmp_path / "b.json")
    assert ran.status == status
    assert "; 2 rounds after 1 of warm-up" in ran.out, "the round that was not whole counts for nobody"
    assert ran.lines[-1] == "occport: interrupted; the tables show what was measured until then, and nothing was written"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_before_anything_was_measured(monkeypatch):
    def stopped(backends, count):
        backends[0].run()
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "take_rounds", stopped)
    ran = run_cli("bench", "--config", TINY)
    assert ran.status == 130 and ran.out == ""
    assert ran.lines[-1] == "occport: interrupted; no round that counts had ended, and nothing was written"
