"""`docs/speed.md`: every command runs, in the order of the page; its tables are what `bench/` measured."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from exporting import ROOT, TINY, run_cli

pytestmark = pytest.mark.xdist_group("readme")

PAGE = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
COMMANDS = [line for text in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in text.splitlines()]
RESULTS = ROOT / "bench/results"
FORMS = {
    "fixed": "`standard`, `fixed`", "tables": "`standard`, `tables`", "runtime": "`standard`, `runtime`",
    "dl, bodies": "the document's nodes with bodies, `runtime`",
}  # fmt: skip
WANTED = {"references": "the network as it is, plain operators", "fp32": "fp32", "bf16": "bf16"}


def table(head: str, rows: list[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|---" * columns + "|", *rows])


def speed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / "speed.json").read_text())
    return found


def seconds(backend: dict[str, Any], stage: str) -> str:
    return f"{backend['stages'][stage]['median_s']:.2f}" if stage in backend["stages"] else "–"


def torch_table() -> str:
    """A row for each backend: whole, stages, how many times as fast, fraction of the bound, peak."""
    stages = ("backbone", "neck", "level 0", "level 1", "level 2", "decoder")
    rows = []
    for backend in speed()["torch"]["references, fp32, bf16"]["backends"]:
        whole = backend["stages"]["whole"]
        cells = [f"{whole['median_s']:.1f}", *(seconds(backend, stage) for stage in stages)]
        cells += [f"{backend['times_as_fast_as_first']:.1f}", f"{backend['of_bound']:.0%}", f"{backend['peak_bytes'] / 2**30:.2f}"]
        rows.append(f"| {WANTED[backend['name']]} | {' | '.join(cells)} |")
    return table(f"| PyTorch, seconds | frame | {' | '.join(stages)} | times as fast | of the bound | peak GiB |", rows)


def gemm_line() -> str:
    """The machine's own speed and the bounds."""
    gemm = speed()["torch"]["references, fp32, bf16"]["gemm"]
    parts = (f"{each['flops_per_second'] / 1e9:,.0f} GFLOP/s in {name}: {each['bound_s']:.1f} s" for name, each in gemm.items())
    return "Here " + ", ".join(parts) + "; the machine has no AMX."


def labels_table() -> str:
    """A row for each frame: agreement of every scale, the worst named."""
    rows = []
    for frame in ("real", "synthetic"):
        found = speed()["torch"].get(f"bf16 against fp32, {frame} frame")
        if found:
            shares = [f"{share:.2%}" for share in found["agreement"].values()]
            rows.append(f"| the {frame} frame | {' | '.join(shares)} | {found['worst_scale']} |")
    return table("| labels as of fp32 | scale 0 | 1 | 2 | 3, the finest | worst scale |", rows)


def onnx_table() -> str:
    """A row for each form."""
    part = speed()["onnx"]
    own = part["convolution flops_per_second"]
    rows = []
    for backend in part["files"]["backends"]:
        whole = backend["stages"]["whole"]["median_s"]
        share = part["files"]["flops"]["whole"] / whole / own
        cells = f"{whole:.1f} | {backend['of_bound']:.0%} | {share:.0%} | {backend['peak_bytes'] / 2**30:.2f}"
        rows.append(f"| {FORMS[backend['name']]} | {cells} |")
    return table("| ONNX Runtime | frame, s | of the bound | of its own best convolution | peak GiB |", rows)


def kernels_table() -> str:
    """A row for each case: milliseconds and ratios by what ran it."""
    rows = []
    for case in json.loads((RESULTS / "kernels.json").read_text())["cases"]:
        runs = case["runs"]
        cells = ", ".join(f"{name} {row['median ms']:.1f} ms" for name, row in runs.items())
        rows.append(f"| {case['name']} | {case['size']} | {cells} |")
    return table("| operator | size | median |", rows)


def growth_table() -> str:
    """A row for each axis."""
    rows = []
    for name, axis in json.loads((RESULTS / "growth.json").read_text())["axes"].items():
        sizes, grown = axis["sizes"], axis["growing"]
        span = f"{sizes[0]:,} to {sizes[-1]:,} {axis['unit']}"
        rows.append(f"| {name} | {span} | {axis['fits']['whole']['exponent']:.2f} | {grown['exponent']:.2f} | {grown['last']:.2f} |")
    return table("| axis | range | p, whole frame | p, stages that grow | p, last step |", rows)


MADE = (torch_table, gemm_line, labels_table, onnx_table, kernels_table, growth_table)


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.__name__)
def test_figures_are_the_measured_ones(made):
    for line in made().splitlines():
        assert line in PAGE


def argument(word: str) -> str:
    """tiny.py stands in for every config."""
    return str(TINY) if "configs/surroundocc/" in word else word.replace("surroundocc_micro_", "tiny_")


def test_every_command_runs_in_the_order_of_the_page(traces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("occport.export.build.trace", traces)
    monkeypatch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)
    for words in (["synth", "-o", "out/city", "--frames", "2", "--config", str(TINY)], ["export", "--config", str(TINY)]):
        assert run_cli(*words).status == 0
    assert len(COMMANDS) == 3
    for line in COMMANDS:
        program, *words = shlex.split(line)
        assert program == "occport", line
        ran = run_cli(*map(argument, words))
        assert ran.status == 0, (line, ran.out, ran.err)
    assert [backend["name"] for backend in json.loads(Path("out/bench.json").read_text())["backends"]]
