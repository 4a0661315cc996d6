"""Progress lines: plain in a log, a spinner on a terminal, and what a stage that fails says."""

import io
import os
import subprocess
import sys

import pytest

from occport.progress import Bar, NullProgress, Progress, speed_text


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


def bar_lines(clock, total, steps, note=None):
    """What a log holds after frames that take so many seconds each."""
    stream = io.StringIO()
    with Bar(total, stream=stream, clock=clock) as bar:
        for number, seconds in enumerate(steps):
            clock.now += seconds
            bar.step(failed=number == 2)
            if number == 2:
                bar.note("occport: frame c: expected [bold]")
    return stream.getvalue().splitlines()


def test_a_bar_in_a_log_speaks_now_and_then(clock):
    lines = bar_lines(clock, 100, [1.0] * 100)
    assert lines == [
        "[1/100] frames, 1.0 frames/s, 1 min 39 s left",
        "occport: frame c: expected [bold]",
        *(f"[{done}/100] frames, 1 failed, 1.0 frames/s, {left} left" for done, left in [
            (11, "1 min 29 s"), (21, "1 min 19 s"), (31, "1 min 09 s"), (41, "59.0 s"), (51, "49.0 s"), (61, "39.0 s"), (71, "29.0 s"),
            (81, "19.0 s"), (91, "9.0 s"),
        ]),
        "[100/100] frames, 1 failed in 1 min 40 s, 1.0 frames/s",
    ]  # fmt: skip


def test_a_run_of_hours_speaks_less_often(clock):
    assert len(bar_lines(clock, 20_000, [1.0] * 20_000)) < 150


def test_a_slow_start_is_forgotten(clock):
    """A minute for the first frame; of ten frames the later half counts."""
    assert bar_lines(clock, 1000, [60.0] + [2.0] * 9)[-2] == "[6/1000] frames, 1 failed, 0.50 frames/s, 33 min 08 s left"


def test_a_bar_that_is_left_early(clock):
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Bar(5, stream=stream, clock=clock):
        clock.now += 3
        raise KeyboardInterrupt
    assert stream.getvalue() == "[0/5] frames in 3.0 s\n"


def test_a_bar_without_frames_or_without_time(clock):
    assert bar_lines(clock, 0, []) == []
    assert bar_lines(clock, 2, [0.0, 0.0]) == ["[1/2] frames", "[2/2] frames in 0.0 s"]


def test_a_terminal_gets_a_bar(clock, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Bar(2, stream=stream, clock=clock) as bar:
        clock.now += 0.5
        bar.step()
        bar.note("a [bold] note")
        clock.now += 0.5
        bar.step()
    text = stream.getvalue()
    assert "\x1b[" in text and "a [bold] note" in text and "2.0 frames/s" in text
    assert text.endswith("[2/2] frames in 1.0 s, 2.0 frames/s\n")
    assert capsys.readouterr() == ("", "")


def test_a_bar_goes_to_stderr(capsys):
    with Bar(1) as bar:
        bar.step()
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("[1/1] frames in ")


@pytest.mark.parametrize(
    ("speed", "text"), [(0.01386, "0.014"), (0.0999, "0.10"), (0.5, "0.50"), (2.14, "2.1"), (99.6, "100"), (1234.5, "1,234")]
)
def test_speeds(speed, text):
    assert speed_text(speed) == f"{text} frames/s"
