"""Work on many frames, one at a time: what has to be done is data, so that it can be done here or in other processes.

    tasks ──▶ Plan.start() → Worker ──▶ Outcome for each task ──▶ whoever asked (progress, tables, summary)

A `Plan` is a frozen dataclass that can be pickled: paths, settings, no model. `start` loads the model. `run_here` does all tasks in
this process; `ray_pool.run_on_ray` does the same with a pool of actors. Both give each task's outcome exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import UserError
from ..frames.listing import Entry


@dataclass(frozen=True)
class Task:
    """One frame to work on. `number` counts the tasks of a run from 0; `entry` tells where to read it."""

    number: int
    entry: Entry


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        number, name: the task's number and its frame's name.
        error: one line, where the frame failed; else "".
        seconds: what took how long, by stage ("reading", "inference", "writing", …).
        row: what the plan has to say about the frame: plain values and numpy arrays only.
    """

    number: int
    name: str
    error: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)


class Worker(Protocol):
    """Does one task at a time; made once for each process."""

    def __call__(self, task: Task) -> Outcome:
        """Does a task. A UserError is the frame's fault: the caller turns it into an outcome with `error`."""
        ...


class Plan(Protocol):
    """What to do with every frame. Can be pickled."""

    def start(self) -> Worker:
        """Loads what is needed. UserError where that cannot be; then nothing is done at all."""
        ...


def done(worker: Worker, task: Task) -> Outcome:
    """The outcome of a task, failed or not; only bad input counts as failed, everything else is a bug and is raised."""
    try:
        return worker(task)
    except UserError as error:
        return Outcome(task.number, task.entry.name, error=str(error))


def run_here(plan: Plan, tasks: Sequence[Task]) -> Iterator[Outcome]:
    """All tasks in this process, in their order. UserError where the plan cannot start."""
    worker = plan.start()
    for task in tasks:
        yield done(worker, task)
