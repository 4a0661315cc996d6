"""`docs/debug.md`: every command runs, in the order of the page; its figures are the measured ones."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from exporting import ROOT, TINY, run_cli
from occport.bringup.dumps.index import read_index

pytestmark = pytest.mark.xdist_group("export")

PAGE = (ROOT / "docs/debug.md").read_text(encoding="utf-8")
COMMANDS = [line for text in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in text.splitlines()]
RESULTS = ROOT / "bench/results/bringup.json"


@pytest.fixture
def desk(traces, tmp_path, monkeypatch) -> Path:
    """A folder for the commands of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("occport.export.build.trace", traces)
    monkeypatch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)
    return tmp_path


def dumped(golden: Path, folder: Path) -> None:
    """What a chip in fp16 without a bug would dump."""
    folder.mkdir(parents=True)
    index = read_index(golden)
    for entry in index.tensors:
        array = np.load(golden / entry.file)
        low = array.dtype == np.float32 and entry.stage not in ("", "tables")
        np.save(folder / entry.file, array.astype(np.float16) if low else array)


def argument(word: str) -> str:
    """tiny.py stands in for the config, the tests' own runtime for the reader's."""
    if "configs/surroundocc/" in word:
        return str(TINY)
    runtime = f"{sys.executable} {ROOT / 'tests/their_runtime.py'}"
    return word.replace("python my/runtime.py", runtime).replace("surroundocc_micro_", "tiny_")


def test_every_command_runs_in_the_order_of_the_page(desk):
    for line in COMMANDS:
        program, *words = shlex.split(line)
        assert program == "occport", line
        ran = run_cli(*map(argument, words))
        assert ran.status == 0, (line, ran.out, ran.err)
        if words[:1] == ["golden"] and "-o" in words:
            dumped(desk / "out/golden", desk / "my/dumps")
    assert {path.name for path in (desk / "out/dossier").iterdir()} == {
        "tiny_UNTRAINED_dl_opset11_runtime.dossier.html", "tiny_UNTRAINED_dl_opset11_runtime.dossier.json"
    }  # fmt: skip
    assert len([path for path in (desk / "out/parts").iterdir() if path.name.startswith("test_")]) == 8


def test_figures_are_the_measured_ones():
    rows = json.loads(RESULTS.read_text())["rows"]
    everything, plain, cost, hazards = (rows[name] for name in ("golden --mark all", "golden, outputs alone", "cost", "hazards"))
    peaks = f"{everything['peak GiB']:.1f} GiB, {plain['peak GiB']:.1f} without any"
    assert f"all {everything['tensors']:,} tensors: {peaks}" in PAGE
    assert f"{cost['network TMAC']:.2f} TMAC and {cost['network M parameters']:.1f} M parameters" in PAGE
    assert f"its file takes {cost['TMAC']:.2f} TMAC" in PAGE and sorted(cost["custom"].values()) == [10, 26]
    unscaled, scaled = hazards["geometry"]
    lost, hits = (sum(level[key] for level in unscaled["levels"]) for key in ("lost", "hits"))
    assert f"reaches {unscaled['largest']:,.0f}, past 65,504, and loses {lost:,} of {hits:,} hits" in PAGE
    assert f"as here, loses {sum(level['lost'] for level in scaled['levels'])};" in PAGE
    assert f"{hazards['places']['location']['rms']:.2f} px off on level 0" in PAGE
    assert f"up to {hazards['places']['location product']['most']:.2f} px" in PAGE
