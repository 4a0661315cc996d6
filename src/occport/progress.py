"""Stages of a long command with their times: a spinner on a terminal, plain lines in a log. What it says of itself goes to stderr.

The result of a command belongs to stdout and to `commands/`; what is said here can be thrown away.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Spinner


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
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import Progress as Spinner
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            console = Console(file=self._stream)
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            # Stdout is the command's result; redirected, it would end up on stderr.
            self._spinner = Spinner(*columns, console=console, transient=True, redirect_stdout=False)
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
