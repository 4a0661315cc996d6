"""All or nothing: whatever goes wrong at whatever moment, the folder is as it was or holds every file."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from occport import staging
from occport.errors import ExportError, UserError
from occport.staging import Staging, Terminated, earlier, terminate_as_interrupt

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")


def state(folder: Path) -> dict[str, str]:
    """Every file, link and folder in `folder` (hidden ones too) with its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = f"-> {path.readlink()}" if path.is_symlink() else "(folder)" if path.is_dir() else path.read_text()
    return found


@pytest.fixture
def out(tmp_path):
    """A folder with an older export and files of the user's."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.onnx").write_text("old model")
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.txt").write_text("mine")
    return folder


OLD = {"model.onnx": "old model", "sub": "(folder)", "sub/mine.txt": "mine"}
NEW = {**OLD, "a.txt": "a", "deep": "(folder)", "deep/er": "(folder)", "deep/er/b.txt": "b", "model.onnx": "new model"}


def fill(stage: Staging) -> None:
    (stage.path / "deep" / "er").mkdir(parents=True)
    (stage.path / "a.txt").write_text("a")
    (stage.path / "deep" / "er" / "b.txt").write_text("b")
    (stage.path / "model.onnx").write_text("new model")


def test_commit_moves_everything(out):
    with Staging(out) as stage:
        fill(stage)
        assert {name: content for name, content in state(out).items() if not name.startswith(".")} == OLD
        assert stage.commit() == [out / "a.txt", out / "deep" / "er" / "b.txt", out / "model.onnx"]
    assert state(out) == NEW


def test_without_commit_nothing_is_left(out):
    with Staging(out) as stage:
        fill(stage)
    assert state(out) == OLD


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_leaves_nothing_and_comes_through(out, error):
    with pytest.raises(error), Staging(out) as stage:
        fill(stage)
        raise error
    assert state(out) == OLD


def test_folders_that_were_made_go_again(tmp_path):
    with Staging(tmp_path / "a" / "b") as stage:
        assert stage.path.parent == tmp_path / "a" / "b"
    assert state(tmp_path) == {}
    with Staging(tmp_path / "a" / "b") as stage:
        (stage.path / "f").write_text("x")
        stage.commit()
    assert state(tmp_path) == {"a": "(folder)", "a/b": "(folder)", "a/b/f": "x"}


def test_folders_that_were_made_stay_where_somebody_used_them(tmp_path):
    with Staging(tmp_path / "a" / "b"):
        (tmp_path / "a" / "other").write_text("somebody's")
    assert state(tmp_path) == {"a": "(folder)", "a/other": "somebody's"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match=r"output folder .*file/b: expected a folder that can be written to, got Not a directory; choose"):
        Staging(tmp_path / "file" / "b").__enter__()
    assert state(tmp_path) == {"file": "x"}


def test_half_made_folders_go_again(tmp_path, monkeypatch):
    def refuse(**_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(staging.tempfile, "mkdtemp", lambda prefix, dir: refuse(prefix=prefix, dir=dir))
    with pytest.raises(ExportError, match="got Permission denied; choose another folder"):
        Staging(tmp_path / "a" / "b").__enter__()
    assert state(tmp_path) == {}


@pytest.mark.parametrize(("number", "text"), [(errno.ENOSPC, "No space left on device"), (errno.EDQUOT, "Disk quota exceeded")])
def test_a_full_disk_while_writing_is_one_line(out, number, text):
    with pytest.raises(ExportError) as caught, Staging(out) as stage:
        fill(stage)
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"writing into {out}: got {text}; nothing was changed there; free some space or choose another folder"
    assert state(out) == OLD


def test_other_operating_system_errors_come_through_as_they_are(out):
    with pytest.raises(FileNotFoundError), Staging(out):
        (out / "no such file").read_text()


def test_an_error_after_the_commit_does_not_claim_that_nothing_changed(out):
    with pytest.raises(OSError, match="No space left"), Staging(out) as stage:
        fill(stage)
        stage.commit()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert state(out) == NEW


def test_a_folder_with_the_name_of_a_file_stays(out):
    (out / "a.txt").mkdir()
    (out / "a.txt" / "precious").write_text("data")
    before = state(out)
    with pytest.raises(ExportError, match=r"a folder has the name of a file to write.*nothing was changed there"), Staging(out) as stage:
        fill(stage)
        stage.commit()
    assert state(out) == before


def test_a_file_with_the_name_of_a_folder_stays(out):
    (out / "deep").write_text("a file")
    before = state(out)
    with pytest.raises(ExportError, match="nothing was changed there"), Staging(out) as stage:
        fill(stage)
        stage.commit()
    assert state(out) == before


@posix
def test_links_are_replaced_not_followed_and_come_back(out, monkeypatch):
    (out / "target").write_text("elsewhere")
    (out / "model.onnx").unlink()
    (out / "model.onnx").symlink_to("target")
    (out / "a.txt").symlink_to("nowhere")
    before = state(out)
    with pytest.raises(ExportError), monkeypatch.context() as patch, Staging(out) as stage:
        fill(stage)
        patch.setattr(Path, "replace", failing_at(Path.replace, 3))
        stage.commit()
    assert state(out) == before
    with Staging(out) as stage:
        fill(stage)
        stage.commit()
    assert state(out) == {**NEW, "target": "elsewhere"}


def failing_at(real: Callable[..., object], moment: int, error: Exception | None = None) -> Callable[..., object]:
    """`real`, but its call number `moment` (from 1) raises a full disk, or `error`."""
    calls = []

    def fake(*args: object, **names: object) -> object:
        calls.append(args)
        if len(calls) == moment:
            raise error or OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **names)

    return fake


MOMENTS = [("replace", moment) for moment in (1, 2, 3)] + [("mkdir", moment) for moment in (1, 2)]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(("name", "moment"), MOMENTS)
def test_an_error_at_any_step_of_the_move_puts_everything_back(out, monkeypatch, links, name, moment):
    with pytest.raises(ExportError) as caught, Staging(out) as stage:
        fill(stage)
        if not links:
            monkeypatch.setattr(os, "link", failing_at(os.link, 1))
        monkeypatch.setattr(Path, name, failing_at(getattr(Path, name), moment))
        stage.commit()
    assert str(caught.value).startswith(f"could not move the finished files into {out}: got [Errno 28] No space left on device; nothing")
    assert state(out) == OLD


def test_no_room_for_the_folder_of_old_files(out, monkeypatch):
    with pytest.raises(ExportError, match="nothing was changed there"), Staging(out) as stage:
        fill(stage)
        monkeypatch.setattr(staging.tempfile, "mkdtemp", failing_at(staging.tempfile.mkdtemp, 1))
        stage.commit()
    assert state(out) == OLD


def test_where_there_are_no_links_files_are_moved_aside(out, monkeypatch):
    monkeypatch.setattr(os, "link", failing_at(os.link, 1, NotImplementedError()))
    with Staging(out) as stage:
        fill(stage)
        stage.commit()
    assert state(out) == NEW


def test_old_files_that_cannot_be_put_back_are_kept_and_named(out, monkeypatch):
    real = Path.replace

    def broken(self: Path, target: Path) -> Path:
        if Path(target) == out / "model.onnx":
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(os, "link", failing_at(os.link, 1))
    with pytest.raises(ExportError, match=r"could not put back .*model\.onnx: got a second error .* were are in"), Staging(out) as stage:
        fill(stage)
        monkeypatch.setattr(Path, "replace", broken)
        stage.commit()
    kept = [path for path in out.rglob("*") if path.is_file() and path.read_text() == "old model"]
    assert len(kept) == 1
    assert kept[0].parent.name.startswith(".occport-replaced-")


def arriving_at(real: Callable[..., object], number: int, moment: int) -> Callable[..., object]:
    """`real`, but before its call number `moment` the process gets signal `number`."""
    calls = []

    def fake(*args: object, **names: object) -> object:
        calls.append(args)
        if len(calls) == moment:
            signal.raise_signal(number)
        return real(*args, **names)

    return fake


@posix
@pytest.mark.parametrize(("name", "moment"), MOMENTS)
def test_ctrl_c_during_the_move_waits_until_all_is_moved(out, monkeypatch, name, moment):
    with pytest.raises(KeyboardInterrupt), Staging(out) as stage:
        fill(stage)
        monkeypatch.setattr(Path, name, arriving_at(getattr(Path, name), signal.SIGINT, moment))
        stage.commit()
    assert state(out) == NEW
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@posix
def test_ctrl_c_during_the_clean_up_waits_until_all_is_clean(tmp_path, monkeypatch):
    monkeypatch.setattr(staging.shutil, "rmtree", arriving_at(staging.shutil.rmtree, signal.SIGINT, 1))
    with pytest.raises(KeyboardInterrupt), Staging(tmp_path / "new") as stage:
        fill(stage)
    assert state(tmp_path) == {}


@posix
def test_ctrl_c_while_the_folder_is_made_leaves_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", arriving_at(Path.mkdir, signal.SIGINT, 2))
    stage = Staging(tmp_path / "a" / "b")
    with pytest.raises(KeyboardInterrupt):
        stage.__enter__()
    assert state(tmp_path) == {}


@posix
def test_ctrl_c_before_the_first_line_of_the_exit_is_made_up_for(tmp_path):
    stage = Staging(tmp_path / "new").__enter__()
    fill(stage)
    del stage  # as when __exit__ is entered and interrupted at once
    assert state(tmp_path) == {}


def test_from_another_thread(out):
    def work() -> None:
        with Staging(out) as stage:
            fill(stage)
            stage.commit()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert state(out) == NEW


CHILD = """
import os, signal, sys, threading
from pathlib import Path
from occport.staging import Staging, terminate_as_interrupt

folder, number, moment, busy = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "busy"
terminate_as_interrupt()
if busy:  # a thread that would take the signal, as those of torch and ONNX Runtime do
    threading.Thread(target=threading.Event().wait, daemon=True).start()
calls = 0
def watch(event, args):
    # Audit events mark every step on files, inside and outside of the held sections.
    global calls
    if event in ("os.mkdir", "os.rename", "os.link", "os.rmdir", "os.remove", "open", "shutil.rmtree", "tempfile.mkdtemp"):
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), number)
sys.addaudithook(watch)
with Staging(folder) as stage:
    (stage.path / "sub").mkdir()
    (stage.path / "sub" / "b.txt").write_text("b")
    (stage.path / "model.onnx").write_text("new model")
    stage.commit()
sys.addaudithook(lambda event, args: None)
sys.stdout.write(str(calls))
"""


def child(folder: Path, number: int, moment: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(folder), str(int(number)), str(moment), "busy" if moment % 2 else "alone"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_real_signal_at_any_step_leaves_all_or_nothing(tmp_path, number):
    before = {"model.onnx": "old model"}
    after = {"model.onnx": "new model", "sub": "(folder)", "sub/b.txt": "b"}

    def fresh(name: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text("old model")
        return tmp_path / name

    whole = child(fresh("whole"), number, 0)
    assert state(tmp_path / "whole") == after
    steps = int(whole.stdout)
    assert steps >= 10
    seen = set()
    for moment in range(1, steps + 1, 2 if number == signal.SIGINT else 5):
        folder = fresh(str(moment))
        ended = child(folder, number, moment)
        assert ended.returncode != 0
        assert state(folder) in (before, after), (moment, ended.stderr)
        seen.add(state(folder) == after)
    assert seen == {True, False}


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_terminate_as_interrupt(number, status):
    before = signal.getsignal(number)
    try:
        signal.signal(number, signal.SIG_DFL)
        terminate_as_interrupt()
        with pytest.raises(Terminated) as caught:
            signal.raise_signal(number)
        assert caught.value.exit_status == status
        assert isinstance(caught.value, KeyboardInterrupt)
        assert str(caught.value) == f"ended by {signal.Signals(number).name}"
        signal.signal(number, signal.SIG_IGN)
        terminate_as_interrupt()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@posix
def test_a_signal_that_is_ignored_stays_ignored(out):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with staging._signals_wait():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
def test_held_sections_nest_and_give_every_handler_back():
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    try:
        with staging._signals_wait():
            with staging._signals_wait():
                signal.raise_signal(signal.SIGTERM)
            assert arrived == []
        assert arrived == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert arrived == [signal.SIGTERM, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@posix
def test_a_signal_after_the_held_section_goes_to_the_handler_before():
    """As when Ctrl-C strikes while the handlers are being given back, one by one."""
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    try:
        hold = staging._Hold()
        hold.before[signal.SIGTERM] = signal.signal(signal.SIGTERM, hold)
        hold.active = False
        signal.raise_signal(signal.SIGTERM)
        assert (arrived, hold.arrived) == ([signal.SIGTERM], [])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_folder_of_an_earlier_run_is_read_and_others_refused(tmp_path):
    def read(folder):
        if not (folder / "mine").exists():
            raise UserError("x")
        return "read"

    assert earlier(tmp_path / "new", read, "earlier things") is None and earlier(tmp_path, read, "earlier things") is None
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ExportError, match="one of earlier things, got one with other files in it; choose another with -o"):
        earlier(tmp_path, read, "earlier things")
    with pytest.raises(ExportError, match="got a file"):
        earlier(tmp_path / "thesis.txt", read, "earlier things")
    (tmp_path / "mine").write_text("")
    assert earlier(tmp_path, read, "earlier things") == "read"
