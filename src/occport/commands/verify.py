"""Check an exported file again: the very nodes and weights on disk, against PyTorch and against what its manifest says."""

from __future__ import annotations

import argparse
from pathlib import Path

from .reference_flags import add_reference_arguments, reference_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the file; its manifest MODEL.json must be beside it")
    parser.add_argument("--checkpoint", type=Path, help="where the weights are now, if not where the manifest says")
    parser.add_argument("--frame", help="another frame than the manifest's: frame.json, a folder that holds one, or infos.pkl:INDEX")
    add_reference_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Runs every check and tells each."""
    from ..export.again import verify_again
    from ..progress import Progress

    setting = reference_of(options)
    progress = Progress(total_stages=8)
    report = verify_again(options.model, options.checkpoint, options.frame, progress, setting)
    progress.finish()
    print(f"all {len(report.checks)} checks passed")
    return 0
