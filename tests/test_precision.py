"""Runs in a lower precision: the agreement with fp32 is told once and recorded, and results do not mix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporting import TINY, assert_refused, run_cli
from occport.errors import FrameError
from occport.frames.frame import Frame
from occport.frames.listing import Entry
from occport.use import precision
from occport.use.choice import Choice
from occport.use.precision import agreement_with_fp32
from occport.use.predict import made_up
from occport.use.predictor import Predictor
from test_bad_input import frame_folder

LINE = "bf16 against fp32 on frame synthetic: scale 3 "


def test_the_first_frame_that_can_be_used_is_compared(monkeypatch):
    choice = Choice(TINY, precision="bf16")
    predictor = choice.open()
    read = precision.read_frame

    def reading(entry: Entry, predictor: Predictor, seed: int) -> Frame:
        if entry.name == "bad":
            raise FrameError("frame", got="bad")
        return read(entry, predictor, seed)

    monkeypatch.setattr(precision, "read_frame", reading)
    bad, good = Entry("bad", "bad"), made_up(3)
    found = agreement_with_fp32(replace(choice, seed=3), predictor, [bad, good, bad])
    assert found is not None and found.frame == "synthetic_3" and found.precision == "bf16"
    assert [scale.total for scale in found.scales] == [6, 48, 384, 3072]
    assert agreement_with_fp32(choice, predictor, [bad]) is None and agreement_with_fp32(choice, predictor, []) is None


def test_the_figures_are_those_of_the_two_networks():
    choice = Choice(TINY, precision="bf16")
    low, exact = choice.open(), Choice(TINY).open()
    found = agreement_with_fp32(choice, low, [made_up(0)])
    frame = precision.read_frame(made_up(0), low, 0)
    assert found is not None
    for scale, got, want in zip(found.scales, low.logits(frame), exact.logits(frame), strict=True):
        assert got.dtype == want.dtype == np.float32 and got.shape == want.shape
        assert scale.differing == np.count_nonzero(got.argmax(1) != want.argmax(1))
        assert scale.max_abs == pytest.approx(np.abs(got - want).max()) and 0 < scale.rms < 0.05 and scale.rms < scale.max_abs < 1
    assert np.array_equal(low.logits(frame)[3][0].argmax(0), low.predict(frame).labels)


@pytest.mark.parametrize("choice", [Choice(TINY), "file"])
def test_nothing_is_compared_in_float32(choice, runtime_export):
    chosen = Choice(model=runtime_export.model) if choice == "file" else choice
    assert agreement_with_fp32(chosen, chosen.open(), [made_up(0)]) is None


def test_predict_tells_and_records_it(tmp_path):
    out = tmp_path / "out"
    ran = run_cli("predict", "--config", TINY, "-o", out, "--precision", "bf16")
    assert ran.status == 0 and ran.out.count(LINE) == 1 and ran.err.count(LINE) == 1
    table = json.loads((out / "predictions.json").read_text())
    assert table["network"]["precision"] == "bf16" and table["described"].startswith("PyTorch bfloat16, ")
    assert table["precision"]["precision"] == "bf16" and table["precision"]["frame"] == "synthetic"
    shares = [scale["agreement"] for scale in table["precision"]["scales"]]
    assert len(shares) == 4 and 0.9 < shares[3] < 1
    for flags in ([], ["--resume"]):
        ran = run_cli("predict", "--config", TINY, "-o", out, *flags)
        assert ran.status == 2 and "network.precision is 'bf16' there, nothing here" in ran.lines[-1]


def test_predict_in_float32_tells_nothing(tmp_path):
    ran = run_cli("predict", "--config", TINY, "-o", tmp_path)
    assert ran.status == 0 and "against fp32" not in ran.out + ran.err
    table = json.loads((tmp_path / "predictions.json").read_text())
    assert "precision" not in table and "precision" not in table["network"]


def test_a_run_that_is_resumed_compares_a_frame_that_is_left(tmp_path):
    frames, out = tmp_path / "in", tmp_path / "out"
    frames.mkdir()
    for name in ("a", "b"):
        frame_folder(frames / name)
    flags = ("predict", frames, "--config", TINY, "-o", out, "--precision", "bf16")
    assert run_cli(*flags).status == 0
    (out / "b.npz").unlink()
    assert "bf16 against fp32 on frame b: " in run_cli(*flags, "--resume").out
    assert "against fp32" not in run_cli(*flags, "--resume").out  # nothing was left


def test_evaluate_tells_and_records_it(tmp_path, runtime_export):
    path = tmp_path / "e.json"
    flags = ("--precision", "bf16", "--json", path, "--markdown", tmp_path / "e.md")
    ran = run_cli("evaluate", "--model", runtime_export.model, "--against", "torch", *flags)
    assert ran.status == 0 and ran.out.count(LINE) == 1 and ran.err.count(LINE) == 1
    assert LINE in (tmp_path / "e.md").read_text()
    table = json.loads(path.read_text())
    (told,) = table["precision"]
    assert told["precision"] == "bf16" and len(told["scales"]) == 4
    assert any(remark.startswith(LINE) for remark in table["remarks"])
    assert table["against"]["predictions"].startswith("PyTorch bfloat16, ")
    # the file says what fp32 says: both ways to the same number
    assert table["agreement"]["voxels"] - table["agreement"]["equal"] == pytest.approx(told["scales"][3]["differing"], abs=2)


def test_evaluate_in_float32_has_no_such_field(tmp_path, runtime_export):
    path = tmp_path / "e.json"
    ran = run_cli("evaluate", "--config", TINY, "--against", runtime_export.model, "--json", path)
    assert ran.status == 0 and "precision" not in json.loads(path.read_text()) and "against fp32" not in ran.out + ran.err


@pytest.mark.parametrize("flag", ["--precision", "--device"])
def test_files_have_no_precision(flag, tmp_path):
    value = {"--precision": "bf16", "--device": "cpu"}[flag]
    np.savez(tmp_path / "f.npz", labels=np.zeros((16, 24, 8), np.uint8))
    other: Path = tmp_path / "other"
    other.mkdir()
    np.savez(other / "f.npz", labels=np.zeros((16, 24, 8), np.uint8))
    line = assert_refused(run_cli("evaluate", "--predictions", tmp_path, "--against", other, flag, value), f"{flag}: expected a network")
    assert "got --predictions, which are files; leave one of them out" in line
