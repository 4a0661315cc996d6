"""Measures a dataset run by its parts: reading, inference and writing of frames by themselves, and the evaluation of volumes.

    python bench/dataset.py [--frames 24] [--workers 2] [--full-frames 1] [--scored 100]

Prints a table and writes bench/results/dataset.json. The frames are the synthetic city's, the networks seeded and in PyTorch; a stage's
frames/s are those of one worker while all are at work, "frames/s" counts the whole run by the clock, without the start of the workers.
The evaluation reads predictions ("inference" there) and ground truth of 200x200x16 from files
and counts; the time of nuScenes val is extrapolated from it.
Whoever compares two figures takes both from one run: the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from export import machine
from occport.config import read_config
from occport.frames.listing import Entry, list_frames
from occport.use.work import Outcome, Plan, Task, run_here

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "projects/configs/surroundocc"
RESULTS = ROOT / "bench/results/dataset.json"
NUSCENES_VAL = 6019  # frames
EXTRAPOLATED = "nuScenes val, min, extrapolated"
STAGES = ("reading", "inference", "writing", "scoring")


def city(folder: Path, config_name: str, frames: int, image_size: tuple[int, int] | None = None) -> Sequence[Entry]:
    """A dataset of the synthetic city as the config has it."""
    from occport.city.dataset import write_dataset
    from occport.voxels.grid import Grid

    config = read_config(str(CONFIGS / config_name))
    write_dataset(
        folder, frames=frames, seed=0, num_cameras=config.num_cameras, image_size=image_size or config.image.size,
        grid=Grid(config.occ_size, config.pc_range), step=lambda: None,
    )  # fmt: skip
    return list_frames(str(folder / "infos.pkl"))


def measure(plan: Plan, entries: Sequence[Entry], workers: int) -> dict[str, Any]:
    """Frames/s as a whole and by stage; workers 0 = in this process. As many first frames as there are workers are not counted."""
    from occport.use.ray_pool import run_on_ray

    warm = max(workers, 1)
    tasks = [Task(number, entry) for number, entry in enumerate([*entries[:1] * warm, *entries])]
    begin = time.perf_counter()
    stream: Iterator[Outcome] = run_on_ray(plan, tasks, workers) if workers else run_here(plan, tasks)
    came = [(outcome, time.perf_counter()) for outcome in stream]
    failed = [outcome.error for outcome, _ in came if outcome.error]
    assert not failed, failed
    counted = [outcome for outcome, _ in came[warm:]]
    started, end = came[warm - 1][1], came[-1][1]
    row: dict[str, Any] = {"frames": len(counted), "start s": started - begin, "frames/s": len(counted) / (end - started)}
    for stage in STAGES:
        seconds = sum(outcome.seconds.get(stage, 0.0) for outcome in counted)
        row[f"{stage}/s"] = len(counted) / seconds if seconds else None
    speeds = {stage: row[f"{stage}/s"] for stage in STAGES if row[f"{stage}/s"]}
    row["limited by"] = min(speeds, key=speeds.__getitem__)
    return row


def predictions(folder: Path, config_name: str, entries: Sequence[Entry], workers: int, threads: int | None) -> dict[str, Any]:
    """Reading, inference and writing of frames."""
    from occport.use.choice import Choice
    from occport.use.predict import PredictPlan

    out = Path(tempfile.mkdtemp(dir=folder))
    return measure(PredictPlan(Choice(config=CONFIGS / config_name, threads=threads), out), entries, workers)


def scores(folder: Path, entries: Sequence[Entry], count: int, workers: int) -> dict[str, Any]:
    """Counts of full-size volumes: what the network says is the ground truth of the next frame."""
    from occport.use.evaluate import EvaluatePlan
    from occport.use.scoring import folder_source
    from occport.voxels.classes import CLASS_NAMES
    from occport.voxels.grid import Grid
    from occport.voxels.ground_truth import read_ground_truth
    from occport.voxels.occupancy import Occupancy

    grid, out = Grid((200, 200, 16)), folder / "predictions"
    for entry, other in zip(entries, [*entries[1:], entries[0]], strict=True):
        assert other.ground_truth is not None
        Occupancy(entry.name, read_ground_truth(other.ground_truth, grid, True), CLASS_NAMES, grid).save(out)
    source = folder_source(out, [entry.name for entry in entries], True)
    row = measure(EvaluatePlan(source, None, True), [entries[number % len(entries)] for number in range(count)], workers)
    return {**row, "of": f"{len(entries)} different frames in turn", EXTRAPOLATED: NUSCENES_VAL / row["frames/s"] / 60}


def rows_of(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """A row for each kind of run."""
    workers, cores = options.workers, os.cpu_count() or 1
    micro, official = "surroundocc_micro.py", "surroundocc.py"
    small = city(folder / "micro", micro, options.frames)
    rows = {
        "micro, 1 process": predictions(folder, micro, small, 0, None),
        "micro, 1 process, 1 thread": predictions(folder, micro, small, 0, 1),
        f"micro, Ray, {workers} workers": predictions(folder, micro, small, workers, None),
        f"micro, Ray, {workers} workers, {max(1, cores // workers)} thread each": predictions(
            folder, micro, small, workers, max(1, cores // workers)
        ),
    }  # fmt: skip
    volumes = city(folder / "volumes", official, 10, image_size=(45, 80))
    rows["counts 200x200x16, 1 process"] = scores(folder, volumes, options.scored, 0)
    rows[f"counts 200x200x16, Ray, {workers} workers"] = scores(folder, volumes, options.scored, workers)
    if options.full_frames:
        rows["full size, 1 process"] = predictions(folder, official, city(folder / "full", official, options.full_frames), 0, None)
    return rows


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    columns = ["frames", "start s", "frames/s", *(f"{stage}/s" for stage in STAGES), "limited by"]
    table = Table(title="a dataset run by its parts, frames/s")
    for column in ("", *columns):
        table.add_column(column, justify="left" if column in ("", "limited by") else "right")
    for name, row in rows.items():
        cells = [row[column] for column in columns]
        table.add_row(name, *("-" if cell is None else f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=160).print(table)
    for name, row in rows.items():
        if EXTRAPOLATED in row:
            print(f"{name}: nuScenes val ({NUSCENES_VAL:,} frames) in {row[EXTRAPOLATED]:.1f} min, extrapolated from {row['frames']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24, help="of the micro network")
    parser.add_argument("--workers", type=int, default=2, help="of Ray")
    parser.add_argument("--full-frames", type=int, default=1, help="of the official network, a minute each; 0 leaves it out")
    parser.add_argument("--scored", type=int, default=100, help="volumes that are evaluated")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(options, Path(folder))
    show(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine(), "workers": options.workers, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
