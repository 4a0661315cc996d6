"""The flags that say which network: in PyTorch, or as an exported file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..export.agreement import PrecisionAgreement
    from ..frames.listing import Entry
    from ..progress import Progress
    from ..use.choice import Choice
    from ..use.predictor import Predictor

PRECISIONS = ("fp32", "bf16", "fp16")  # of `model.prepared`, which is too heavy to load for a --help
_OF_TORCH = {
    "checkpoint": "which holds its weights",
    "precision": "which has its own precision",
    "device": "whose device is its --provider",
}


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --config, --cfg-options, --checkpoint, --seed, --precision and --device, or --model and --provider; and --threads.

    `choice_of` reads them.
    """
    group = parser.add_argument_group("network", "--config for PyTorch, or --model for an exported file")
    group.add_argument(
        "--config", type=Path, metavar="FILE.py", help="a SurroundOcc config, ours or upstream's; read as data, never executed"
    )
    group.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="overrides, dotted from the config's top: model.img_backbone.depth=50",
    )
    group.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help=".pth or .safetensors; without it the weights are seeded, and said to be UNTRAINED"
    )
    group.add_argument("--seed", type=int, default=0, help="for seeded weights and the synthetic frame (default: 0)")
    group.add_argument(
        "--precision", choices=PRECISIONS,
        help="of the network in PyTorch (default: fp32); below fp32 a line tells how many labels of the first frame agree with fp32",
    )  # fmt: skip
    group.add_argument(
        "--device", metavar="NAME", help="where the network runs in PyTorch: cpu, cuda, cuda:1 or another that it knows (default: cpu)"
    )
    group.add_argument("--model", type=Path, metavar="FILE.onnx", help="a file of `occport export`, with its manifest beside it")
    group.add_argument(
        "--provider", metavar="NAME", help="execution provider of ONNX Runtime for --model, any that is installed (default: CPU)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads of a process (default: left to PyTorch or ONNX Runtime)")


def choice_of(options: argparse.Namespace) -> Choice:
    """The network that the flags name. Nothing is read yet.

    Errors: UserError unless exactly one of --config and --model is given, for flags that do not go with it, and for numbers that cannot be.
    """
    from ..use.choice import Choice

    if (options.config is None) == (options.model is None):
        got = "neither" if options.config is None else "both"
        raise UserError(
            "network", expected="--config FILE.py (PyTorch) or --model FILE.onnx (ONNX Runtime)", got=got, fix="give one of them"
        )
    if options.model is None and options.provider is not None:
        raise UserError("--provider", expected="--model FILE.onnx with it", got="--config, which runs in PyTorch", fix="leave it out")
    if options.model is not None and options.cfg_options:
        raise UserError("--cfg-options", expected="--config with it", got="--model, whose config is in its manifest", fix="leave it out")
    for flag, has in _OF_TORCH.items() if options.model is not None and getattr(options, "against", None) != "torch" else ():
        if getattr(options, flag) is not None:
            raise UserError(f"--{flag}", expected="--config with it", got=f"--model, {has}", fix="leave it out")
    if options.threads is not None and options.threads < 1:
        raise UserError("--threads", expected="at least 1", got=str(options.threads))
    if options.seed < 0:
        raise UserError("--seed", expected="at least 0", got=str(options.seed))
    precision, device = options.precision or "fp32", options.device or "cpu"
    return Choice(
        options.config, tuple(options.cfg_options), options.checkpoint, options.seed, options.model, options.provider, options.threads,
        precision=precision, device=device,
    )  # fmt: skip


def tell_network(choice: Choice, predictor: Predictor, entries: Sequence[Entry], progress: Progress) -> PrecisionAgreement | None:
    """Says once what the user must know of how the network runs: what slows it down, and how far a lower precision is from fp32.

    Args:
        choice, predictor: the network, opened.
        entries: the frames to come; the first that can be used is predicted in both precisions.
        progress: gets a stage more where the precision is lower.

    Returns: the agreement with fp32; None where there is none to tell. Errors: as `Choice.open`.
    """
    for hint in predictor.hints:
        progress.note(hint)
    if predictor.precision in ("", "fp32"):
        return None
    from ..use.precision import agreement_with_fp32

    with progress.stage(f"one frame in {predictor.precision} and in fp32"):
        agreement = agreement_with_fp32(choice, predictor, entries)
    if agreement is not None:
        progress.note(agreement.describe())
    return agreement
