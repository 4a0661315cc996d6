"""How far a long command is: its stages with their times, or a bar over many frames; plain lines in a log. All of it goes to stderr.

The result of a command belongs to stdout and to `commands/`; what is said here can be thrown away.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Spinner
    from rich.progress import ProgressColumn

_QUIET = 10.0  # seconds at least between two lines of a bar in a log


class Progress:
    """Prints `[3/9] tracing … 8.4 s` for each stage.

    Args:
        total_stages: number of stages to come; the counter goes on where there are more.
        stream: where to write; None means stderr. A terminal gets a spinner, anything else plain lines without control codes.
        clock: seconds from any start, never backwards.
    """

    def __init__(self, total_stages: int, *, stream: TextIO | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._total = total_stages
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._begin = clock()
        self._number = 0
        self._spinner: Spinner | None = None
        self._open_line = False  # a stage's line waits for its time

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage, for a `with` block. Its line ends in its time, or says that it failed or was interrupted. Stages do not nest."""
        self._number += 1
        head = f"[{self._number}/{self._total}] {name} …"
        begin = self._clock()
        end = ""
        try:
            self._start(head)
            yield
        except Exception:
            end = "failed after "
            raise
        except BaseException:
            end = "interrupted after "
            raise
        finally:
            self._stop(head, f"{end}{_duration(self._clock() - begin)}")

    def note(self, text: str) -> None:
        """A line in between, set in below its stage."""
        if self._open_line:
            self._write("\n")
            self._open_line = False
        if self._spinner is not None:
            self._spinner.console.print(f"      {text}", markup=False, highlight=False, soft_wrap=True)
        else:
            self._write(f"      {text}\n")

    def say(self, text: str) -> None:
        """A line of the command's result, on stdout; a stage's line that is still open on the same screen or log is ended first."""
        if self._open_line and _same_place(self._stream, sys.stdout):
            self._write("\n")
            self._open_line = False
        if self._spinner is not None and _same_place(self._stream, sys.stdout):
            self._spinner.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def finish(self) -> None:
        """The last line: the time since this object was made."""
        self._write(f"done in {_duration(self._clock() - self._begin)}\n")

    def _start(self, head: str) -> None:
        if _is_terminal(self._stream):
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            self._spinner = _live(self._stream, (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()))
            self._spinner.add_task(head, total=None)
            self._spinner.start()
        else:
            self._write(head)
            self._open_line = True

    def _stop(self, head: str, end: str) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        self._write(f" {end}\n" if self._open_line else f"{head} {end}\n")
        self._open_line = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class NullProgress(Progress):
    """Says nothing; for the Python API."""

    def __init__(self) -> None:
        super().__init__(0)

    def note(self, text: str) -> None:
        """Drops the line."""

    def say(self, text: str) -> None:
        """Drops the line."""

    def finish(self) -> None:
        """Says nothing."""

    def _start(self, head: str) -> None:
        return

    def _stop(self, head: str, end: str) -> None:
        return


class Bar:
    """Frames done of a total, frames/s and time left, for a `with` block: a bar on a terminal, a line now and then in a log.

        [37/6019] frames, 2 failed, 2.1 frames/s, 47 min 29 s left

    The speed is that of the later half of what is done, so that a slow start (loading, starting processes) is soon forgotten.

    Args:
        total: number of frames to come.
        stream: where to write; None means stderr. A terminal gets a bar, anything else plain lines without control codes.
        clock: seconds from any start, never backwards.
    """

    def __init__(self, total: int, *, stream: TextIO | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._times = [clock()]  # of the start, then of each frame
        self._failed = 0
        self._said_at = self._times[0]
        self._spinner: Spinner | None = None

    def __enter__(self) -> Bar:
        if _is_terminal(self._stream):
            from rich.progress import BarColumn, TextColumn

            columns = (BarColumn(), TextColumn("{task.description}", markup=False))
            self._spinner = _live(self._stream, columns)
            self._spinner.add_task(self._line(), total=self._total)
            self._spinner.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        seconds, done = self._clock() - self._times[0], len(self._times) - 1
        speed = f", {speed_text(done / seconds)}" if done and seconds > 0 else ""
        if self._total:
            self._write(f"{self._count()} in {_duration(seconds)}{speed}\n")

    def step(self, *, failed: bool = False) -> None:
        """One more frame is done, or has failed."""
        self._times.append(self._clock())
        self._failed += failed
        done = len(self._times) - 1
        if self._spinner is not None:
            self._spinner.update(self._spinner.task_ids[0], completed=done, description=self._line())
            return
        # In a log: the first frame, then every ten seconds, and ever more rarely in a run of hours. The last line is the exit's.
        now = self._times[-1]
        if done < self._total and (done == 1 or now - self._said_at >= max(_QUIET, (now - self._times[0]) / 20)):
            self._said_at = now
            self._write(self._line() + "\n")

    def note(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._spinner is not None:
            self._spinner.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._write(text + "\n")

    def _count(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"[{len(self._times) - 1}/{self._total}] frames{failed}"

    def _line(self) -> str:
        speed = self._speed()
        left = _duration((self._total - len(self._times) + 1) / speed) if speed else ""
        return f"{self._count()}, {speed_text(speed)}, {left} left" if speed else self._count()

    def _speed(self) -> float:
        """Frames a second; 0 where that cannot be told yet."""
        done = len(self._times) - 1
        passed = self._times[done] - self._times[done // 2]
        return (done - done // 2) / passed if passed > 0 else 0.0

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def speed_text(speed: float) -> str:
    """Frames a second in two or three digits, `0.014 frames/s`, `2.1 frames/s`, `130 frames/s`."""
    digits = 0 if speed >= 99.5 else 1 if speed >= 0.95 else 2 if speed >= 0.095 else 3
    return f"{speed:,.{digits}f} frames/s"


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _live(stream: TextIO, columns: tuple[ProgressColumn, ...]) -> Spinner:
    from rich.console import Console
    from rich.progress import Progress as Spinner

    # Stdout is the command's result; redirected, it would end up on stderr.
    return Spinner(*columns, console=Console(file=stream), transient=True, redirect_stdout=False)


def _same_place(first: TextIO, second: TextIO) -> bool:
    """Whether two streams end on the same terminal or in the same file."""
    try:
        return os.path.sameopenfile(first.fileno(), second.fileno()) or (first.isatty() and second.isatty())
    except (OSError, ValueError):  # one is no file at all, as under a test runner
        return False


def _duration(seconds: float) -> str:
    """`0.3 s`, `8.4 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
