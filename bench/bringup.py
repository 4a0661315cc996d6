"""Measures the bring-up commands at full size: golden tensors, cost, hazards, diff, with time and peak memory.

    python bench/bringup.py [--frame FRAME] [--only ROW …]

The official config in the default dialect on the real frame. Each row runs in a process of its own, so that its peak memory is its own;
the file is exported once. Prints a table and writes bench/results/bringup.json. Golden tensors are hashed and let go, not kept on disk;
diff needs 15 GB there: tensors of all custom nodes, and the same as a chip in fp16 without a bug would dump them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "projects/configs/surroundocc/surroundocc.py"
FRAME = ROOT.parent / "shared/data/nuscenes_frame"
RESULTS = ROOT / "bench/results/bringup.json"


def made(config: str, frame: str, folder: str) -> Path:
    """The file, with what a manifest tells of it, without the checks."""
    from occport.config import read_config
    from occport.export.graph_files import write_graphs
    from occport.export.manifest import manifest, write_json
    from occport.export.request import Request, file_name, load_input, make_spec
    from occport.export.weights import load_model
    from occport.graph.model_file import read_skeleton

    request = Request(read_config(config), frame=frame or None)
    loaded = load_input(request.config, request.frame)
    spec = make_spec(request, loaded)
    model, weights, _ = load_model(spec.config, None, 0)
    stem = file_name(spec, trained=False)
    files = write_graphs(model, spec, loaded.lidar2img, Path(folder), stem, weights)
    write_json(Path(folder) / f"{stem}.json", manifest(spec, weights, loaded.origin, read_skeleton(files["model"]), files, []))
    return files["model"]


def golden(path: Path, marks: tuple[str, ...]) -> dict[str, Any]:
    """One forward that hands out tensors."""
    from occport.bringup.dumps.formats import sha256_of_array
    from occport.bringup.dumps.marks import marked
    from occport.bringup.walk import walk
    from occport.export.network_file import feeds_of, read_network

    file = read_network(path, None, standard=True)
    names, total = marked(file, marks), 0
    for _, array in walk(file, feeds_of(file, None, None)[0], names):
        sha256_of_array(array)
        total += array.nbytes
    return {"tensors": len(names), "GiB": total / 2**30}


def cost(path: Path) -> dict[str, Any]:
    """What the file and its network cost."""
    from occport.bringup.cost.cost import cost_of
    from occport.export.network_file import read_network

    found = cost_of(read_network(path, None, standard=True))
    assert found.network is not None
    network = {"network TMAC": found.network.total / 1e12, "network M parameters": found.network.parameters / 1e6}
    return {"TMAC": found.total.macs / 1e12, **network, "custom": dict(found.custom), "peak MiB": found.peak.total / 2**20}


def hazards(path: Path) -> dict[str, Any]:
    """What fp16 would do: the hits, and how far places are off."""
    from occport.bringup.precision.hazards import hazards_of
    from occport.export.network_file import feeds_of, read_network

    file = read_network(path, None, standard=True)
    found = hazards_of(file, feeds_of(file, None, None)[0])
    places = {
        kind: max((one.figures for one in found.found if one.kind == kind), key=lambda figures: figures["rms"], default={})
        for kind in ("location", "location product")
    }  # {} on maps too small to lose anything
    return {"tensors": found.tensors, "geometry": [hits.to_json() for hits in found.hits], "places": places}


def diff(path: Path) -> dict[str, Any]:
    """The tensors of all custom nodes, rounded to fp16, held against golden ones; only the comparison is timed."""
    import numpy as np

    from occport.bringup.diff.compare import Request, compare_dumps
    from occport.bringup.dumps.index import read_index
    from occport.progress import NullProgress

    golden, theirs = path.parent / "golden", path.parent / "theirs"
    subprocess.run([sys.executable, "-m", "occport", "golden", path, "-o", golden], check=True, stdout=subprocess.DEVNULL)
    theirs.mkdir()
    for entry in read_index(golden).tensors:
        array = np.load(golden / entry.file, mmap_mode="r")
        low = array.dtype == np.float32 and entry.stage not in ("", "tables")
        np.save(theirs / entry.file, array.astype(np.float16) if low else array)
    begin = time.perf_counter()
    result = compare_dumps(Request(golden, theirs), NullProgress())
    assert not result.blamed, result.blamed[0].words
    return {"tensors": len(result.tensors), "judged": len(result.explained), "diff seconds": time.perf_counter() - begin}


ROWS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "golden, outputs alone": lambda path: golden(path, ()),
    "golden --mark all": lambda path: golden(path, ("all",)),
    "cost": cost,
    "hazards": hazards,
    "diff, custom nodes": diff,
}


def child(name: str, path: Path) -> dict[str, Any]:
    """Runs one row in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--job", name, "--model", str(path)], check=True, stdout=subprocess.PIPE)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(CONFIG))
    parser.add_argument("--frame", default=str(FRAME) if FRAME.is_dir() else "", help="the real frame")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="rows to measure anew; the others of the file stay")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        begin = time.perf_counter()
        row = ROWS[options.job](options.model)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({**row, "seconds": time.perf_counter() - begin, "peak GiB": peak}))
        return
    rows = json.loads(options.output.read_text())["rows"] if options.only and options.output.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        path = made(options.config, options.frame, folder)
        for name in options.only or ROWS:
            rows[name] = child(name, path)
            print(f"{name:24}{rows[name]['seconds']:8.1f} s{rows[name]['peak GiB']:8.2f} GiB  {_rest(rows[name])}")
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    machine = {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    table = {"machine": machine, "config": Path(options.config).name, "rows": rows}
    options.output.write_text(json.dumps(table, indent=1) + "\n")


def _rest(row: dict[str, Any]) -> str:
    shown = {key: value for key, value in row.items() if isinstance(value, int | float) and key not in ("seconds", "peak GiB")}
    return ", ".join(f"{key} {value:.4g}" for key, value in shown.items())


if __name__ == "__main__":
    main()
