"""Peak memory of one backend: a fresh process that loads it, computes one frame, and tells what it has held at most."""

from __future__ import annotations

import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from ..errors import UserError
from ..memory import peak_rss
from .plan import Plan


@dataclass(frozen=True)
class Peak:
    """Bytes: of the process, Python, PyTorch and the network included (0 where the system does not tell); and of the device's own memory,
    0 on a CPU."""

    process: int
    device: int


def peak_of(plan: Plan) -> Peak:
    """Measures. Whatever this process holds does not count.

    Args:
        plan: with one contender.

    Errors: UserError where the process failed or was killed, as for lack of memory.
    """
    assert len(plan.contenders) == 1, plan.contenders
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(plan, theirs), daemon=True)
    try:
        child.start()
        theirs.close()
        answer = ours.recv()
    except EOFError as error:
        child.join()
        what, fix = f"peak memory of {plan.contenders[0].name}", "leave it out with --no-memory"
        raise UserError(what, expected="a process that computes one frame", got=f"its end with status {child.exitcode}", fix=fix) from error
    finally:
        if child.is_alive():
            child.terminate()
        ours.close()
    if isinstance(answer, str):
        raise UserError(f"peak memory of {plan.contenders[0].name}: {answer}")
    assert isinstance(answer, Peak), answer
    return answer


def _measure(plan: Plan, pipe: Connection) -> None:
    """What the child does. An interrupt is its parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        opened = plan.open()
        opened.backends[0].run()
    except UserError as error:
        pipe.send(str(error))
        return
    device = torch.device(plan.device)
    used = torch.accelerator.max_memory_allocated(device) if device.type != "cpu" and plan.contenders[0].model is None else 0
    pipe.send(Peak(peak_rss(), used))
