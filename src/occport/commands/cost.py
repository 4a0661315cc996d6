"""Count what a file costs: parameters, multiplications, bytes and memory, custom operators included; and its time on a chip at best.

By the shapes in the file, without running it. A multiplication with its addition is a MAC; a number sampled between four neighbours
counts as four. The chip is a TOML file with its TFLOP/s, GB/s and memory, or the name of an example.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the file")
    parser.add_argument("--dialect", metavar="NAME|FILE.toml", help="of a file without a manifest; `occport dialects` lists them")
    parser.add_argument("--by", choices=("operator", "layer", "stage"), default="stage", help="what is summed up (default: stage)")
    parser.add_argument("--top", type=_count, default=20, metavar="N", help="rows that are printed (default: 20)")
    parser.add_argument("--chip", metavar="FILE.toml|NAME", help="a chip: TFLOP/s, GB/s, MiB; or example-edge, example-server")
    precision = "as if all numbers but the geometry's had this type (with --chip; default: as in the file)"
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16", "int8"), help=precision)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every node there")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it there, .png or .svg")


_DTYPES = {None: "", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}


def run(options: argparse.Namespace) -> int:
    """Counts and prints."""
    import json

    from ..bringup.cost.chip import load_chip
    from ..bringup.cost.cost import cost_of
    from ..bringup.cost.roofline import roofline
    from ..bringup.cost.text import cost_text, csv_text, roofline_text
    from ..errors import UserError
    from ..export.network_file import read_network
    from ..output_files import try_files, write_file

    if options.chart is not None and options.chart.suffix not in (".png", ".svg"):
        raise UserError(f"--chart {options.chart}", expected="a name that ends in .png or .svg", got=options.chart.suffix or "none")
    if options.precision is not None and options.chip is None:
        raise UserError("--precision", expected="--chip with it", got="none", fix="name a chip; what is counted does not depend on it")
    try_files([("--json", options.json), ("--csv", options.csv), ("--chart", options.chart)])
    chip = load_chip(options.chip) if options.chip is not None else None
    cost = cost_of(read_network(options.model, options.dialect, standard=True))
    found = roofline(cost, chip, _DTYPES[options.precision]) if chip is not None else None
    chart = None
    if options.chart is not None:
        from ..bringup.cost.charts import png, svg

        chart = (png if options.chart.suffix == ".png" else svg)(cost, found)
    if options.json is not None:
        table = {**cost.to_json(), "roofline": found.to_json() if found else None}
        write_file("--json", options.json, json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if options.csv is not None:
        write_file("--csv", options.csv, csv_text(cost, found))
    if chart is not None:
        write_file("--chart", options.chart, chart)
    print(cost_text(cost, options.by, options.top), end="")
    if found is not None:
        print(f"\n{roofline_text(found, options.top)}", end="")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)
