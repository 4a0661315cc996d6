"""The flags that say where many frames are worked on: in this process, in several of this machine, or on a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from ..use.work import Outcome, Plan, Task


def add_scale_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --workers and --address."""
    group = parser.add_argument_group("scale-out", "needs `pip install 'occport[ray]'`; one worker without an address does not")
    group.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes that work on frames side by side, each with a network of its own in memory. The results are those of one process; "
        "each takes as many threads as one process would, so that with several, `--threads` (cores / workers) is faster",
    )
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="a running Ray cluster that does the work (`auto`: the one of this machine). Run on one of its machines; all need "
        "occport in the same version, and the files under the same paths (a shared file system)",
    )


def outcomes(options: argparse.Namespace, plan: Plan, tasks: Sequence[Task]) -> Iterator[Outcome]:
    """Does the tasks where the flags say, with the same results. Each task's outcome exactly once; with several workers as they come.

    Close the iterator (or use it up) before the command ends: that stops the workers.
    Errors: UserError for --workers below 1, and what `work.run_here` and `ray_pool.run_on_ray` refuse.
    """
    if options.workers < 1:
        raise UserError("--workers", expected="1 or more", got=str(options.workers))
    if options.workers == 1 and options.address is None:
        from ..use.work import run_here

        return run_here(plan, tasks)
    from ..use.ray_pool import run_on_ray

    return run_on_ray(plan, tasks, options.workers, options.address)
