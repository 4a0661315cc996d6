"""Write conformance vectors of a chip's two custom operators: one-node models with inputs and golden outputs.

From every custom node of a network, with what stands on its inputs when a frame is run, and from made-up edge cases. `occport grade`
holds a kernel's outputs against them; README.txt in the folder tells the rest.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file with custom nodes; an export has its manifest beside it")
    folder = "a new folder, or one of earlier vectors"
    parser.add_argument("-o", "--output-dir", dest="output", required=True, type=Path, metavar="DIR", help=folder)
    parser.add_argument("--frame", help="another frame than the manifest's: frame.json, a folder that holds one, or infos.pkl:INDEX")
    parser.add_argument("--inputs", type=Path, metavar="FOLDER", help="NAME.npy of each input, for a file without a manifest")
    parser.add_argument("--dialect", metavar="NAME|FILE.toml", help="of a file without a manifest; `occport dialects` lists them")
    parser.add_argument("--cases", choices=("all", "network", "edge"), default="all", help="which (default: all)")
    parser.add_argument("--max-bytes", type=_positive, default=256 * 2**20, metavar="N", help="of the whole folder (default: 268435456)")
    parser.add_argument("--seed", type=_whole, default=0, help="of images, queries and windows that are taken (default: 0)")
    parser.add_argument("--functions", action="store_true", help="put bodies into the models, for ONNX Runtime (opset 17 then)")


def run(options: argparse.Namespace) -> int:
    """Writes the folder and tells what is in it."""
    from ..kit.vectors.write import STAGES, Request, write_vectors
    from ..progress import Progress

    progress = Progress(total_stages=STAGES)
    request = Request(
        options.model, options.output, options.frame, options.inputs, options.dialect, options.cases, options.max_bytes, options.seed,
        options.functions,
    )  # fmt: skip
    written = write_vectors(request, progress)
    progress.finish()
    for one in written.left_out:
        print(f"left out {one.name}: {one.reason}")
    edges = sum(record.source == "edge" for record in written.records)
    print(f"{options.output}  {written.size:,} bytes, dialect {written.dialect}")
    print(f"{len(written.records)} cases: {len(written.records) - edges} from the network, {edges} edge cases")
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of bytes, got {text!r}")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)
