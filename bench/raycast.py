"""Measures ray casting: six images of full size of the synthetic city, by stage.

    python bench/raycast.py [--height 900] [--width 1600] [--repeats 3]

Prints a table and writes bench/results/raycast.json. "s" is time on the clock, "CPU s" the processor time of all threads: where other
work shares the machine only the latter means something. "blocks" are made once for a scene, the other stages add up over the cameras.
Whoever compares two figures takes both from one run: the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import machine
from occport.city.snapshot import Snapshot, snapshot
from occport.frames.pinhole import place_of
from occport.frames.rig import nuscenes_like_rig
from occport.voxels.classes import EMPTY
from occport.voxels.grid import Grid
from occport.voxels.raycast import Caster, camera_rays, render

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/raycast.json"
STAGES = ("blocks", "rays", "cast", "render")
LOAD = os.getloadavg()[0]  # of the machine, before anything is measured
SKY = np.array([222, 230, 236], np.uint8)


class Clock:
    """Seconds of each stage, on the clock and of the processors."""

    def __init__(self) -> None:
        self.wall = dict.fromkeys(STAGES, 0.0)
        self.cpu = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[stage] += time.perf_counter() - wall
        self.cpu[stage] += time.process_time() - cpu


def one_run(scene: Snapshot, rig: NDArray[np.float64], height: int, width: int) -> tuple[Clock, int]:
    """All cameras of a rig (N, 4, 4): the times, and how many rays met something."""
    clock, met = Clock(), 0
    with clock("blocks"):
        caster = Caster(scene.labels != EMPTY, scene.grid)
    for matrix in rig:
        with clock("rays"):
            origin, directions = camera_rays(matrix, height, width)
        with clock("cast"):
            hits = caster.cast(origin, directions)
        with clock("render"):
            render(hits, scene.colours, SKY)
        met += int((hits.voxel >= 0).sum())
    return clock, met


def measure(height: int, width: int, repeats: int) -> dict[str, Any]:
    """A row for each stage, medians over the runs; and what was rendered."""
    _, rig = nuscenes_like_rig(6, height, width)
    scene = snapshot(0, 0, Grid((200, 200, 16)), np.stack([place_of(matrix) for matrix in rig]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    runs = [one_run(scene, rig, height, width) for _ in range(repeats)]
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    rays = len(rig) * height * width
    rows = {
        stage: {
            "s": statistics.median(clock.wall[stage] for clock, _ in runs),
            "CPU s": statistics.median(clock.cpu[stage] for clock, _ in runs),
        }
        for stage in STAGES
    }
    rows["total"] = {
        "s": statistics.median(sum(clock.wall.values()) for clock, _ in runs),
        "CPU s": statistics.median(sum(clock.cpu.values()) for clock, _ in runs),
    }
    return {
        "images": [len(rig), height, width], "repeats": repeats, "rays": rays, "share that meets a voxel": runs[0][1] / rays,
        "solid share": float((scene.labels != EMPTY).mean()), "extra peak GiB": extra, "load before": LOAD, "rows": rows,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    images = " x ".join(map(str, result["images"]))
    table = Table(title=f"ray casting, {images}", caption=f"extra peak {result['extra peak GiB']:.2f} GiB, load before {LOAD:.1f}")
    for column in ("", "s", "CPU s", "M rays/s"):
        table.add_column(column, justify="left" if not column else "right")
    for stage, row in result["rows"].items():
        speed = "" if stage == "blocks" else f"{result['rays'] / 1e6 / row['s']:.1f}"
        table.add_row(stage, f"{row['s']:.2f}", f"{row['CPU s']:.2f}", speed)
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    result = measure(options.height, options.width, options.repeats)
    show(result)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
