"""Cut a file into sub-models: backbone, neck, level 0 to 2, decoder, heads and tables, or what lies between any tensors.

Each is an ONNX backend test: a folder with model.onnx and golden inputs and outputs. One after another they give what the whole gives.
parts.json tells their order and ports.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the file; an export has its manifest beside it")
    folder = "a new folder, or one of earlier parts"
    parser.add_argument("-o", "--output-dir", dest="output", type=Path, metavar="DIR", help=folder)
    parser.add_argument("--parts", nargs="+", metavar="stages|NAME", help="all parts of the network (default), or some by name")
    begin = "instead: one part that begins at these tensors (default: the inputs of the file)"
    parser.add_argument("--from", dest="begin", nargs="+", default=[], metavar="TENSOR", help=begin)
    end = "and ends at these (default: the outputs that follow)"
    parser.add_argument("--to", dest="end", nargs="+", default=[], metavar="TENSOR", help=end)
    parser.add_argument("--frame", help="another frame than the manifest's: frame.json, a folder that holds one, or infos.pkl:INDEX")
    parser.add_argument("--inputs", type=Path, metavar="FOLDER", help="NAME.npy of each input, for a file without a manifest")
    parser.add_argument("--dialect", metavar="NAME|FILE.toml", help="of a file without a manifest; `occport dialects` lists them")
    parser.add_argument("--functions", action="store_true", help="put bodies into the parts, for ONNX Runtime (opset 16 and above)")
    parser.add_argument("--npy", action="store_true", help="write each tensor between parts as NAME.npy, too, for `--inputs DIR`")
    parser.add_argument("--list", action="store_true", dest="only_list", help="print the parts and run nothing")


def run(options: argparse.Namespace) -> int:
    """Writes the folder and tells what is in it."""
    from ..bringup.split.place import PARTS
    from ..bringup.split.write import ALL_STAGES, STAGES, Request, write_parts
    from ..errors import ExportError
    from ..progress import Progress

    begin, end = tuple(options.begin), tuple(options.end)
    parts = tuple(options.parts or () if begin or end else options.parts or (ALL_STAGES,))
    if options.only_list:
        _list(options.model, options.dialect, parts, begin, end)
        return 0
    if options.output is None:
        raise ExportError("-o DIR", expected="a folder for the parts", got="none", fix="name one, or print the parts with --list")
    progress = Progress(total_stages=STAGES)
    request = Request(
        options.model, options.output, parts, begin, end, options.frame, options.inputs, options.dialect, options.functions, options.npy
    )  # fmt: skip
    written = write_parts(request, progress)
    progress.finish()
    for record in written.parts:
        ports = f"{len(record.inputs)} in, {len(record.outputs)} out"
        print(f"{record.folder:14} {record.nodes:4} nodes {record.size:>11,} bytes  {ports}")
    print(f"{options.output}  {len(written.parts)} parts on {written.source}, {PARTS} tells their order")
    bits = "" if written.same_bits else ", with every operator run by itself; ONNX Runtime's fusions across the cuts round otherwise"
    print(f"chain = whole, bit for bit{bits}")
    return 0


def _list(model: Path, dialect: str | None, parts: tuple[str, ...], begin: tuple[str, ...], end: tuple[str, ...]) -> None:
    from ..bringup.split.write import planned_parts
    from ..export.network_file import read_network

    for part in planned_parts(read_network(model, dialect, standard=True), parts, begin, end).written:
        print(f"{part.name}: {part.nodes} nodes")
        for sign, names in (("<", part.inputs), (">", part.outputs)):
            for name in names:
                print(f"  {sign} {name}")
