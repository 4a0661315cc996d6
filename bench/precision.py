"""What fp16 and bf16 cost at full size: file size, time where ONNX Runtime has it, and how far from fp32 a file is, frame by frame.

    python bench/precision.py [--frame FRAME] [--only ROW …]

Files of the `standard` dialect at opset 22 (every precision has it there) on the real frame and on one of the synthetic city. Agreement:
the file with every result rounded to its type, as on a chip, against PyTorch in fp32. Time: the file itself on stock ONNX Runtime, which
has no bfloat16 convolution on a CPU, and computes float16 in float32 there. Prints a table and writes bench/results/precision.json.
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
FRAME = ROOT.parent / "shared/data/nuscenes_frame"
RESULTS = ROOT / "bench/results/precision.json"
PRECISIONS = ("fp32", "fp16", "bf16")
OPSET = 22
REPEATS = 3


def measure(config: str, precision: str, frames: list[str | None], folder: str) -> dict[str, Any]:
    """One precision: the file, its time on stock ONNX Runtime, and its agreement with PyTorch on each frame."""
    from occport.config import read_config
    from occport.errors import ModelFileError
    from occport.export.agreement import precision_agreement
    from occport.export.device import Setting
    from occport.export.graph_files import write_graphs
    from occport.export.request import Request, load_input, make_spec
    from occport.export.subject import Subject
    from occport.export.verify import sample_of
    from occport.export.weights import load_model
    from occport.memory import give_back
    from occport.session import open_session

    request = Request(read_config(config), frame=frames[0], dialect="standard", opset=OPSET, precision=precision)
    loaded = [load_input(request.config, frame) for frame in frames]
    spec = make_spec(request, loaded[0])
    model, weights, _ = load_model(spec.config, None, 0)
    files = write_graphs(model, spec, loaded[0].lidar2img, Path(folder), "bench", weights)
    row: dict[str, Any] = {"file MB": files["model"].stat().st_size / 1e6, "agreement": {}}
    exact = Setting().ready(model, own=True)
    wanted = [sample_of(exact, spec, one.img, one.lidar2img).logits for one in loaded]
    del model, exact
    give_back()
    subject = Subject(spec, files["model"], None)
    for one, want in zip(loaded, wanted, strict=True):
        got = subject.run(one.img, one.lidar2img)
        found = precision_agreement(precision, one.frame.name, [got[f"logits_scale{i}"] for i in range(len(want))], list(want))
        row["agreement"][one.frame.name] = found.to_json()
    subject.close()
    del wanted
    give_back()
    try:
        session = open_session(files["model"])
        feeds = {"img": loaded[0].img, "lidar2img": loaded[0].lidar2img}
        session.run(feeds)
        laps = [_seconds(lambda: session.run(feeds)) for _ in range(REPEATS)]
        row |= {"ONNX Runtime frame s": statistics.median(laps), "frames s": laps}
    except ModelFileError as error:
        row["ONNX Runtime"] = str(error)
    return {**row, "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def _seconds(run: Any) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def child(precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs one row in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--job", precision, "--config", options.config, "--folder", folder]
        done = subprocess.run([*command, *(["--frame", options.frame] if options.frame else [])], check=True, stdout=subprocess.PIPE)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def show(rows: dict[str, Any]) -> None:
    """The table: a line for each precision and frame."""
    print(f"{'':6}{'file MB':>9}{'frame s':>9}  {'frame':28}{'labels, finest':>16}{'worst scale':>22}{'rms, finest':>13}")
    for name, row in rows.items():
        seconds = f"{row['ONNX Runtime frame s']:.1f}" if "ONNX Runtime frame s" in row else "no kernel"
        for frame, found in row["agreement"].items():
            finest, worst = found["scales"][-1], found["scales"][found["worst_scale"]]
            share = f"{found['worst_scale']}: {worst['agreement']:.2%}"
            print(f"{name:6}{row['file MB']:9.1f}{seconds:>9}  {frame[:26]:28}{finest['agreement']:16.2%}{share:>22}{finest['rms']:13.2e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(CONFIG))
    parser.add_argument("--frame", default=str(FRAME) if FRAME.is_dir() else "", help="the real frame")
    parser.add_argument("--only", nargs="+", choices=PRECISIONS, help="precisions to measure anew; the others of the file stay")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        frames: list[str | None] = [options.frame, None] if options.frame else [None]
        print(json.dumps(measure(options.config, options.job, frames, options.folder)))
        return
    before = json.loads(options.output.read_text())["rows"] if options.only and options.output.is_file() else {}
    found = {name: child(name, options) for name in options.only or PRECISIONS}
    rows = {name: (before | found)[name] for name in PRECISIONS if name in before | found}
    show(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    machine = {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count()}
    table = {"machine": machine, "config": Path(options.config).name, "opset": OPSET, "rows": rows}
    options.output.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
