"""Measures the speed of one frame: PyTorch's references, fp32 and bf16 against each other, and the exported files on ONNX Runtime.

    python bench/speed.py [--config …] [--frame FRAME] [--repeats 3] [--only torch|onnx] [--files FILE.onnx …]

Prints the tables of `occport bench` and how each figure stands to what is wanted of it; writes bench/results/speed.json, where the part
that was not measured anew stays. Everything within a part is measured in turns in one run, and peak memory in processes of their own.
The exported files are made for this and not verified; --files takes others, with their manifests.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from occport.measure.bench import Bench
from occport.measure.plan import Contender, Plan
from occport.measure.result import Measured, Result
from occport.measure.tables import text_of
from occport.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "projects/configs/surroundocc/surroundocc.py"
RESULTS = ROOT / "bench/results/speed.json"
REAL = ROOT.parent / "shared/data/nuscenes_frame/frame.json"
GIB = 2**30


class Form(NamedTuple):
    """An export."""

    dialect: str
    opset: int
    functions: bool
    calibration: str


FORMS = {
    "fixed": Form("standard", 20, False, "fixed"),
    "tables": Form("standard", 20, False, "tables"),
    "runtime": Form("standard", 20, False, "runtime"),
    "dl, bodies": Form("dl", 17, True, "runtime"),
}


class Check(NamedTuple):
    """A figure and what is wanted of it."""

    what: str
    value: float
    wanted: str
    good: bool


def at_least(what: str, value: float, least: float) -> Check:
    return Check(what, value, f"at least {least:g}", value >= least)


def at_most(what: str, value: float, most: float) -> Check:
    return Check(what, value, f"at most {most:g}", value <= most)


def measured(plan: Plan, repeats: int, *, warmup: int = 1, memory: bool = True) -> Result:
    """Measures a plan and prints its tables."""
    bench = Bench(plan, Progress(Bench.STAGES + memory * len(plan.contenders)), warmup=warmup, repeat=repeats)
    bench.measure(operators=False, memory=memory)
    result = bench.result()
    assert result is not None
    print(text_of(result))
    return result


def in_torch(config: Path, frame: str | None, repeats: int) -> tuple[dict[str, Any], list[Check]]:
    """References, fp32 and bf16 on one frame; the labels of bf16 on the synthetic one too."""
    networks = (Contender("fp32"), Contender("bf16", "bf16"))
    main = measured(Plan((Contender("references", references=True), *networks), config, frame=frame), repeats)
    rows: dict[str, Any] = {"references, fp32, bf16": main.to_json()}
    _, fp32, bf16 = main.backends
    checks = [
        at_least("fp32, times as fast as the references", main.times(fp32), 2.5),
        at_least("fp32, fraction of the bound", main.of_bound(fp32), 0.75),
        at_most("fp32, seconds", seconds(fp32), 18),
        at_most("fp32, peak GiB", peak(fp32), 2.5),
        Check("bf16, times as fast as fp32", main.times(bf16) / main.times(fp32), "more than 1", main.times(bf16) > main.times(fp32)),
        at_most("bf16, seconds (on a machine with AMX)", seconds(bf16), 5),
    ]
    frames = {"real" if frame else "synthetic": measured_labels(config, frame)}
    if frame:
        frames["synthetic"] = measured_labels(config, None)
    for name, result in frames.items():
        labels = result.backends[1].labels
        assert labels is not None
        rows[f"bf16 against fp32, {name} frame"] = labels.to_json()
        checks.append(at_least(f"bf16, labels as of fp32, {name} frame, worst scale {labels.worst}", labels.shares[labels.worst], 0.99))
    return rows, checks


def measured_labels(config: Path, frame: str | None) -> Result:
    """One round, for the labels of bf16 against those of fp32."""
    return measured(Plan((Contender("fp32"), Contender("bf16", "bf16")), config, frame=frame), 1, warmup=0, memory=False)


def on_onnxruntime(config: Path, files: Sequence[Path], repeats: int) -> tuple[dict[str, Any], list[Check]]:
    """The exported files; `fixed` has the synthetic frame's rig baked in, so that is the frame."""
    names = list(FORMS) if not files else [path.stem for path in files]
    with tempfile.TemporaryDirectory() as folder:
        paths = files or [exported(config, form, Path(folder) / str(number)) for number, form in enumerate(FORMS.values())]
        contenders = tuple(Contender(name, model=path) for name, path in zip(names, paths, strict=True))
        result = measured(Plan(contenders), repeats)
    speed = convolution_speed()
    rows = {"files": result.to_json(), "convolution flops_per_second": speed}
    checks = []
    limits = {"fixed": 19, "tables": 19, "runtime": 20}
    for backend in result.backends:
        checks.append(at_least(f"{backend.name}, fraction of the bound", result.of_bound(backend), 0.75 if not files else 0.0))
        share = result.total_flops / seconds(backend) / speed
        checks.append(Check(f"{backend.name}, fraction of ONNX Runtime's own convolution", share, "as much as can be", True))
        if backend.name in limits:
            checks.append(at_most(f"{backend.name}, seconds", seconds(backend), limits[backend.name]))
    if not files:
        by_name = {backend.name: backend for backend in result.backends}
        ratio = result.times(by_name["runtime"]) / result.times(by_name["dl, bodies"])
        checks.append(at_most("dl with bodies, times as long as standard in runtime", ratio, 1.2))
    return rows, checks


def exported(config: Path, form: Form, folder: Path) -> Path:
    """Writes a file of this form with its manifest, seeded weights and the synthetic frame's rig; it is not verified."""
    from occport.config import read_config
    from occport.export.graph_files import write_graphs
    from occport.export.manifest import manifest, write_json
    from occport.export.request import Request, file_name, load_input, make_spec
    from occport.export.weights import load_model
    from occport.graph.model_file import read_skeleton

    folder.mkdir(parents=True)
    request = Request(read_config(config), dialect=form.dialect, opset=form.opset, functions=form.functions, calibration=form.calibration)
    loaded = load_input(request.config, None)
    spec = make_spec(request, loaded)
    model, weights, _ = load_model(request.config, None, 0)
    stem = file_name(spec, False)
    print(f"writing {stem}", file=sys.stderr)
    files = write_graphs(model, spec, loaded.lidar2img, folder, stem, weights)
    write_json(folder / f"{stem}.json", manifest(spec, weights, loaded.origin, read_skeleton(files["model"]), files, []))
    return files["model"]


def convolution_speed() -> float:
    """Operations in a second of ONNX Runtime's best plain convolution, 1x1 or 3x3, at the size of the backbone's largest stage."""
    from onnx import TensorProto, helper

    from occport.session import open_session

    best, images, channels, hw = 0.0, 6, 256, (58, 100)
    for kernel, width in ((1, 1024), (3, channels)):
        weight = np.random.default_rng(0).random((channels, width, kernel, kernel), np.float32)
        ports = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (images, size, *hw)) for name, size in (("x", width), ("y", channels))
        ]
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4)
        constant = helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)
        graph = helper.make_graph([node], "convolution", ports[:1], ports[1:], [constant])
        session = open_session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
        x = np.ones((images, width, *hw), np.float32)
        found = []
        for _ in range(6):
            begin = time.perf_counter()
            session.run({"x": x})
            found.append(time.perf_counter() - begin)
        best = max(best, 2 * images * hw[0] * hw[1] * channels * width * kernel**2 / min(found))
    return best


def seconds(backend: Measured) -> float:
    """Median of a whole frame."""
    return statistics.median(lap["whole"] for lap in backend.laps)


def peak(backend: Measured) -> float:
    """GiB."""
    return backend.peak.process / GIB if backend.peak else float("nan")


def show(checks: Sequence[Check]) -> None:
    """The table of wanted figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="what is wanted")
    for column in ("", "measured", "wanted", ""):
        table.add_column(column, justify="right" if column == "measured" else "left")
    for check in checks:
        table.add_row(check.what, f"{check.value:.4g}", check.wanted, "" if check.good else "not here")
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--frame", default=str(REAL) if REAL.is_file() else "", help="of the PyTorch part; '' is the synthetic one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("torch", "onnx"), help="measure one part anew; the other one in the file stays")
    parser.add_argument("--files", type=Path, nargs="+", default=[], metavar="FILE.onnx", help="exported files instead of new ones")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    table = json.loads(options.output.read_text()) if options.only and options.output.is_file() else {}
    checks: list[Check] = []
    if options.only != "onnx":
        table["torch"], found = in_torch(options.config, options.frame or None, options.repeats)
        table["torch"]["checks"] = [check._asdict() for check in found]
        checks += found
    if options.only != "torch":
        table["onnx"], found = on_onnxruntime(options.config, options.files, options.repeats)
        table["onnx"]["checks"] = [check._asdict() for check in found]
        checks += found
    show(checks)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"config": options.config.name, **table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
