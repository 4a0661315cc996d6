"""Plans for `use/ray_pool.py`: what workers do to numbers, and how they fail. A module of its own, so that workers can import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occport.errors import FrameError, UserError
from occport.frames.listing import Entry
from occport.use.work import Outcome, Task, Worker

CLASSES = 17


def tasks(count: int) -> list[Task]:
    """Numbered tasks with names."""
    return [Task(number, Entry(f"frame_{number:03}", f"nowhere/{number}")) for number in range(count)]


class Counting:
    """The worker of `CountingPlan`."""

    def __init__(self, plan: CountingPlan) -> None:
        self.plan = plan

    def __call__(self, task: Task) -> Outcome:
        plan, number = self.plan, task.number
        if number in plan.deadly or (number in plan.deadly_once and _first(plan.folder / f"died_{number}")):
            os.kill(os.getpid(), signal.SIGKILL)
        if number in plan.damaged:
            raise FrameError(f"image of frame {number}", got="a text")
        if number == plan.bug_at:
            raise ZeroDivisionError("a bug, planted")
        if plan.slow:
            time.sleep(plan.slow)
        if plan.folder != Path():
            with (plan.folder / f"done_{number}").open("a") as file:
                file.write("done\n")
        labels = np.random.default_rng(number).integers(0, CLASSES, (8, 9, 5)).astype(np.uint8)
        row = {"counts": np.bincount(labels.reshape(-1), minlength=CLASSES), "bytes": b"\0a\0", "empty": np.zeros((0, 3), np.float32)}
        row |= {"threads": os.environ.get("OMP_NUM_THREADS"), "folder": str(Path.cwd()), "process": os.getpid()}
        return Outcome(number, task.entry.name, seconds={"inference": 0.5}, row=row)


@dataclass(frozen=True)
class CountingPlan:
    """Counts the classes of seeded volumes.

    Attributes:
        folder: for marks; Path() means none are made.
        deadly, deadly_once: tasks that kill their process, each time or the first time only.
        damaged: tasks that are bad input.
        bug_at: a task that meets a bug.
        slow: seconds that each task sleeps.
        refused: `start` refuses with this text.
        dies_at_start: `start` kills the process.
    """

    folder: Path = Path()
    deadly: tuple[int, ...] = ()
    deadly_once: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()
    bug_at: int = -1
    slow: float = 0.0
    refused: str = ""
    dies_at_start: bool = False

    def start(self) -> Worker:
        if self.refused:
            raise UserError("network", got=self.refused)
        if self.dies_at_start:
            os.kill(os.getpid(), signal.SIGKILL)
        return Counting(self)


def _first(mark: Path) -> bool:
    """Whether nobody has made this mark yet; makes it."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
