"""Hold a chip's tensors against golden ones and name the node to blame.

The first node whose output differs by more than its inputs, their dtype and its own arithmetic explain: the nodes between two dumped
tensors are run on THEIR tensors, custom nodes too. With --bisect your runtime is driven on ever smaller parts of the file instead.
Exit status: 0 all explained, 1 something differs or is missing, 2 bad input.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..bringup.diff.result import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("golden", type=Path, metavar="GOLDEN", help="a folder that `occport golden` has written")
    theirs = "their tensors: a folder of .npy, .npz, .pb, .bin/.raw/.dat, or one .npz or Polygraphy .json"
    parser.add_argument("theirs", nargs="?", type=Path, metavar="THEIRS", help=theirs)
    reading = parser.add_argument_group("reading theirs", "names, dtypes, layouts and padding are found out where nothing is told")
    names = "our tensor → theirs, or → theirs, dtype, shape, layout, scale, zero"
    reading.add_argument("--map", type=Path, metavar="FILE.json|toml|csv", help=names)
    scale = "of quantised numbers: number = S x (stored - ZERO)"
    reading.add_argument("--scale", nargs="+", default=[], metavar="NAME=S[,ZERO]", help=scale)
    blame = parser.add_argument_group("blame")
    model = "the file of the golden tensors (default: where it was, or beside their folder)"
    blame.add_argument("--model", type=Path, metavar="MODEL.onnx", help=model)
    blame.add_argument("--dialect", metavar="NAME|FILE.toml", help="of a file without a manifest; `occport dialects` lists them")
    math = "what their kernels round factors of products to, where dumps do not show it: tf32 is what many GPUs do"
    blame.add_argument("--math", choices=("tf32", "fp16", "bf16"), dest="math_mode", help=math)
    bisect = "a command that runs your runtime: {model} a file, {inputs} and {outputs} folders of NAME.npy"
    blame.add_argument("--bisect", metavar="'CMD {model} {inputs} {outputs}'", help=bisect)
    blame.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="of one run of that command (default: 600)")
    report = parser.add_argument_group("report")
    report.add_argument("--all", action="store_true", dest="everything", help="print every tensor")
    report.add_argument("--csv", type=Path, metavar="FILE", help="write every tensor there")
    report.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    report.add_argument("--html", type=Path, metavar="FILE", help="write a page with error maps there")


def run(options: argparse.Namespace) -> int:
    """Compares and prints."""
    import json

    from ..bringup.diff.report import csv_text, report_text, to_json
    from ..errors import UserError
    from ..output_files import try_files, write_file

    if (options.theirs is None) == (options.bisect is None):
        got = "neither" if options.theirs is None else "both"
        raise UserError("THEIRS or --bisect CMD", expected="one of them", got=got, fix="give dumps, or a command that runs your runtime")
    if options.bisect is not None and (options.map is not None or options.scale):
        fix = "write NAME.npy, with our names, into {outputs}"
        raise UserError("--map and --scale", expected="dumps that they tell of", got="--bisect", fix=fix)
    try_files([("--csv", options.csv), ("--json", options.json), ("--html", options.html)])
    result = _bisected(options) if options.bisect is not None else _compared(options)
    if options.csv is not None:
        write_file("--csv", options.csv, csv_text(result))
    if options.json is not None:
        write_file("--json", options.json, json.dumps(to_json(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if options.html is not None:
        from ..bringup.diff.page import page_text
        from ..bringup.dumps.index import read_index

        write_file("--html", options.html, page_text(result, read_index(options.golden)))
    print(report_text(result, options.everything), end="")
    return 0 if result.good else 1


def _compared(options: argparse.Namespace) -> Result:
    from ..bringup.diff.compare import STAGES, Request, compare_dumps
    from ..bringup.diff.hints import read_map, with_scales
    from ..progress import Progress

    hints = with_scales(read_map(options.map) if options.map is not None else {}, options.scale)
    progress = Progress(total_stages=STAGES)
    result = compare_dumps(Request(options.golden, options.theirs, hints, options.model, options.dialect, options.math_mode), progress)
    progress.finish()
    return result


def _bisected(options: argparse.Namespace) -> Result:
    import math

    from ..bringup.diff.bisect import bisect
    from ..bringup.diff.compare import Request, model_of
    from ..bringup.dumps.formats import load
    from ..bringup.dumps.index import read_index
    from ..errors import UserError
    from ..progress import Progress

    index = read_index(options.golden)
    file, remark = model_of(Request(options.golden, options.golden, {}, options.model, options.dialect), index)
    if file is None:
        raise UserError("--bisect", expected="the model file", got="none", fix=remark)
    progress = Progress(total_stages=1 + 2 * math.ceil(math.log2(max(len(file.model.graph.node), 2))))  # at most
    entries = {entry.name: entry for entry in index.tensors}

    def golden(name: str) -> np.ndarray:
        return load(options.golden, index, entries[name])

    result = bisect(file, index, golden, options.bisect, options.timeout, progress, options.math_mode)
    progress.finish()
    return result
