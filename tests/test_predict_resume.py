"""Runs of `occport predict` that end early: what stays is whole, what is said, and what `--resume` makes of it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exporting import MICRO, ROOT, assert_refused, contents
from occport.staging import Terminated
from occport.voxels import files
from test_predict import FakeChoice, chosen, files_of, make_frames, names_in, predict, record

__all__ = ["chosen"]  # a fixture


def results(out: Path) -> dict[str, str]:
    """Every file with its SHA-256, but for the record, which has times in it."""
    return {name: digest for name, digest in contents(out).items() if name != "predictions.json"}


def test_the_same_network_again_replaces_file_by_file(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 2), tmp_path / "out"
    assert predict(frames, out).status == 0
    before = contents(out)
    (out / "f00.npz").write_bytes(b"damaged")
    assert predict(frames, out).status == 0
    assert {**contents(out), "predictions.json": ""} == {**before, "predictions.json": ""}


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_results_of_another_network_are_left_alone(tmp_path, chosen, flags):
    frames, out = make_frames(tmp_path / "in", 2), tmp_path / "out"
    assert predict(frames, out).status == 0
    before = contents(out)
    chosen(FakeChoice("other"))
    line = assert_refused(predict(frames, out, *flags), "network.weights is 'abc' there, 'other' here")
    assert f"output folder {out}: expected results of the same network, or none" in line and contents(out) == before


def test_two_runs_do_not_write_into_one_folder(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    other = os.open(out, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    assert_refused(predict(frames, out), "expected no other run that writes into it, got one that is still going")
    os.close(other)
    assert predict(frames, out).status == 0


def test_resume_does_what_is_left(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 6), tmp_path / "out"
    assert predict(frames, out).status == 0
    before = results(out)
    damaged = out / "f01.npz"
    damaged.write_bytes(damaged.read_bytes()[:-30])  # as a disk might leave it
    flipped = bytearray((out / "f02.npz").read_bytes())
    flipped[100] ^= 1
    (out / "f02.npz").write_bytes(flipped)
    (out / "f03.npz").unlink()
    (out / "f04.ply").unlink()
    (out / f"{files._TEMPORARY}77-f05.npz").write_text("the first half")
    (out / ".occport-staging-x").mkdir()
    (out / ".occport-staging-x" / "predictions.json").write_text("{")
    (out / ".mine").touch()
    ages = {path.name: path.stat().st_mtime_ns for path in out.glob("f0*.npz")}
    ran = predict(frames, out, "--resume")
    assert ran.status == 0 and ran.out.splitlines()[-1] == f"{out}: 6 of 6 frames (2 were there already)"
    assert "[4/4] frames in" in ran.err
    made = [path.name for path in sorted(out.glob("f0*.npz")) if path.stat().st_mtime_ns != ages.get(path.name)]
    assert made == ["f01.npz", "f02.npz", "f03.npz", "f04.npz"]
    (out / ".mine").unlink()
    assert results(out) == before


def test_resume_with_nothing_to_do(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 2), tmp_path / "out"
    assert predict(frames, out, "--resume").status == 0  # the first time it is as without
    ran = predict(frames, out, "--resume")
    assert (ran.status, ran.lines, ran.out) == (0, [], f"{out}: 2 of 2 frames (2 were there already)\n")
    assert record(out)["frames"] == ["f00", "f01"]


def test_resume_tries_failed_frames_again(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 3), tmp_path / "out"
    (frames / "f01" / "CAM_BACK.png").rename(tmp_path / "kept.png")
    assert predict(frames, out).status == 1
    assert predict(frames, out, "--resume").status == 1
    (tmp_path / "kept.png").rename(frames / "f01" / "CAM_BACK.png")
    assert predict(frames, out, "--resume").status == 0
    assert names_in(out) == files_of("f00", "f01", "f02") and record(out)["failures"] == {}


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 143)])
def test_interrupted(tmp_path, chosen, stop, status):
    frames, out = make_frames(tmp_path / "in", 4), tmp_path / "out"
    chosen(FakeChoice(stop_at=3, stop=stop))
    ran = predict(frames, out)
    line = f"occport: interrupted; 2 of 4 frames are done and stay in {out}; the same command with --resume goes on"
    assert (ran.status, ran.lines, ran.out) == (status, [line], "")
    assert names_in(out) == files_of("f00", "f01") and record(out)["state"] == "stopped" and record(out)["frames"] == ["f00", "f01"]
    chosen(FakeChoice())
    assert predict(frames, out, "--resume").status == 0
    assert predict(frames, tmp_path / "whole").status == 0 and results(out) == results(tmp_path / "whole")
    assert {**record(out), "seconds": 0} == {**record(tmp_path / "whole"), "seconds": 0}


def test_interrupted_before_the_first_frame_was_done(tmp_path, chosen):
    chosen(FakeChoice(stop_at=1))
    ran = predict(make_frames(tmp_path / "in", 2), tmp_path / "out")
    assert (ran.status, ran.lines) == (130, ["occport: interrupted; no frame was done"])
    assert not (tmp_path / "out").exists()


def test_the_disk_is_full_in_the_middle(tmp_path, chosen, monkeypatch):
    """Going on would fail for every frame: the run stops, what is finished stays, nothing is half-written."""
    frames, out = make_frames(tmp_path / "in", 5), tmp_path / "out"
    plain = files._write_npz

    def write(file, occupancy):
        if occupancy.name == "f02":
            file.write(b"the first half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(file, occupancy)

    monkeypatch.setattr(files, "_write_npz", write)
    ran = predict(frames, out)
    line = assert_refused(ran, f"occport: writing f02 into {out}: got No space left on device; free some space")
    assert line.endswith(f"2 of 5 frames are done and stay in {out}; the same command with --resume goes on") and ran.out == ""
    assert names_in(out) == files_of("f00", "f01") and record(out)["frames"] == ["f00", "f01"]
    monkeypatch.setattr(files, "_write_npz", plain)
    ran = predict(frames, out, "--resume")
    assert ran.status == 0 and names_in(out) == files_of(*(f"f0{number}" for number in range(5)))


@pytest.mark.parametrize("at", ["running", "finished"])
def test_the_disk_is_full_for_the_record(tmp_path, chosen, monkeypatch, at):
    frames, out = make_frames(tmp_path / "in", 2), tmp_path / "out"
    plain = Path.write_text

    def write(self, text, encoding=None):
        if f'"state": "{at}"' in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, text, encoding=encoding)

    monkeypatch.setattr(Path, "write_text", write)
    assert_refused(predict(frames, out), "No space left on device")
    if at == "running":
        assert not out.exists()
    else:
        assert names_in(out) == files_of("f00", "f01") and record(out)["state"] == "running"


def test_a_bug_is_not_taken_for_bad_input(tmp_path, chosen):
    frames, out = make_frames(tmp_path / "in", 2), tmp_path / "out"
    chosen(FakeChoice(stop_at=2, stop=ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        predict(frames, out)
    assert names_in(out) == files_of("f00")


def test_killed_in_the_middle_and_resumed(tmp_path):
    """SIGKILL of the real command with the micro network; afterwards every file is as if nothing had happened."""
    frames, out = make_frames(tmp_path / "in", 10, 126, 224), tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}

    def command(folder: Path, *flags: str) -> list[str]:
        network = ["--config", str(MICRO), "--seed", "3"]
        return [sys.executable, "-m", "occport", "predict", str(frames), "-o", str(folder), *network, *flags]

    with subprocess.Popen(command(out), env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and len(list(out.glob("*.npz"))) < 3:
            time.sleep(0.01)
        process.kill()
        said = process.stderr.read().decode()
    assert process.returncode == -signal.SIGKILL, said
    done = sorted(out.glob("*.npz"))
    assert 3 <= len(done) < 10 and all(files.is_whole(path, (32, 40, 8)) for path in done)
    ages = {path: path.stat().st_mtime_ns for path in done}
    for folder, flags in ((out, ["--resume"]), (tmp_path / "whole", [])):
        ran = subprocess.run(command(folder, *flags), env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("UNTRAINED")
    assert {path: path.stat().st_mtime_ns for path in done} == ages  # not made again
    assert len(results(out)) == 30 and results(out) == results(tmp_path / "whole")
    assert {**record(out), "seconds": 0} == {**record(tmp_path / "whole"), "seconds": 0}
