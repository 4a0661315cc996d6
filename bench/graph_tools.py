"""Measures the commands that work on a finished file: `occport lint` and `occport retarget`, from the shell's point of view.

    python bench/graph_tools.py MODEL.onnx [--dialect dl] [--to mmcv tensorrt standard] [--repeats 3]

Prints a table and writes bench/results/graph_tools.json. Each run is a process of its own: "start" is the same command with `--help`,
"total" the whole command, "peak" its resident memory. None of them may import torch: that ends the measurement.
The dialect is that of the manifest beside the model where there is one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from export import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/graph_tools.json"
HEAVY = ("torch", "onnxruntime", "onnxscript")
# what a child runs: the command line in a fresh Python, then one line about the process on stderr
CHILD = """
import json, resource, sys
from occport.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code or 0
heavy = [name for name in {heavy} if name in sys.modules]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({{"status": status, "imported": heavy, "peak GiB": peak}}), file=sys.stderr)
"""


def measure(arguments: list[str]) -> dict[str, Any]:
    """One command: its seconds from outside, exit status, heavy imports and peak memory (GiB)."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", CHILD.format(heavy=HEAVY), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    try:
        row: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    except (IndexError, ValueError):
        sys.exit(f"occport {' '.join(arguments)}: exit status {done.returncode}\n{done.stderr}")
    return {"seconds": seconds, **row, "said": Path((done.stdout.splitlines() or [""])[-1]).name}


def rows_of(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """A row for each command."""
    dialect = options.dialect or dialect_of(options.model)
    jobs = {"lint": ["lint", str(options.model), "--dialect", dialect]}
    for target in options.to:
        if target != dialect:
            jobs[f"retarget {dialect} to {target}"] = ["retarget", str(options.model), str(folder / f"{target}.onnx"), "--to", target]
    rows = {}
    for job, arguments in jobs.items():
        starts = [measure([arguments[0], "--help"])["seconds"] for _ in range(options.repeats)]
        runs = []
        for _ in range(options.repeats):
            runs.append(measure(arguments))
            for path in folder.iterdir():  # a run must not find the file of the one before
                path.unlink()
        rows[job] = {
            "start s": statistics.median(starts), "total s": statistics.median(run["seconds"] for run in runs),
            "totals s": [run["seconds"] for run in runs], "peak GiB": max(run["peak GiB"] for run in runs),
            "imported": ", ".join(runs[-1]["imported"]) or "none", "status": runs[-1]["status"], "said": runs[-1]["said"],
        }  # fmt: skip
    return rows


def dialect_of(model: Path) -> str:
    """The dialect that the manifest beside a model names."""
    manifest = model.with_suffix(".json")
    if not manifest.is_file():
        sys.exit(f"{manifest} is not there: name the dialect of {model.name} with --dialect")
    return str(json.loads(manifest.read_text(encoding="utf-8"))["dialect"]["name"])


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    columns = ["start s", "total s", "peak GiB", "imported", "status", "said"]
    table = Table(title="tools on a finished file")
    for column in ("", *columns):
        table.add_column(column, justify="left" if column in ("", "said") else "right")
    for job, row in rows.items():
        table.add_row(job, *(f"{row[column]:.2f}" if isinstance(row[column], float) else str(row[column]) for column in columns))
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an exported file of full size")
    parser.add_argument("--dialect", help="the file's dialect")
    parser.add_argument("--to", nargs="+", default=["mmcv", "tensorrt", "standard"], help="dialects to rewrite it for")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.model.parent) as folder:  # the model's disk has room for another
        rows = rows_of(options, Path(folder))
    show(rows)
    guilty = [job for job, row in rows.items() if "torch" in row["imported"]]
    if guilty:
        sys.exit(f"torch is imported by {', '.join(guilty)}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    size = {"file": options.model.name, "MB": options.model.stat().st_size / 1e6, "repeats": options.repeats}
    options.output.write_text(json.dumps({"machine": machine(), **size, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
