"""Stopped at any stage, or without room on the disk: the output folder stays as it was."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporting import ROOT, TINY, assert_refused, contents, run_cli
from occport.export import pipeline
from occport.progress import Progress
from occport.staging import Terminated

STAGES = [
    "reading the frame",
    "loading the weights",
    "tracing and rewriting the graph",
    "checking the file",
    "checking which voxels each camera sees",
    "running PyTorch on the frame",
    "running ONNX Runtime on the frame",
    "other rigs and images",
    "saving inputs and expected outputs",
    "writing the manifest",
]


@pytest.fixture
def brisk(quick, monkeypatch) -> None:
    """Without the checks on other rigs, which have their own tests."""
    monkeypatch.setattr(pipeline, "_check_others", lambda *arguments, **named: None)


def folder_as_it_was(folder: Path, older: bool) -> dict[str, str] | None:
    """With an older export in it, or no folder at all. Returns its contents."""
    if older:
        folder.mkdir()
        for suffix in ("onnx", "json"):
            (folder / f"tiny_UNTRAINED_dl_opset11_runtime.{suffix}").write_text("the good one of yesterday")
    return contents(folder)


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str, stop: BaseException, *, late: bool) -> None:
    """Raises when a stage begins, or when all of it is done."""
    plain = Progress.stage

    @contextmanager
    def stage(self: Progress, title: str) -> Iterator[None]:
        with plain(self, title):
            if title == name and not late:
                raise stop
            yield
            if title == name:
                raise stop

    monkeypatch.setattr(Progress, "stage", stage)


def test_stages_are_these(tmp_path, brisk):
    ran = run_cli("export", "--config", TINY, "--output-dir", tmp_path / "out", "--save-io", "npy")
    told = [line.split("] ", 1)[1] for line in ran.err.splitlines() if line.startswith("[")]
    assert [next(name for name in STAGES if line.startswith(name)) for line in told if any(map(line.startswith, STAGES))] == STAGES
    assert "[10/10] writing the manifest" in ran.err


@pytest.mark.parametrize("number", range(len(STAGES)))
def test_control_c_at_each_stage(number, tmp_path, brisk, monkeypatch):
    out = tmp_path / "out"
    before = folder_as_it_was(out, older=number % 2 == 0)
    stop_at(monkeypatch, STAGES[number], KeyboardInterrupt(), late=number % 3 != 0)
    ran = run_cli("export", "--config", TINY, "--output-dir", out, "--save-io", "npy")
    assert ran.status == 130 and ran.lines == ["occport: interrupted; nothing was written"]
    assert contents(out) == before and [path.name for path in tmp_path.iterdir()] == (["out"] if before else [])


def test_sigterm_has_its_own_status(tmp_path, brisk, monkeypatch):
    stop_at(monkeypatch, "checking the file", Terminated(signal.SIGTERM), late=False)
    ran = run_cli("export", "--config", TINY, "--output-dir", tmp_path / "out")
    assert ran.status == 143 and contents(tmp_path / "out") is None


@pytest.mark.parametrize("place", ["write_graphs", "save_io", "write_json"])
@pytest.mark.parametrize("older", [False, True])
def test_full_disk(place, older, tmp_path, brisk, monkeypatch):
    """Whatever is being written when the disk is full: one line, and nothing half-written."""
    out = tmp_path / "out"
    before = folder_as_it_was(out, older)

    def full(*arguments: object) -> None:
        place = next(path for path in arguments if isinstance(path, Path))
        (place / "part" if place.is_dir() else place).write_text("the first half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pipeline, place, full)
    assert_refused(run_cli("export", "--config", TINY, "--output-dir", out, "--save-io", "bin"), "No space left on device")
    assert contents(out) == before


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond a size, as on a disk that is full; Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("flags", [[], ["--external-data"]])
def test_file_that_the_system_cuts(flags, tmp_path, brisk):
    """The operating system's own error, half way through the weights."""
    out = tmp_path / "out"
    before = folder_as_it_was(out, older=True)
    with largest_file(50_000_000):
        ran = run_cli("export", "--config", TINY, "--output-dir", out, *flags)
    assert_refused(ran, "File too large")
    assert contents(out) == before


def test_failure_while_files_are_moved(tmp_path, brisk, monkeypatch):
    """The second file cannot be moved: the first one goes back, and the older ones too."""
    out = tmp_path / "out"
    before = folder_as_it_was(out, older=True)
    plain, moved = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if target.suffix == ".onnx" and ".occport-staging" in str(self):
            moved.append(target)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert_refused(run_cli("export", "--config", TINY, "--output-dir", out), "could not move the finished files")
    assert moved and contents(out) == before


SIGNALS = [
    ("tracing and rewriting the graph", signal.SIGINT, 130),
    ("tracing and rewriting the graph", signal.SIGTERM, 143),
    ("checking the file", signal.SIGTERM, 143),
]


@pytest.mark.parametrize(("stage", "number", "status"), SIGNALS)
def test_real_signals(stage, number, status, tmp_path):
    """A process of its own, stopped in the middle."""
    out = tmp_path / "out"
    before = folder_as_it_was(out, older=number == signal.SIGINT)
    command = [sys.executable, "-m", "occport", "export", "--config", str(TINY), "--output-dir", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        told = part = os.read(process.stderr.fileno(), 4096)
        while stage.encode() not in told and part:
            part = os.read(process.stderr.fileno(), 4096)
            told += part
        process.send_signal(number)
        rest = process.stderr.read()
    lines = (told + rest).decode().splitlines()
    assert process.returncode == status, lines
    assert lines[-1] == "occport: interrupted; nothing was written" and "Traceback" not in "".join(lines)
    assert contents(out) == before


@pytest.mark.parametrize("stage", ["hashing the files", "running ONNX Runtime on the frame"])
def test_verify_stops_too(stage, runtime_export, monkeypatch):
    before = contents(runtime_export.model.parent)
    stop_at(monkeypatch, stage, KeyboardInterrupt(), late=False)
    ran = run_cli("verify", runtime_export.model)
    assert ran.status == 130 and ran.lines[-1].startswith("occport: interrupted") and contents(runtime_export.model.parent) == before
