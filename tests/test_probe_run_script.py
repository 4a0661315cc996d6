"""run.sh: plain sh around the user's own command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from occport.kit.probe.results import PASSED, read_results

COMPILERS = Path(__file__).with_name("compilers.py")


@pytest.fixture
def folder(probes, tmp_path) -> Path:
    return Path(shutil.copytree(probes, tmp_path / "it's a $folder"))  # no character of a path may break the command


def sh(folder: Path, *names: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("CMD", "FORCE", "TIMEOUT")}
    return subprocess.run(
        ["sh", str(folder / "run.sh"), *names], env={**environment, **variables}, capture_output=True, text=True, cwd="/", check=False
    )


def test_runs_every_probe_and_survives_failures(folder):
    ran = sh(folder, CMD="case {name} in opset_1*) exit 3;; esac; echo compiled")
    names = sorted(path.parent.name for path in folder.glob("*/model.onnx"))
    assert ran.returncode == 0 and ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert len(lines) == len(names) + 1 and lines[0].startswith(f"[1/{len(names)}] ")
    assert lines[-1] == f"{len(names) - 9} of {len(names)} probes were taken; now: occport probe --results {folder}"
    for name in names:
        assert (folder / name / "result/status").read_text() == ("3\n" if name.startswith("opset_1") else "0\n")
    assert (folder / "conv3d/result/log.txt").read_text() == "compiled\n"


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_placeholders(folder, quote):
    words = " ".join(f"{quote}{{{word}}}{quote}" for word in ("model", "inputs", "outputs", "name"))
    assert sh(folder, "conv3d", CMD=f"printf '%s\\n' {words}").returncode == 0
    probe = folder / "conv3d"
    assert (probe / "result/log.txt").read_text().splitlines() == [f"{probe}/model.onnx", str(probe), f"{probe}/result", "conv3d"]


def test_done_is_skipped_unless_forced(folder):
    assert "exit status 4 (done)" in sh(folder, "volume", CMD="exit 4").stdout
    assert "exit status 4 (kept)" in sh(folder, "volume", CMD="exit 5").stdout
    (folder / "volume/result/rubbish").touch()
    assert "exit status 5 (done)" in sh(folder, "volume", CMD="exit 5", FORCE="1").stdout
    assert not (folder / "volume/result/rubbish").exists()
    (folder / "volume/result/status").unlink()  # broken off
    assert "exit status 6 (done)" in sh(folder, "volume", CMD="exit 6").stdout


def test_command_cannot_swallow_what_follows(folder):
    ran = sh(folder, "volume", "conv3d", CMD="cat; kill -9 $$")
    lines = [line.split(" (")[0] for line in ran.stdout.splitlines()[:2]]
    assert lines == ["[1/2] volume: exit status 137", "[2/2] conv3d: exit status 137"]


def test_help_without_a_command(folder):
    ran = sh(folder)
    assert ran.returncode == 2 and "CMD='mycompiler --model {model}" in ran.stdout and "FORCE=1" in ran.stdout
    assert not list(folder.glob("*/result"))


def test_unknown_name(folder):
    ran = sh(folder, "nothing", CMD="true")
    assert ran.returncode == 2 and ran.stderr == "nothing: no such probe\n"


def test_a_simulated_compiler_as_a_command(folder):
    command = f"{sys.executable} {COMPILERS} standard_only {{model}} {{inputs}} {{outputs}}"
    sh(folder, "conv3d", "msda", CMD=command)
    results = {result.name: result for result in read_results(folder).results}
    assert results["conv3d"].grade == PASSED and results["conv3d"].detail.startswith("max abs")
    assert (results["msda"].grade, results["msda"].detail) == ("refused", "operator DL::MultiScaleDeformableAttnFunction")
    assert results["volume"].grade == "not run"
