"""Tell what half precision would do to a file, before any kernel exists.

Runs the float32 file once and looks at every tensor: overflow and underflow, sampling places that lose pixels, a projection in 16 bits
and the voxels that it loses, sums, squares and exponentials; each with its range on the frame and the advice.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..export.network_file import NetworkFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file in float32; an export has its manifest beside it")
    parser.add_argument("--precision", choices=("fp16", "bf16"), default="fp16", help="the type to look at (default: fp16)")
    parser.add_argument("--frame", help="another frame than the manifest's: frame.json, a folder that holds one, or infos.pkl:INDEX")
    parser.add_argument("--inputs", type=Path, metavar="FOLDER", help="NAME.npy of each input, for a file without a manifest")
    parser.add_argument("--dialect", metavar="NAME|FILE.toml", help="of a file without a manifest; `occport dialects` lists them")
    parser.add_argument("--all", action="store_true", dest="everything", help="print every finding")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every hazard there")


def run(options: argparse.Namespace) -> int:
    """Looks and prints; findings are no failure."""
    import json

    from ..bringup.precision.hazards import hazards_of
    from ..bringup.precision.text import csv_text, hazards_text
    from ..export.network_file import feeds_of, read_network
    from ..output_files import try_files, write_file
    from ..progress import Progress

    try_files([("--json", options.json), ("--csv", options.csv)])
    progress = Progress(total_stages=2)
    with progress.stage(f"reading {options.model.name}"):
        file = read_network(options.model, options.dialect, standard=True)
        feeds, _ = feeds_of(file, options.frame, options.inputs)
    with progress.stage("running, every tensor"):
        report = hazards_of(file, feeds, options.precision, _rig(file, options.frame))
    progress.finish()
    if options.json is not None:
        write_file("--json", options.json, json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if options.csv is not None:
        write_file("--csv", options.csv, csv_text(report))
    print(hazards_text(report, options.everything), end="")
    return 0


def _rig(file: NetworkFile, frame: str | None) -> np.ndarray | None:
    """(N, 4, 4), the calibration of a given frame where a file takes its tables alone; None where the file or its manifest has it."""
    from ..frames.source import load_frame

    spec = file.spec
    if frame is None or spec is None or spec.calibration != "tables":
        return None
    return load_frame(frame, num_cameras=spec.config.num_cameras).lidar2img
