"""Rewrite a file's custom nodes for another target, without the network that it came from.

The new file appears only when every rewritten node has given the same numbers as before. It has no manifest: `occport verify` cannot
hold it against PyTorch; its metadata say from where it comes.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("source", type=Path, metavar="IN.onnx", help="a file with custom nodes, of any tool; opset 11 to 22")
    parser.add_argument("target", type=Path, metavar="OUT.onnx", help="the file to write; its opset is that of IN.onnx")
    parser.add_argument("--to", required=True, metavar="NAME|FILE.toml", help="the dialect to write; `occport dialects` lists them")
    parser.add_argument("--from", dest="origin", metavar="NAME|FILE.toml", help="the dialect of IN.onnx (default: found by its nodes)")
    parser.add_argument("--functions", action="store_true", help="put the custom nodes' bodies into the file (opset 16 and up)")
    parser.add_argument(
        "--msda", default="", choices=("gridsample", "gather"), help="attention as standard operators (default: the opset's best)"
    )
    parser.add_argument(
        "--dcn", default="", choices=("deformconv", "gridsample", "gather"), help="deformable convolution as standard operators (the same)"
    )
    parser.add_argument("--external-data", action="store_true", help="weights in a file of their own beside the model")


def run(options: argparse.Namespace) -> int:
    """Rewrites, checks, and tells what the worst node differs by."""
    from ..graph.functions import Arithmetics
    from ..graph.retargeting.retarget import STAGES, Wish, census, retarget
    from ..progress import Progress

    progress = Progress(total_stages=STAGES)
    forms = Arithmetics(options.msda, options.dcn)
    wish = Wish(options.to, options.origin, forms, options.functions, options.external_data)
    result = retarget(options.source, options.target, wish, progress)
    progress.finish()
    print(f"{result.origin} → {result.to}")
    for line in census(result.checked):
        print(line)
    if result.others:
        print(f"left as they are: {', '.join(result.others)}")
    for path in result.files:
        print(f"{path}  {path.stat().st_size:,} bytes")
    return 0
