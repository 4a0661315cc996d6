"""The flags that say how the network runs in PyTorch that a file is held against."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .network_flags import PRECISIONS

if TYPE_CHECKING:
    from ..export.device import Setting


def add_reference_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --reference-precision and --device. `reference_of` reads them."""
    group = parser.add_argument_group("the network in PyTorch that the file is held against")
    group.add_argument(
        "--reference-precision", choices=PRECISIONS, default="fp32",
        help="for other rigs and images than the given frame, which is held against fp32 in any case (default: fp32)",
    )  # fmt: skip
    group.add_argument("--device", default="cpu", metavar="NAME", help="where it runs: cpu, cuda, cuda:1 … (default: cpu)")


def reference_of(options: argparse.Namespace) -> Setting:
    """What the flags say. On a CPU the process keeps its memory from then on (`memory.keep_pages`). Errors: as `Setting.check`."""
    from ..export.device import Setting
    from ..memory import keep_pages

    setting = Setting(options.reference_precision, options.device)
    if setting.check().type == "cpu":
        keep_pages()
    return setting
