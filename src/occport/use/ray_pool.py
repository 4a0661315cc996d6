"""The work of `work.run_here` with a pool of processes, on this machine or on a Ray cluster: Ray Data with one actor a worker.

    tasks, one row each ──▶ map_batches(_Seat, size = workers) ──▶ rows of pickled outcomes, as they come

Each actor starts the plan once and keeps what that loads. Images are read by the actors; only tasks and outcomes travel.

A process that dies (out of memory, killed, its node lost) is replaced by Ray, and its frame is done again: what a worker writes is put
in place as a whole, so that a second time changes nothing. `_Tally` counts the deaths of each frame. A frame that killed `TRIES`
processes is reported as failed and the others go on; with more than `MAX_DEADLY` such frames the run ends. A bug ends it too.

The same labels, bit for bit: sums in a convolution are split among threads, and their last digits depend on how many there are (1.6e-5 of
a logit between 1 and 2, on the micro network). Ray gives an actor OMP_NUM_THREADS = its CPUs; here that is undone, so that a worker takes
as many threads as one process would on that machine; more than cores with several workers, so they wait without spinning. Machines that
differ in cores need a number that is set: --threads.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .work import Outcome, Plan, Task, Worker, done, run_here

if TYPE_CHECKING:
    from ray.data import Dataset

TRIES = 3  # processes that may die at a frame before it counts as failed
MAX_DEADLY = 3  # frames that may fail so before the run ends: each costs TRIES starts of the plan
_DEADLY = f"its worker process died {TRIES} times; look whether memory is short, and try this frame with --workers 1"
_OBJECT_STORE = 256 * 2**20  # bytes; tasks and outcomes are small
_THREADS = "OMP_NUM_THREADS"
_SETTINGS = {  # of Ray, where the user has not set them
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # accelerators stay visible to the workers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # on the terminal; a process that dies is not news to us
    "RAY_DEDUP_LOGS": "0",  # else what was held back is printed at the end
    "RAY_TQDM_PATCH_PRINT": "0",  # or it puts a print of its own in the place of Python's
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",  # a container's small /dev/shm is large enough
}


@dataclass(frozen=True)
class _Home:
    """What a worker needs to know of the process that asked: its folder, its search path, its OMP_NUM_THREADS (None = not set)."""

    folder: str
    search: tuple[str, ...]
    threads: str | None


class _Tally:
    """Counts the processes that died at each frame; an actor of its own, so that it outlives them."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, number: int) -> tuple[int, int]:
        """A process begins with a task. Returns how many have died at it, and the number of tasks at which TRIES have."""
        died = self._begun.get(number, 0)
        self._begun[number] = died + 1
        return died, sum(count > TRIES for count in self._begun.values())

    def end(self, number: int) -> None:
        """The process is still there."""
        self._begun.pop(number, None)


class _Seat:
    """A worker's place: what Ray makes in each process, and calls with a batch of one row at a time."""

    def __init__(self, plan: bytes, home: _Home, tally: Any) -> None:
        self._plan, self._home, self._tally = plan, home, tally
        self._worker: Worker | None = None

    def __call__(self, batch: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
        """{"task": [a pickled Task]} → {"reply": [a pickled Outcome, or the pickled UserError that ends the run]}."""
        import ray

        task: Task = pickle.loads(batch["task"][0])
        died, deadly = ray.get(self._tally.begin.remote(task.number))
        if deadly > MAX_DEADLY:
            return {"reply": [pickle.dumps(_hopeless(deadly))]}
        if died >= TRIES:
            return {"reply": [pickle.dumps(Outcome(task.number, task.entry.name, error=_DEADLY))]}
        try:
            self._worker = self._worker or self._start()
            reply: Outcome | UserError = done(self._worker, task)
        except UserError as error:
            reply = error
        self._tally.end.remote(task.number)
        return {"reply": [pickle.dumps(reply)]}

    def _start(self) -> Worker:
        if Path.cwd() != Path(self._home.folder):
            try:
                os.chdir(self._home.folder)
            except OSError as error:
                raise UserError(
                    f"folder {self._home.folder} on {socket.gethostname()}", expected="the same files on every machine of the cluster",
                    got=error.strerror or str(error), fix="work in a folder of a shared file system",
                ) from error
        sys.path.extend(place for place in self._home.search if place not in sys.path)
        os.environ.pop(_THREADS, None)  # all this before torch is imported, which reads it once
        if self._home.threads is not None:
            os.environ[_THREADS] = self._home.threads
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        plan: Plan = pickle.loads(self._plan)
        return plan.start()


def run_on_ray(plan: Plan, tasks: Sequence[Task], workers: int, address: str | None = None) -> Iterator[Outcome]:
    """All tasks with a pool of processes; each task's outcome exactly once, in the order in which they come.

    Args:
        plan: what to do; pickled, and started once in each process.
        tasks: any number; their numbers differ.
        workers: the number of processes.
        address: of a running cluster ("HOST:PORT", "auto"), to which this machine belongs; None starts Ray here and stops it at the end.
            A cluster's machines need occport and its packages in the same versions, and the files under the same paths.

    A Ray that this program has already started is used and left running. Closing the iterator stops the work.
    Errors: UserError where Ray is missing, the cluster cannot be reached or is too small, workers cannot start or keep dying, the plan
    cannot start, or outcomes are missing at the end (frames named). A worker's bug is raised as its own type, with its traceback.
    """
    if not tasks:
        yield from run_here(plan, tasks)
        return
    waiting = {task.number: task for task in tasks}
    assert len(waiting) == len(tasks), "two tasks of one number"
    _check_installed()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_connected(workers, address))
        for reply in _replies(_dataset(plan, tasks, min(workers, len(tasks)))):
            if isinstance(reply, UserError):
                raise reply
            if waiting.pop(reply.number, None) is not None:
                yield reply
    if waiting:
        raise UserError(
            f"{len(waiting)} of {len(tasks)} frames", expected="an outcome of each", got=f"none of {_names(list(waiting.values()))}",
            fix="run these again",
        )


def _dataset(plan: Plan, tasks: Sequence[Task], workers: int) -> Dataset:
    """What Ray Data is to do: nothing has begun yet."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_items

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = -1  # a frame takes as long as it takes
    home = _Home(str(Path.cwd()), tuple(sys.path), os.environ.get(_THREADS))
    tally = ray.remote(_Tally).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    with DataContext.current(context):
        rows = from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks))
        return rows.map_batches(
            _Seat,
            fn_constructor_args=(pickle.dumps(plan), home, tally),
            batch_size=1, batch_format="numpy", num_cpus=1,
            # One task at a time: a process that dies takes no other frame with it. Ray would try for ever; _Tally ends that.
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        )  # fmt: skip


def _replies(dataset: Dataset) -> Iterator[Outcome | UserError]:
    """Runs it. What the workers say, as it comes."""
    from ray.exceptions import ActorDiedError

    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for reply in batch["reply"]:
                yield pickle.loads(reply)
    except ActorDiedError as error:  # those that have once begun are replaced
        got = str(error).strip().rpartition("\n")[2]
        raise UserError("starting a worker", expected="occport and its packages, the same versions on every machine", got=got) from error


def _check_installed() -> None:
    for name, value in _SETTINGS.items():  # before the import, which reads some of them
        os.environ.setdefault(name, value)
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise UserError("several workers", expected="ray with ray.data", got=reason, fix="pip install 'occport[ray]'") from error


@contextmanager
def _connected(workers: int, address: str | None) -> Iterator[None]:
    """Ray, started or joined; at the end it is left as it was found. Signals keep the handlers that they had: Ray takes SIGTERM."""
    import ray

    if ray.is_initialized():
        yield
        return
    here = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            with _no_stderr():
                ray.init(
                    address="local", num_cpus=workers, object_store_memory=_OBJECT_STORE, include_dashboard=False,
                    log_to_driver=False, logging_level=logging.CRITICAL,
                )  # fmt: skip
        else:
            _join(address, workers)
        if here:
            signal.signal(signal.SIGTERM, handler)
        yield
    finally:
        ray.shutdown()
        if here:
            signal.signal(signal.SIGTERM, handler)


def _join(address: str, workers: int) -> None:
    """Connects to a cluster. UserError where that cannot be, or where it has no room for the workers."""
    import ray

    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()  # Ray itself would try for many minutes
        with _no_stderr():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise UserError(
            f"the Ray cluster at {address}", expected="one that this machine belongs to, with the same versions of Python and Ray",
            got=str(error).strip().partition("\n")[0] or type(error).__name__,
            fix="see `ray status`; a cluster with a token wants it in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
        ) from error
    machines = ray.nodes()  # type: ignore[no-untyped-call, unused-ignore]
    room = int(sum(machine["Resources"].get("CPU", 0) for machine in machines if machine["Alive"]))
    if room < workers:
        expected = f"a CPU for each of {workers} workers"
        raise UserError(f"the Ray cluster at {address}", expected=expected, got=f"{room} CPUs", fix="take fewer workers")


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's native part prints as it starts, past all of Python's logging: that it was told not to print, for one."""
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        sys.stderr.flush()
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Ray logs off the terminal; its files (below /tmp/ray, or the cluster's folder) have all of it."""
    from ray._private import worker as driver

    shown = getattr(driver, "_worker_logs_enabled", None)  # a page on each process that dies; no public switch, none is needed to work
    if shown is not None:
        driver._worker_logs_enabled = False
    nothing = logging.Filter("a logger that nobody has")
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    screens = [handler for logger in loggers for handler in logger.handlers if type(handler).__name__ == "PlainRayHandler"]
    for screen in screens:
        screen.addFilter(nothing)
    try:
        yield
    finally:
        for screen in screens:
            screen.removeFilter(nothing)
        if shown is not None:
            driver._worker_logs_enabled = shown


def _hopeless(count: int) -> UserError:
    return UserError(
        "the workers", expected="processes that live", got=f"{count} frames at each of which {TRIES} of them died",
        fix="look whether memory is short; fewer workers need less",
    )  # fmt: skip


def _names(tasks: Sequence[Task], most: int = 5) -> str:
    names = ", ".join(task.entry.name for task in tasks[:most])
    return f"{names} and {len(tasks) - most} more" if len(tasks) > most else names
