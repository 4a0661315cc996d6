"""Measures how the time of a frame grows: with the area of the images, the number of cameras, of voxels, and of samples in a batch.

    python bench/growth.py [--axis images cameras voxels batch] [--rounds 4] [--threads N]

Prints a table and writes bench/results/growth.json; about two minutes on two cores. The network is the small one of the tests' config, made
ready for inference in fp32, with sizes of its own: a ResNet-50 whose deformable convolutions are as wide as the official ones, and volumes
of up to twice the official number of voxels. One axis is changed at a time. All points of an axis are measured in turns, and the least
time of each counts, as whatever else the machine does only ever adds to it.

Fitted is t = a * size^p, by least squares over the logarithms: p = 1 is linear. A frame has parts that do not grow with an axis, and they
make the whole look flatter than it is; so p stands there for the stages that do grow by themselves as well, and "last step" is p between
the two largest sizes alone, where hidden growth would show first. More than LINEAR of the growing stages is called super-linear.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from occport.config import read_config_with_options
from occport.export.weights import load_model
from occport.frames.rig import nuscenes_like_rig
from occport.measure.machine import machine
from occport.measure.stages import PREPROCESS, STAGES, WHOLE, StageClock
from occport.memory import keep_pages
from occport.model.prepared import prepare_
from occport.model.surroundocc import SurroundOcc

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "projects/configs/surroundocc/surroundocc_micro.py"
RESULTS = ROOT / "bench/results/growth.json"
HEAD = "model.pts_bbox_head"
RIG = 6  # cameras of the made-up rig; further ones stand in the places of the first
LINEAR = 1.05  # exponents up to it count as linear: five points of a busy machine are not more exact than that
IMAGE_STAGES = ("backbone", "neck")
VOLUME_STAGES = ("tables", "level 0", "level 1", "level 2", "decoder")


class Point(NamedTuple):
    """What a frame consists of."""

    hw: tuple[int, int]  # of an image, multiples of 32
    cameras: int = RIG
    occ: tuple[int, int, int] = (96, 96, 8)  # (X, Y, Z) of the finest volume, multiples of 8
    batch: int = 1


class Axis(NamedTuple):
    """A size that changes.

    `growing` are the stages that a linear network has to spend more on, `rest` says which others do not, and why.
    """

    unit: str
    sizes: tuple[int, ...]
    points: tuple[Point, ...]
    growing: tuple[str, ...]
    rest: str


def _axis(unit: str, size: Any, points: Sequence[Point], growing: tuple[str, ...], rest: str) -> Axis:
    return Axis(unit, tuple(size(point) for point in points), tuple(points), growing, rest)


AXES = {
    "images": _axis(
        "pixels of an image", lambda point: math.prod(point.hw),
        [Point(hw) for hw in ((224, 384), (320, 544), (448, 768), (640, 1088), (896, 1536))],
        IMAGE_STAGES, "the levels and the decoder, which work on voxels and read samples of the image's features",
    ),
    "cameras": _axis(
        "cameras", lambda point: point.cameras, [Point((320, 544), cameras=count) for count in (1, 2, 4, 8)],
        IMAGE_STAGES, "most of the levels, and the decoder, which work on voxels",
    ),
    "voxels": _axis(
        "voxels", lambda point: math.prod(point.occ),
        [Point((128, 224), occ=occ) for occ in ((96, 96, 8), (192, 96, 8), (192, 192, 8), (192, 192, 16), (384, 192, 16))],
        VOLUME_STAGES, "backbone and neck, which work on images",
    ),
    "batch": _axis(
        "samples", lambda point: point.batch, [Point((128, 224), batch=count) for count in (1, 2, 4, 8)],
        (*IMAGE_STAGES, *VOLUME_STAGES), "nothing",
    ),
}  # fmt: skip


class Fit(NamedTuple):
    """t = a * size^p. `exponent` is p over all points, `last` between the two largest."""

    exponent: float
    last: float


def fitted(sizes: Sequence[float], seconds: Sequence[float]) -> Fit:
    """Of two points or more, sizes ascending; all above 0."""
    x, y = np.log(np.asarray(sizes, np.float64)), np.log(np.asarray(seconds, np.float64))
    centred = x - x.mean()
    return Fit(float(centred @ y / (centred @ centred)), float((y[-1] - y[-2]) / (x[-1] - x[-2])))


def summed(laps: Mapping[str, float], stages: Sequence[str]) -> float:
    """Seconds of some stages of a frame."""
    return sum(laps.get(stage, 0.0) for stage in stages)


def network(point: Point) -> SurroundOcc:
    """Seeded, for this number of cameras and voxels, ready for inference."""
    X, Y, Z = point.occ
    sizes = {"volume_w": X, "volume_h": Y, "volume_z": Z}  # of the finest level: half of the finest volume
    options = [f"{HEAD}.{key}={[size // 2, size // 4, size // 8]}" for key, size in sizes.items()]
    options += [f"occ_size={[X, Y, Z]}", f"{HEAD}.transformer_template.num_cams={point.cameras}"]
    model, _, _ = load_model(read_config_with_options(CONFIG, tuple(options)), None, 0)
    return prepare_(model)


def frame(point: Point) -> tuple[Tensor, Tensor]:
    """Noise, (B, N, 3, H, W), and a calibration, (B, N, 4, 4)."""
    _, rig = nuscenes_like_rig(RIG, *point.hw)
    lidar2img = torch.from_numpy(rig[np.arange(point.cameras) % RIG].astype(np.float32))
    img = torch.randn((point.batch, point.cameras, 3, *point.hw), generator=torch.Generator().manual_seed(0)) * 60
    return img, lidar2img.repeat(point.batch, 1, 1, 1)


def timed(model: SurroundOcc, img: Tensor, lidar2img: Tensor) -> dict[str, float]:
    """Seconds of one frame by stage, and of the whole."""
    clock = StageClock(model)
    begin = time.perf_counter()
    with torch.inference_mode(), clock.running() as stages:
        model(img, lidar2img)
    return {**stages, WHOLE: time.perf_counter() - begin}


def measure(axis: Axis, rounds: int) -> dict[str, Any]:
    """Every point once a round, each round begun by another one, after a round that does not count."""
    models: dict[tuple[Any, ...], SurroundOcc] = {}
    for point in axis.points:
        if point[1:3] not in models:
            models[point[1:3]] = network(point)
    frames = [frame(point) for point in axis.points]
    laps: list[list[dict[str, float]]] = [[] for _ in axis.points]
    for number in range(rounds + 1):
        first = number % len(axis.points)
        for index in (*range(first, len(axis.points)), *range(first)):
            laps[index].append(timed(models[axis.points[index][1:3]], *frames[index]))
    least = [{stage: min(lap.get(stage, 0.0) for lap in found[1:]) for stage in found[-1]} for found in laps]
    growing = [min(summed(lap, axis.growing) for lap in found[1:]) for found in laps]
    stages = [stage for stage in STAGES if stage != PREPROCESS and all(lap.get(stage, 0.0) > 0 for lap in least)]
    fits = {stage: fitted(axis.sizes, [lap[stage] for lap in least])._asdict() for stage in (*stages, WHOLE)}
    return {
        "unit": axis.unit, "points": [point._asdict() for point in axis.points], "sizes": axis.sizes, "rounds": rounds,
        "growing stages": axis.growing, "flat": axis.rest, "least s": least, "growing s": growing,
        "fits": fits, "growing": fitted(axis.sizes, growing)._asdict(),
    }  # fmt: skip


def show(results: Mapping[str, dict[str, Any]]) -> None:
    """A row for each axis; below it, what does not grow and why."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="growth of a frame's time", caption="p: time goes with size^p; 1 is linear")
    columns = ("axis", "range", "seconds", "p, whole", "growing stages", "seconds of them", "p", "last step")
    for column in columns:
        table.add_column(column, justify="right" if column.startswith(("p", "last")) else "left")
    for name, result in results.items():
        sizes, whole = result["sizes"], [lap[WHOLE] for lap in result["least s"]]
        grown = result["growing"]
        table.add_row(
            name, f"{sizes[0]:,} to {sizes[-1]:,} {result['unit']}", seconds(whole), f"{result['fits'][WHOLE]['exponent']:.2f}",
            shortened(result["growing stages"]), seconds(result["growing s"]), f"{grown['exponent']:.2f}", f"{grown['last']:.2f}",
        )  # fmt: skip
    Console(width=160).print(table)
    for name, result in results.items():
        print(f"flat along {name}: {result['flat']}")


def shortened(stages: Sequence[str]) -> str:
    return "all" if set(stages) == {*IMAGE_STAGES, *VOLUME_STAGES} else ", ".join(stages)


def seconds(values: Sequence[float]) -> str:
    """0.12  0.24  0.5."""
    return "  ".join(f"{value:.2g}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", nargs="+", choices=tuple(AXES), default=list(AXES))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice is the number of cores")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_pages()
    if options.threads:
        torch.set_num_threads(options.threads)
    results = {name: measure(AXES[name], options.rounds) for name in options.axis}
    show(results)
    steep = [name for name, result in results.items() if result["growing"]["exponent"] > LINEAR]
    print(f"super-linear (more than {LINEAR:g}): {', '.join(steep) or 'nothing'}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine(torch.device("cpu")), "axes": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
