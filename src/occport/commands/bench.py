"""Measure one frame, by stage and by operator, on several backends side by side.

In every round each backend computes the frame once, so that a noisy machine hits all alike; the first column is what the others are
compared with. GFLOP/s are held against this machine's own matrix products in the same precision. Exit status: 0 done, 2 nothing could be
measured, 130 interrupted; what was measured until then is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..output_files import write_file
from .network_flags import PRECISIONS

if TYPE_CHECKING:
    from ..measure.bench import Bench
    from ..measure.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument(
        "frame", nargs="?", metavar="FRAME", help="frame.json, its folder, or infos.pkl:INDEX (default: a frame of the synthetic city)"
    )
    what = parser.add_argument_group("backends", "--config for PyTorch, --model for exported files, or both")
    what.add_argument("--config", type=Path, metavar="FILE.py", help="a SurroundOcc config, ours or upstream's")
    what.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides, dotted from the config's top")
    what.add_argument("--checkpoint", type=Path, metavar="FILE", help=".pth or .safetensors; without it the weights are seeded")
    what.add_argument("--seed", type=int, default=0, help="for seeded weights and the synthetic frame (default: 0)")
    what.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, metavar="P", help="of PyTorch, one or several of fp32, bf16, fp16 (default: fp32)"
    )
    what.add_argument(
        "--references", action="store_true", help="as the first column PyTorch by itself: plain operators and network, memory as usual"
    )
    what.add_argument("--device", metavar="NAME", help="of PyTorch: cpu, cuda, cuda:1 or another that it knows (default: cpu)")
    what.add_argument(
        "--model", type=Path, action="append", default=[], metavar="FILE.onnx",
        help="a file of `occport export` on ONNX Runtime; may be given several times",
    )  # fmt: skip
    what.add_argument("--provider", metavar="NAME", help="execution provider of ONNX Runtime for --model (default: CPU)")
    how = parser.add_argument_group("measuring")
    how.add_argument("--warmup", type=int, default=1, metavar="N", help="rounds that do not count (default: 1)")
    how.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds that count (default: 5)")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: left to PyTorch and ONNX Runtime)")
    how.add_argument("--operators", action="store_true", help="time by operator, too; PyTorch computes the frame once more for it")
    how.add_argument("--no-memory", action="store_true", help="without the peak memory, which takes a process and a frame for each backend")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")


def run(options: argparse.Namespace) -> int:
    """Measures; progress goes to stderr, the tables to stdout."""
    plan = _plan(options)
    if options.json is not None:
        write_file("--json", options.json, None)
    from ..measure.bench import Bench
    from ..measure.tables import text_of
    from ..progress import Progress

    memory, count = not options.no_memory, len(plan.contenders)
    progress = Progress(Bench.STAGES + count * (options.operators + memory))
    bench = Bench(plan, progress, warmup=options.warmup, repeat=options.repeat)
    try:
        bench.measure(operators=options.operators, memory=memory)
    except KeyboardInterrupt as stop:
        _tell_interrupted(bench)
        return int(getattr(stop, "exit_status", 130))
    result = bench.result()
    assert result is not None, "at least one round counts"
    print(text_of(result), end="")
    if options.json is not None:
        write_file("--json", options.json, json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return 0


def _tell_interrupted(bench: Bench) -> None:
    """What there is so far, and that it is not all."""
    from ..measure.tables import text_of

    result = bench.result()
    if result is not None:
        print(text_of(result), end="")
    found = "the tables show what was measured until then" if result is not None else "no round that counts had ended"
    print(f"occport: interrupted; {found}, and nothing was written", file=sys.stderr)


def _plan(options: argparse.Namespace) -> Plan:
    """What the flags say. UserError for flags that do not go together, and for numbers that cannot be; nothing is read yet."""
    from ..measure.plan import Contender, Plan

    if options.config is None and not options.model:
        fix = "give one of them, or both"
        raise UserError("network", expected="--config FILE.py (PyTorch) or --model FILE.onnx (ONNX Runtime)", got="neither", fix=fix)
    for flag in ("cfg_options", "checkpoint", "precision", "references", "device"):
        if options.config is None and getattr(options, flag):
            raise UserError(f"--{flag.replace('_', '-')}", expected="--config with it", got="--model alone", fix="leave it out")
    if options.provider is not None and not options.model:
        raise UserError("--provider", expected="--model FILE.onnx with it", got="--config alone", fix="leave it out")
    for flag, least in (("threads", 1), ("seed", 0), ("warmup", 0), ("repeat", 1)):
        value = getattr(options, flag)
        if value is not None and value < least:
            raise UserError(f"--{flag}", expected=f"at least {least}", got=str(value))
    contenders = [Contender("references", references=True)] if options.references else []
    if options.config is not None:
        contenders += [Contender(f"torch {precision}", precision) for precision in dict.fromkeys(options.precision or ["fp32"])]
    for number, model in enumerate(options.model, 1):
        contenders.append(Contender(f"file {number}" if len(options.model) > 1 else "file", model=model))
    return Plan(
        tuple(contenders), options.config, tuple(options.cfg_options), options.checkpoint, options.seed, options.frame,
        options.device or "cpu", options.provider, options.threads,
    )  # fmt: skip
