"""Measures the export and the exported file at full size: tracing, memory, nodes, one frame in ONNX Runtime and in PyTorch.

    python bench/export.py [--config …] [--repeats 3] [--only ROW …]

Prints a table and writes bench/results/export.json. Each row runs in a process of its own, so that its peak memory is its own.
Whoever compares two figures takes both from one run: the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "projects/configs/surroundocc/surroundocc.py"
RESULTS = ROOT / "bench/results/export.json"
FORMS: dict[str, list[Any]] = {  # dialect, opset, functions, calibration
    "dl opset 11": ["dl", 11, False, "runtime"],
    "dl opset 17": ["dl", 17, False, "runtime"],
    "standard opset 11": ["standard", 11, False, "runtime"],
    "standard opset 20": ["standard", 20, False, "runtime"],
    "standard opset 20, tables": ["standard", 20, False, "tables"],
    "standard opset 20, fixed": ["standard", 20, False, "fixed"],
}


def trace_and_run(config: str, form: str, folder: str, repeats: int) -> dict[str, Any]:
    """One form: traced to a staged file (seconds, peak), its nodes, then frames in ONNX Runtime (bodies attached in memory)."""
    from occport.config import read_config
    from occport.export.graph_files import write_graphs
    from occport.export.request import Request, load_input, make_spec
    from occport.export.subject import Subject
    from occport.export.weights import load_model

    dialect, opset, functions, calibration = FORMS[form]
    request = Request(read_config(config), dialect=dialect, opset=opset, functions=functions, calibration=calibration)
    loaded = load_input(request.config, None)
    spec = make_spec(request, loaded)
    model, weights, _ = load_model(request.config, None, 0)
    begin = time.perf_counter()
    files = write_graphs(model, spec, loaded.lidar2img, Path(folder), "bench", weights)
    row: dict[str, Any] = {"trace to file s": time.perf_counter() - begin, "trace peak GiB": peak()}
    del model
    subject = Subject(spec, files["model"], files.get("geometry"))
    row["nodes"] = len(subject.skeleton.graph.node)
    row["file MB"] = sum(path.stat().st_size for path in files.values()) / 1e6
    subject.run(loaded.img, loaded.lidar2img)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        subject.run(loaded.img, loaded.lidar2img)
        seconds.append(time.perf_counter() - begin)
    return {**row, "ONNX Runtime frame s": statistics.median(seconds), "frames s": seconds, "run peak GiB": peak()}


def pytorch(config: str, repeats: int) -> dict[str, Any]:
    """One frame in PyTorch, fp32, as `predict` runs it."""
    import torch

    from occport.config import read_config
    from occport.export.device import Setting
    from occport.export.request import load_input
    from occport.export.weights import load_model
    from occport.memory import keep_pages

    keep_pages()
    settings = read_config(config)
    loaded = load_input(settings, None)
    model = Setting().ready(load_model(settings, None, 0)[0], own=True)
    seconds = []
    with torch.no_grad():
        for _ in range(repeats):
            begin = time.perf_counter()
            model(torch.from_numpy(loaded.img), torch.from_numpy(loaded.lidar2img))
            seconds.append(time.perf_counter() - begin)
    return {"PyTorch frame s": statistics.median(seconds), "frames s": seconds, "run peak GiB": peak()}


def whole(config: str, folder: str) -> dict[str, Any]:
    """The command a user types, verification included."""
    begin = time.perf_counter()
    command = [sys.executable, str(ROOT / "tools/export.py"), "--config", config, "--output-dir", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"whole command s": time.perf_counter() - begin, "run peak GiB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20}


def peak() -> float:
    """Largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def child(job: str, config: str, repeats: int) -> dict[str, Any]:
    """Runs one row in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--job", job, "--config", config, "--repeats", str(repeats), "--folder", folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def run_job(options: argparse.Namespace) -> dict[str, Any]:
    """What a child does."""
    if options.job == "PyTorch fp32":
        return pytorch(options.config, options.repeats)
    if options.job == "whole export":
        return whole(options.config, options.folder)
    return trace_and_run(options.config, options.job, options.folder, options.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(CONFIG))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="rows to measure anew; the other rows of the file stay")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run_job(options)))
        return
    jobs = options.only or [*FORMS, "PyTorch fp32", "whole export"]
    before = json.loads(options.output.read_text())["rows"] if options.only and options.output.is_file() else {}
    rows = before | {job: child(job, options.config, options.repeats) for job in jobs}
    show(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    table = {"machine": machine(), "config": Path(options.config).name, "repeats": options.repeats, "rows": rows}
    options.output.write_text(json.dumps(table, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    measured = ["trace to file s", "trace peak GiB", "nodes", "file MB"]
    columns = [*measured, "ONNX Runtime frame s", "PyTorch frame s", "whole command s", "run peak GiB"]
    table = Table(title="export at full size")
    for column in ("", *columns):
        table.add_column(column, justify="left" if not column else "right")
    for job, row in rows.items():
        cells = (row.get(column, "") for column in columns)
        table.add_row(job, *(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
