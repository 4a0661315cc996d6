"""Progress lines: plain in a log, a spinner on a terminal, and what a stage that fails says."""

import io
import os
import subprocess
import sys

import pytest

from occport.progress import NullProgress, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock():
    return Clock()


def test_plain_lines(clock):
    stream = io.StringIO()
    progress = Progress(2, stream=stream, clock=clock)
    with progress.stage("reading the checkpoint"):
        clock.now += 0.25
        assert stream.getvalue() == "[1/2] reading the checkpoint …"  # what is going on stands there while it does
    with progress.stage("tracing"):
        clock.now += 8.4
    progress.finish()
    assert stream.getvalue() == "[1/2] reading the checkpoint … 0.2 s\n[2/2] tracing … 8.4 s\ndone in 8.7 s\n"


def test_notes_stand_on_lines_of_their_own(clock):
    stream = io.StringIO()
    progress = Progress(1, stream=stream, clock=clock)
    progress.note("before")
    with progress.stage("tracing"):
        progress.note("871 nodes")
        progress.note("[bold] stays as it is")
        clock.now += 75
    progress.note("after")
    assert stream.getvalue() == (
        "      before\n[1/1] tracing …\n      871 nodes\n      [bold] stays as it is\n[1/1] tracing … 1 min 15 s\n      after\n"
    )


@pytest.mark.parametrize(("error", "word"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted"), (SystemExit, "interrupted")])
def test_a_stage_that_ends_badly_says_so_and_hands_the_error_on(clock, error, word):
    stream = io.StringIO()
    progress = Progress(3, stream=stream, clock=clock)
    with pytest.raises(error), progress.stage("verifying"):
        clock.now += 2
        raise error
    assert stream.getvalue() == f"[1/3] verifying … {word} after 2.0 s\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (125, "2 min 05 s"), (3599.7, "1 h 00 min"), (7260, "2 h 01 min")],
)
def test_durations(clock, seconds, text):
    stream = io.StringIO()
    progress = Progress(0, stream=stream, clock=clock)
    clock.now += seconds
    progress.finish()
    assert stream.getvalue() == f"done in {text}\n"


def test_a_terminal_gets_a_spinner_and_the_same_last_words(clock, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(1, stream=stream, clock=clock)
    with progress.stage("tracing"):
        progress.note("[bold] stays as it is")
        sys.stdout.write("a result\n")
        clock.now += 3
    text = stream.getvalue()
    assert "\x1b[" in text
    assert "      [bold] stays as it is" in text
    assert text.endswith("[1/1] tracing … 3.0 s\n")
    assert capsys.readouterr().out == "a result\n"


def test_a_dumb_terminal_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(1, stream=stream, clock=clock).stage("tracing"):
        pass
    assert stream.getvalue() == "[1/1] tracing … 0.0 s\n"


def test_default_stream_is_stderr(capsys):
    with Progress(1).stage("tracing"):
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("[1/1] tracing … ")


def test_null_progress_says_nothing(capsys):
    progress = NullProgress()
    with progress.stage("tracing"):
        progress.note("a note")
    with pytest.raises(ValueError, match="x"), progress.stage("tracing"):
        raise ValueError("x")
    progress.finish()
    assert capsys.readouterr() == ("", "")


def test_plain_progress_does_not_import_rich():
    code = (
        "import sys, io; from occport.progress import Progress\n"
        "with Progress(1, stream=io.StringIO()).stage('x'): pass\n"
        "sys.exit('rich' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
