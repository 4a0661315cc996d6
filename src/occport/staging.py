"""Writing without a half-written file: everything is staged beside its place and moved there at the end, or not at all.

`with Staging(folder) as stage:` gives a hidden folder inside `folder`; files are written there under their final relative
names. `stage.commit()` moves them into place as one step: signals wait meanwhile, files that are replaced are kept aside, and
any error puts them back. Leaving the block without a commit (error, full disk, Ctrl-C) leaves `folder` as it was, and removes
it if it did not exist before.

Ctrl-C unwinds `with` blocks by itself; SIGTERM and SIGHUP end Python on the spot. A program calls `terminate_as_interrupt()` once,
at its start, so that they unwind too. Nothing helps against SIGKILL or a power cut: hidden `.occport-*` folders may then stay, while
each visible file is the whole old or the whole new one.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

from .errors import ExportError, UserError

T = TypeVar("T")
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # of writing only, whatever was being written
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Staging:
    """A folder beside the final place. Use as a context manager; `path` is where to write.

    Errors: ExportError when the folder cannot be made or written to, and when the disk fails or is full inside the block.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: list[Path] = []  # folders that this object made, outermost first
        self._staged: list[Path] = []  # the staging folder, while there is one
        self._committed = False
        # A second Ctrl-C can strike before the first line of __exit__; what is then left goes when this object or Python does.
        self._clean = weakref.finalize(self, _remove, self._staged, self._made)

    def __enter__(self) -> Staging:
        try:
            with _signals_wait():
                self._make()
        except OSError as error:
            self._clean()
            raise ExportError(
                f"output folder {self.folder}", expected="a folder that can be written to", got=error.strerror or str(error),
                fix="choose another folder",
            ) from error
        except BaseException:
            self._clean()
            raise
        return self

    def _make(self) -> None:
        missing = []
        probe = self.folder
        while not probe.exists():
            missing.append(probe)
            probe = probe.parent
        for folder in reversed(missing):
            folder.mkdir()
            self._made.append(folder)
        self.path = Path(tempfile.mkdtemp(prefix=".occport-staging-", dir=self.folder))
        self._staged.append(self.path)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with _signals_wait():
            self._clean()
        if isinstance(value, OSError) and value.errno in _DISK_ERRORS and not self._committed:
            fix = "nothing was changed there; free some space or choose another folder"
            raise ExportError(f"writing into {self.folder}", got=value.strerror or str(value), fix=fix) from value

    def commit(self) -> list[Path]:
        """Moves every staged file to its place under `folder`, all or none. Returns the final paths, sorted.

        Errors: ExportError when a file cannot be moved, or a folder stands where a file should go; then everything is as before.
        """
        sources = sorted(path for path in self.path.rglob("*") if path.is_file())
        move = _Move(self.folder)
        with _signals_wait():
            try:
                move.prepare()
                for source in sources:
                    move.into_place(source, self.folder / source.relative_to(self.path))
            except OSError as error:
                move.undo()
                raise ExportError(
                    f"could not move the finished files into {self.folder}", got=str(error), fix="nothing was changed there",
                ) from error
            except BaseException:
                move.undo()
                raise
            move.forget()
            self._made.clear()
            self._committed = True
        return move.done


class _Move:
    """Files on their way into `folder`, with all that it takes to send them back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: Path | None = None  # the files that are replaced
        self._made: list[Path] = []
        self._replaced: list[tuple[Path, Path | None]] = []  # final path, and the old file if there was one
        self.done: list[Path] = []

    def prepare(self) -> None:
        self._kept = Path(tempfile.mkdtemp(prefix=".occport-replaced-", dir=self._folder))

    def into_place(self, source: Path, target: Path) -> None:
        """Moves one file. Errors: OSError; `undo` then restores the state before `prepare`."""
        assert self._kept is not None
        for parent in reversed(target.relative_to(self._folder).parents):
            folder = self._folder / parent
            if not folder.exists():
                folder.mkdir()
                self._made.append(folder)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has the name of a file to write", str(target))
        backup = None
        if os.path.lexists(target):  # a broken link too
            backup = self._kept / str(len(self.done))
            _keep(target, backup)
            self._replaced.append((target, backup))
        source.replace(target)
        if backup is None:
            self._replaced.append((target, None))
        self.done.append(target)

    def undo(self) -> None:
        """Puts everything back. Where even that fails, the old files stay in the hidden folder, and the error names it."""
        stuck: list[Path] = []
        for target, backup in reversed(self._replaced):
            try:
                if backup is not None:
                    backup.replace(target)
                else:
                    target.unlink(missing_ok=True)
            except OSError:
                stuck.append(target)
        for folder in reversed(self._made):
            with suppress(OSError):  # somebody else has put something there meanwhile
                folder.rmdir()
        if stuck:
            raise ExportError(
                f"could not put back {', '.join(str(path) for path in stuck)}", got="a second error while undoing the first",
                fix=f"the files as they were are in {self._kept}",
            )
        self.forget()

    def forget(self) -> None:
        if self._kept is not None:
            shutil.rmtree(self._kept, ignore_errors=True)


def _keep(target: Path, backup: Path) -> None:
    """A second name for the old file, so that its place is never empty; where links are not to be had, it is moved."""
    try:
        os.link(target, backup, follow_symlinks=False)
    except (OSError, NotImplementedError):
        target.replace(backup)


def _remove(staged: list[Path], made: list[Path]) -> None:
    for path in staged:
        shutil.rmtree(path, ignore_errors=True)
    for folder in reversed(made):
        with suppress(OSError):  # somebody else has put something there meanwhile
            folder.rmdir()


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, as an exception that unwinds like Ctrl-C. `exit_status` is what a shell reports for the signal."""

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        super().__init__(f"ended by {signal.Signals(number).name}")


def terminate_as_interrupt() -> None:
    """Makes SIGTERM and SIGHUP raise `Terminated`, so that `with` blocks unwind and staged files go. For the main thread.

    The command line calls it once, before its work, and ends like this (Ctrl-C has no `exit_status`; a shell reports 130):

        except KeyboardInterrupt as stop:
            return getattr(stop, "exit_status", 130)

    A signal that the caller ignores (nohup) stays ignored. Inside a native call (a run of ONNX Runtime) it waits for the call's end.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


class _Hold:
    """A signal handler that notes signals while `active`, and hands on those that come later."""

    def __init__(self) -> None:
        self.active = True
        self.arrived: list[int] = []
        self.before: dict[int, Callable[[int, FrameType | None], object] | int] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.active:
            self.arrived.append(number)
        else:
            self.release(number)
            signal.raise_signal(number)

    def release(self, number: int) -> None:
        signal.signal(number, self.before[number])


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Holds back Ctrl-C, SIGTERM and SIGHUP for the few milliseconds of a move; they arrive afterwards.

    By handlers, not by a signal mask: a mask is one thread's, and torch and ONNX Runtime have others that would take the signal.
    Python runs handlers in the main thread only, so that elsewhere there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hold = _Hold()
    try:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler is not None and handler is not signal.SIG_IGN:
                hold.before[number] = handler
                signal.signal(number, hold)
        yield
    finally:
        hold.active = False
        for number in hold.before:
            hold.release(number)
        for number in dict.fromkeys(hold.arrived):
            signal.raise_signal(number)


def earlier(folder: Path, read: Callable[[Path], T], what: str) -> T | None:
    """What an earlier run has put into a folder that is to be written to; None for a new or an empty one.

    Args:
        read: reads it from the folder, or raises UserError.
        what: "earlier vectors", for the message.

    Errors: ExportError where the folder is a file, or holds something else.
    """
    expected, fix = f"a new or empty folder, or one of {what}", "choose another with -o"
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"folder {folder}", expected=expected, got="a file", fix=fix)
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    try:
        return read(folder)
    except UserError as error:
        raise ExportError(f"folder {folder}", expected=expected, got="one with other files in it", fix=fix) from error
