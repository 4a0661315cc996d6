"""Put everything about a file on one page: what it is, how it was verified, cost, precision, custom operators, pictures.

NAME.dossier.html needs nothing but itself, not even a network; NAME.dossier.json tells the same to programs. What cannot be told (a file
without a manifest, a frame that is gone) is said in its section.
Exit status: 0 written; 1 written, and the file failed its checks or is no longer the one that was checked; 2 bad input.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the file; an export has its manifest beside it")
    parser.add_argument("-o", "--output-dir", dest="output", required=True, type=Path, metavar="DIR", help="where the two files go")
    parser.add_argument("--frame", help="another frame than the manifest's: frame.json, a folder that holds one, or infos.pkl:INDEX")
    parser.add_argument("--inputs", type=Path, metavar="FOLDER", help="NAME.npy of each input, for a file without a manifest")
    parser.add_argument("--dialect", metavar="NAME|FILE.toml", help="of a file without a manifest; `occport dialects` lists them")
    parser.add_argument("--chip", metavar="FILE.toml|NAME", help="a chip, for times: TFLOP/s, GB/s, MiB; or example-edge, example-server")
    precision = "of times and hazards (default: times as in the file, hazards of fp16)"
    parser.add_argument("--precision", choices=("fp16", "bf16"), help=precision)
    parser.add_argument("--vectors", type=Path, metavar="DIR", help="a folder of `occport vectors`, whose cases are listed")
    parser.add_argument("--no-run", action="store_false", dest="runs", help="leave out what runs the network: hazards and pictures")


def run(options: argparse.Namespace) -> int:
    """Writes the two files and tells what they lack."""
    from ..bringup.dossier.write import STAGES, Request, write_dossier
    from ..progress import Progress

    progress = Progress(total_stages=STAGES if options.runs else STAGES - 1)
    request = Request(
        options.model, options.output, options.dialect, options.frame, options.inputs, options.chip, options.precision or "",
        options.vectors, options.runs,
    )  # fmt: skip
    written = write_dossier(request, progress)
    progress.finish()
    for path in written.files:
        print(f"{path}  {path.stat().st_size:,} bytes")
    for key, reason in written.untold.items():
        print(f"without {key}: {reason}")
    if written.verdict in ("failed", "changed", "missing"):
        print(f"the file is not what was verified: {written.verdict}; the page tells more")
        return 1
    return 0
