"""Write the tensors inside a file for one frame: what a chip's runtime should have at each place of the network.

From one forward with the custom nodes computed by their bodies. index.json tells what each tensor is; `occport diff` holds others'
tensors against them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

FORMATS = ("npy", "pb", "raw", "polygraphy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the file; an export has its manifest beside it")
    folder = "a new folder, or one of earlier golden tensors"
    parser.add_argument("-o", "--output-dir", dest="output", type=Path, metavar="DIR", help=folder)
    marks = "custom: around custom nodes (default); stages: between stages; all; or names, with * and ?"
    parser.add_argument("--mark", nargs="+", default=["custom"], metavar="custom|stages|all|NAME", help=marks)
    parser.add_argument("--format", choices=FORMATS, default="npy", help="of the tensors' files (default: npy)")
    parser.add_argument("--frame", help="another frame than the manifest's: frame.json, a folder that holds one, or infos.pkl:INDEX")
    parser.add_argument("--inputs", type=Path, metavar="FOLDER", help="NAME.npy of each input, for a file without a manifest")
    parser.add_argument("--dialect", metavar="NAME|FILE.toml", help="of a file without a manifest; `occport dialects` lists them")
    parser.add_argument("--list", action="store_true", dest="only_list", help="print the marked tensors and run nothing")


def run(options: argparse.Namespace) -> int:
    """Writes the folder and tells what is in it."""
    from ..bringup.dumps.golden import STAGES, Request, write_golden
    from ..bringup.dumps.index import NAME
    from ..errors import ExportError
    from ..progress import Progress

    marks = tuple(options.mark)
    if options.only_list:
        _list(options.model, options.dialect, marks, options.format)
        return 0
    if options.output is None:
        raise ExportError("-o DIR", expected="a folder for the tensors", got="none", fix="name one, or print the tensors with --list")
    progress = Progress(total_stages=STAGES)
    request = Request(options.model, options.output, options.frame, options.inputs, options.dialect, marks, options.format)
    index = write_golden(request, progress)
    progress.finish()
    print(f"{options.output}  {len(index.tensors)} tensors on {index.source}, {NAME} tells what they are")
    return 0


def _list(model: Path, dialect: str | None, marks: tuple[str, ...], form: str) -> None:
    from ..bringup.dumps.golden import nbytes, planned
    from ..export.network_file import read_network

    entries = planned(read_network(model, dialect, standard=True), marks, form)
    for entry in entries:
        print(f"{entry.stage or entry.role:9} {nbytes(entry):>13,} B  {entry.dtype:8} {list(entry.shape)!s:24} {entry.name}")
    print(f"{len(entries)} tensors, {sum(map(nbytes, entries)):,} bytes")
