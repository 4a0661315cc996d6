"""Measures the two operators at the network's own sizes: native kernel, plain PyTorch, and a plain convolution of the same size.

    python bench/kernels.py [--config …] [--frame FRAME] [--rounds 7] [--threads N]

Prints tables and writes bench/results/kernels.json. What stands in one row was measured in turns, in one process: "times" is the median
over the rounds, each of which gives one ratio, in brackets the ratio of the least times.
Offsets are as wide as in a seeded network: about 1.5 pixels (DCN) and 2 pixels (attention). Attention reads what
its layer makes of the frame's real tables, as slices of a larger tensor; one layer is measured for each level.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from occport.config import Config, read_config
from occport.export.request import Loaded, load_input
from occport.measure.flops import of_samples
from occport.measure.machine import machine
from occport.measure.rounds import seconds_of
from occport.memory import keep_pages
from occport.model.attention import SpatialCrossAttention, lookup
from occport.model.backbone import BLOCKS, TAPS
from occport.model.projection import LevelTable, Projection
from occport.ops import deform_conv, msda, native
from occport.seeds import seed_weights

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "projects/configs/surroundocc/surroundocc.py"
RESULTS = ROOT / "bench/results/kernels.json"
REAL = ROOT.parent / "shared/data/nuscenes_frame/frame.json"
PLAIN, PYTORCH = "convolution", "plain PyTorch"
WANTED = {"times a plain convolution, fp32, stage 3": 1.6, "level 0, fp32, ms a layer": 30.0}


class Case(NamedTuple):
    """One size of an operator."""

    name: str
    size: str
    calls: int  # that a frame takes of this size
    flops: int  # of the matrix product of a convolution, of an attention's samples; a multiplication and an addition = 2
    runs: dict[str, Callable[[], Tensor]]  # the first is what the others are compared with


def convolutions(config: Config, hw: tuple[int, int]) -> Iterator[Case]:
    """The deformable convolutions of each stage: for all cameras at once, and for one, as a network made ready for inference calls them."""
    for stage, deformable in enumerate(config.backbone.stage_with_dcn):
        if deformable:
            for images in (config.num_cameras, 1):
                shape = (images, 64 * 2**stage, hw[0] >> stage + 2, hw[1] >> stage + 2)
                calls = BLOCKS[config.backbone.depth][stage] * config.num_cameras // images
                yield convolution(f"DCN, stage {stage + 1}", shape, calls, config.backbone.deform_groups)


def convolution(name: str, shape: tuple[int, int, int, int], calls: int, groups: int) -> Case:
    """3x3, stride 1, as many channels out as in, with bias. shape: (A, C, H, W) of the input."""
    images, channels, height, width = shape
    noise = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=noise)
    offset = torch.randn((images, groups * 2 * TAPS, height, width), generator=noise) * 1.5
    mask = torch.rand((images, groups * TAPS, height, width), generator=noise)
    weight = torch.randn((channels, channels, 3, 3), generator=noise) / (3 * channels**0.5)
    bias = torch.randn(channels, generator=noise)
    fixed: tuple[Any, ...] = ([1, 1], [1, 1], [1, 1], 1, groups)
    last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (image, offset, mask, weight)]
    half = [tensor.bfloat16() for tensor in (*last, bias)]

    def deformable(*tensors: Tensor) -> Tensor:
        out: Tensor = deform_conv.deform_conv2d(*tensors, *fixed)
        return out

    runs = {
        f"{PLAIN} fp32": lambda: F.conv2d(last[0], last[3], bias, padding=1),
        "kernel fp32": lambda: deformable(*last, bias),
        f"{PYTORCH} fp32": lambda: deform_conv.reference(image, offset, mask, weight, bias, *fixed),  # in its own layout
        f"{PLAIN} bf16": lambda: F.conv2d(half[0], half[3], half[4], padding=1),
        "kernel bf16": lambda: deformable(half[0], last[1], last[2], half[3], half[4]),
    }
    return Case(name, "x".join(map(str, shape)), calls, 2 * weight.numel() * images * height * width, runs)


class Seen(TorchDispatchMode):
    """Keeps what the attention operator is called with, for a `with` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.args: tuple[Any, ...] = ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.occport.multi_scale_deformable_attention:
            self.args = args
        return func(*args, **(kwargs or {}))


def attentions(config: Config, loaded: Loaded) -> Iterator[Case]:
    """One layer of each level, with the tables of the frame's calibration."""
    hw = loaded.img.shape[-2], loaded.img.shape[-1]
    tables, _ = Projection(config.levels, config.pc_range)(torch.from_numpy(loaded.lidar2img), hw, None)
    for level in range(len(tables)):
        yield attention(config, level, tables[level], (hw[0] >> level + 3, hw[1] >> level + 3))


def attention(config: Config, level: int, table: LevelTable, feat_hw: tuple[int, int]) -> Case:
    """The operator as a seeded layer calls it."""
    settings = config.levels[level]
    layer = SpatialCrossAttention(settings)
    seed_weights(layer, 0)
    noise = torch.Generator().manual_seed(0)
    queries = torch.randn((settings.num_voxels, settings.width), generator=noise)
    tokens = torch.randn((config.num_cameras * feat_hw[0] * feat_hw[1], settings.width), generator=noise)
    with Seen() as seen:
        layer.deformable_attention(queries, tokens, feat_hw, lookup(table))
    value, *others = seen.args
    half = value.bfloat16()
    runs = {
        "kernel fp32": lambda: msda.multi_scale_deformable_attention(value, *others),
        f"{PYTORCH} fp32": lambda: msda.reference(value, *others),
        "kernel bf16": lambda: msda.multi_scale_deformable_attention(half, *others),
    }
    images, slots = table.slots.shape[1:]
    size = f"{images}x{slots} slots, {feat_hw[0]}x{feat_hw[1]}, {settings.num_points} points"
    return Case(f"attention, level {level}", size, settings.num_layers, of_samples(others[3].shape, value.shape[3]), runs)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Every run of a case once a round, each round begun by another one, after a round that does not count."""
    names = list(case.runs)
    found: dict[str, list[float]] = {name: [] for name in names}
    outs: dict[str, Tensor] = {}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            begin = time.perf_counter()
            out = case.runs[name]()
            found[name].append(time.perf_counter() - begin)
            if not number:
                outs[name] = out
    exact = outs[f"{PYTORCH} fp32"].contiguous()
    rows = {}
    for name, out in outs.items():
        bound = f"{PLAIN} {name[-4:]}"  # the convolution in the same precision
        own, others = found[name][1:], found[bound if bound in found else names[0]][1:]
        seconds = seconds_of(own)
        rows[name] = {
            "median ms": seconds.median * 1e3, "least ms": seconds.least * 1e3, "spread ms": seconds.spread * 1e3,
            "times": statistics.median(a / b for a, b in zip(own, others, strict=True)), "times, of least": min(own) / min(others),
            "GFLOP/s": case.flops / seconds.median / 1e9,
        }  # fmt: skip
        if not name.startswith(PLAIN):
            rows[name]["largest difference"] = float((out.float() - exact).abs().max() / exact.abs().max())
    return {"size": case.size, "calls": case.calls, "runs": rows}


def shown_time(row: dict[str, Any]) -> str:
    return f"{row['median ms']:.1f} ({row['least ms']:.1f})"


def show(title: str, cases: Sequence[tuple[str, dict[str, Any]]], caption: str) -> None:
    """A table: a row for each case and run."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=caption)
    for column in ("", "size", "calls", "", "ms (least)", "times (of least)", "GFLOP/s", "ms a frame", "difference"):
        table.add_column(column, justify="right" if column and column != "size" else "left")
    for name, case in cases:
        for number, (run, row) in enumerate(case["runs"].items()):
            head = (name, case["size"], str(case["calls"])) if not number else ("", "", "")
            difference = f"{row['largest difference']:.1e}" if "largest difference" in row else ""
            speed, frame = f"{row['GFLOP/s']:.0f}", f"{row['median ms'] * case['calls']:.0f}"
            last = number == len(case["runs"]) - 1
            table.add_row(
                *head,
                run,
                shown_time(row),
                f"{row['times']:.2f} ({row['times, of least']:.2f})",
                speed,
                frame,
                difference,
                end_section=last,
            )
    Console(width=160).print(table)


def wanted(cases: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, float]:
    """The two figures that something is wanted of, of the first convolution and the first level."""
    runs = [next(case["runs"] for name, case in cases if name.startswith(kind)) for kind in ("DCN", "attention")]
    return dict(zip(WANTED, (runs[0]["kernel fp32"]["times"], runs[1]["kernel fp32"]["median ms"]), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--frame", default=str(REAL) if REAL.is_file() else "", help="whose calibration counts; '' is the synthetic one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice is the number of cores")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_pages()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = read_config(options.config)
    loaded = load_input(config, options.frame or None)
    with torch.inference_mode():
        first = [(case.name, measure(case, options.rounds)) for case in convolutions(config, loaded.img.shape[-2:])]
        second = [(case.name, measure(case, options.rounds)) for case in attentions(config, loaded)]
    show("deformable convolution", first, f"times: a plain convolution of the same size and precision; {native.status()}")
    show("deformable attention", second, f"times: the kernel in fp32; {'real' if options.frame else 'synthetic'} calibration")
    figures = wanted([*first, *second])
    for name, most in WANTED.items():
        print(f"{name}: {figures[name]:.2f}, at most {most:g} is wanted{'' if figures[name] <= most else ': not here'}")
    about = {"machine": machine(torch.device("cpu")), "frame": loaded.frame.name, "rounds": options.rounds, "wanted": figures}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({**about, "cases": [{"name": name, **case} for name, case in (*first, *second)]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
