"""Somebody's runtime as a command: a model file and arrays go in, arrays come out."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...export.network_file import NetworkFile
from ...graph.submodel import submodel
from ..dumps.index import Entry
from ..split.model import write_part
from .hints import Hint
from .layout import Fitted, fitted
from .theirs import RAW, Theirs

PLACES = ("{model}", "{inputs}", "{outputs}")
_LONGEST = 10**6  # seconds
_SHOWN = 300  # characters of what a command says


class Command:
    """A command with PLACES in it; no shell sees it.

    Errors: UserError for a command that cannot be split into words, or that leaves a place out.
    """

    def __init__(self, text: str, timeout: float) -> None:
        try:
            self._words = shlex.split(text)
        except ValueError as error:
            raise UserError(f"--bisect {text!r}", expected="a command", got=str(error), fix="mind its quotes") from error
        missing = [place for place in PLACES if not any(place in word for word in self._words)]
        if missing or not self._words:
            fix = "write, for example, 'python run.py {model} {inputs} {outputs}'"
            raise UserError(f"--bisect {text!r}", expected=" ".join(PLACES), got=f"no {' and no '.join(missing)}", fix=fix)
        if not 0 < timeout <= _LONGEST:
            raise UserError(f"--timeout {timeout:g}", expected=f"more than 0 seconds, at most {_LONGEST:,}")
        self._timeout = timeout

    def run(
        self, file: NetworkFile, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, Entry], golden: Mapping[str, np.ndarray],
        needed: Sequence[str],
    ) -> dict[str, Fitted]:  # fmt: skip
        """Runs the part of a file between some tensors and others.

        Args:
            file: the network.
            feeds: arrays for the inputs of the part.
            outputs: what it gives: name → what is known of it.
            golden: our arrays of the outputs.
            needed: outputs in graph order.

        Errors: UserError where the command is not there, fails, is killed, takes too long, or leaves an output unwritten or misshapen.
        """
        with tempfile.TemporaryDirectory(prefix="occport-bisect-") as place:
            folder = Path(place)
            for name in ("inputs", "outputs"):
                (folder / name).mkdir()
            model = submodel(file.model, list(feeds), needed, "part")
            write_part(file, model, folder / "model.onnx", None)
            for port in model.graph.input:
                np.save(folder / "inputs" / f"{port.name}.npy", feeds[port.name])
            what = f"the part with {len(model.graph.node)} nodes that ends at {needed[-1]}"
            self._start(folder, what)
            return self._read(folder / "outputs", outputs, golden, what)

    def _start(self, folder: Path, what: str) -> None:
        told = {"{model}": str(folder / "model.onnx"), "{inputs}": str(folder / "inputs"), "{outputs}": str(folder / "outputs")}
        words = list(self._words)
        for place, path in told.items():
            words = [word.replace(place, path) for word in words]
        head = f"--bisect {self._words[0]} on {what}"
        try:
            done = _run(words, self._timeout)
        except subprocess.TimeoutExpired as error:
            raise UserError(head, expected=f"an end within {self._timeout:g} s", got="none", fix="raise --timeout") from error
        except OSError as error:
            got = error.strerror or str(error)
            raise UserError(head, expected="a program", got=got, fix="check its path") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-_SHOWN:]
            got = f"status {done.returncode}" if done.returncode > 0 else f"killed by {_signal_name(-done.returncode)}"
            got = f"{got}: {said or 'nothing on stderr'}"
            raise UserError(head, expected="exit status 0", got=got, fix="try it by hand on a part that `occport split` writes")

    def _read(self, folder: Path, outputs: Mapping[str, Entry], golden: Mapping[str, np.ndarray], what: str) -> dict[str, Fitted]:
        if not any(folder.iterdir()):
            raise UserError(f"--bisect {self._words[0]} on {what}", expected="NAME.npy of each output in {outputs}", got="an empty folder")
        theirs = Theirs(folder)
        found: dict[str, Fitted] = {}
        for name, entry in outputs.items():
            try:
                source = theirs.find(name)
                if source is None:
                    raise ValueError(f"none; there are {', '.join(sorted(theirs.sources)[:5])}")
                found[name] = fitted(theirs.read(source), entry, golden[name], Hint(), source.kind in RAW)
            except (OSError, ValueError, EOFError) as error:
                expected = f"{entry.dtype} {list(entry.shape)}"
                fix = "write NAME.npy into {outputs}"
                raise UserError(f"output {name} of {what}", expected=expected, got=str(error), fix=fix) from error
        return found


def _run(words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[bytes]:
    """Runs a command; when it takes too long, or we are stopped, all that it has started ends with it."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
