"""`docs/chips.md`: every command runs, in the order of the page, and its examples are what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

from exporting import ROOT, TINY, run_cli
from occport.graph import dialect as dialects
from occport.graph.bodies.body import FORMS

PAGE = (ROOT / "docs/chips.md").read_text(encoding="utf-8")
COMMANDS = [line for text in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in text.splitlines()]
# takes every operator but the one that no compiler has
COMPILER = '#!/bin/sh\ncase "$2" in *control*) exit 1;; esac\n'


@pytest.fixture
def desk(runtime_export, traces, tmp_path, monkeypatch) -> Path:
    """A folder with what the page takes for granted: an exported file, one of another tool, a compiler, a support list."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("occport.export.build.trace", traces)
    monkeypatch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)
    shutil.copy(runtime_export.model, "M.onnx")
    shutil.copy(runtime_export.model.with_suffix(".json"), "M.json")
    assert run_cli("retarget", "M.onnx", "theirs.onnx", "--to", "bevformer_tensorrt").status == 0
    Path("my").mkdir()
    Path("my/operators.txt").write_text("\n".join(sorted(runtime_export.manifest["census"])) + "\n", encoding="utf-8")
    Path("mycompiler").write_text(COMPILER, encoding="utf-8")
    Path("mycompiler").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def kernels_of_the_reader(folder: Path) -> None:
    """What a right kernel would have returned for the vectors."""
    Path("theirs").mkdir()
    for golden in sorted(folder.glob("*/npy/output.npy")):
        np.save(f"theirs/{golden.parents[1].name}.npy", np.load(golden))


def test_every_command_runs_in_the_order_of_the_page(desk):
    for line in COMMANDS:
        if line.startswith("CMD="):
            subprocess.run(["sh", "-c", line], check=True, capture_output=True, timeout=300)
            continue
        program, verb, *words = shlex.split(line)
        assert program == "occport", line
        if verb == "export":
            words = [str(TINY) if "configs/" in word else word for word in words] + ["--output-dir", str(desk / f"out {len(words)}")]
        if verb == "retarget":
            Path(words[1]).unlink(missing_ok=True)
        if verb == "grade":
            kernels_of_the_reader(Path("vectors"))
        ran = run_cli(verb, *words)
        assert ran.status == 0, (line, ran.out, ran.err)
    assert dialects.load("probes/dialect.toml").msda is not None


def test_every_verb_of_the_page_is_shown():
    verbs = {shlex.split(line)[1] for line in COMMANDS if line.startswith("occport")}
    assert verbs == {"dialects", "export", "lint", "retarget", "probe", "vectors", "grade"}


def test_the_example_of_an_own_dialect(tmp_path):
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "mychip.toml").write_text(text, encoding="utf-8")
    made = dialects.load(str(tmp_path / "mychip.toml"))
    table = tomllib.loads(text)
    assert (made.name, made.opset, made.export.img_rank) == ("mychip", table["opset"], table["export"]["img_rank"])
    assert made.msda.title == f"{table['msda']['domain']}::{table['msda']['op_type']}"
    assert made.dcn == dialects.load(table["base"]).dcn


def test_the_forms_of_the_table():
    rows = re.findall(r"^\| `--(msda|dcn) (\w+)` \| (\d+) \|", PAGE, re.MULTILINE)
    assert {(operator, form): int(opset) for operator, form, opset in rows} == {
        (operator, form): opset for operator, forms in FORMS.items() for form, opset in forms.items()
    }


def test_the_figures_are_the_measured_ones():
    rows = json.loads((ROOT / "bench/results/graph_tools.json").read_text(encoding="utf-8"))["rows"]
    names = {"lint": "lint", "retarget --to tensorrt": "retarget dl to tensorrt", "retarget --to standard": "retarget dl to standard"}
    told = re.findall(r"^\| `occport (.*)` \| (.*) s \| (.*) s \| (.*) GiB \|$", PAGE, re.MULTILINE)
    figures = {command: rows[name] for command, name in names.items()}
    assert told == [
        (command, f"{row['start s']:.2f}", f"{row['total s']:.1f}", f"{row['peak GiB']:.1f}") for command, row in figures.items()
    ]
    assert all(row["start s"] < 2 and "torch" not in row["imported"] for row in figures.values())


def test_the_figures_of_the_standard_forms_are_the_measured_ones():
    rows = json.loads((ROOT / "bench/results/export.json").read_text(encoding="utf-8"))["rows"]
    for row in (rows["standard opset 11"], rows["standard opset 20"]):
        assert f"{row['nodes']:,} nodes" in PAGE and f"{row['ONNX Runtime frame s']:.1f} s" in PAGE
