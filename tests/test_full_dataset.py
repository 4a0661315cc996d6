"""200 synthetic frames through the micro network: one process, two Ray workers of which one is killed, and a run killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exporting import MICRO, ROOT, run_cli

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("ray")]
FRAMES = 200


def predict(dataset: Path, results: Path, *more: str) -> subprocess.Popen[bytes]:
    """`occport predict` as a process of its own, with one thread for each network."""
    words = [sys.executable, "-m", "occport", "predict", str(dataset / "infos.pkl"), "--config", str(MICRO), "-o", str(results)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([*words, "--threads", "1", *more], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)


def wait_for(results: Path, count: int, run: subprocess.Popen[bytes]) -> None:
    """Until `count` frames are done."""
    while len(list(results.glob("*.npz"))) < count:
        assert run.poll() is None, "it ended too early"
        time.sleep(0.2)


def workers() -> list[int]:
    """The processes of Ray's pool that hold a network."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes() if folder.name.isdecimal() else b""
        except OSError:  # it has ended meanwhile
            continue
        if words.startswith(b"ray::") and b"Map" in words:
            found.append(int(folder.name))
    return found


def same(first: Path, second: Path) -> None:
    """Asserts that two folders hold the same frames, byte for byte."""
    names = sorted(path.name for path in first.iterdir() if path.suffix in (".npz", ".npy", ".ply"))
    assert len(names) == 3 * FRAMES and names == sorted(path.name for path in second.iterdir() if path.suffix in (".npz", ".npy", ".ply"))
    different = [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()]
    assert not different


def counted(dataset: Path, results: Path, place: Path, *more: str) -> dict[str, object]:
    """The scores of predictions, as the JSON has them."""
    ran = run_cli("evaluate", str(dataset / "infos.pkl"), "--predictions", str(results), "--json", str(place), *more)
    assert ran.status == 0, ran.err
    table = json.loads(place.read_text())
    assert table["frames"] == FRAMES
    return {key: table[key] for key in ("IoU", "mIoU", "classes", "frames")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("city") / "city"
    assert run_cli("synth", "-o", str(folder), "--frames", str(FRAMES), "--config", str(MICRO)).status == 0
    return folder


@pytest.fixture(scope="module")
def plain(dataset) -> Path:
    """What one process makes of it."""
    results = dataset.parent / "plain"
    assert predict(dataset, results).wait() == 0
    return results


def test_a_worker_that_is_killed_costs_no_frame(dataset, plain, tmp_path):
    pytest.importorskip("ray")
    results = tmp_path / "ray"
    run = predict(dataset, results, "--workers", "2")
    wait_for(results, FRAMES // 3, run)
    pids = workers()
    assert len(pids) == 2
    os.kill(pids[0], signal.SIGKILL)
    assert run.wait() == 0
    same(plain, results)
    one = counted(dataset, plain, tmp_path / "one.json")
    two = counted(dataset, results, tmp_path / "two.json", "--workers", "2")
    assert one == two


def test_a_killed_run_goes_on_where_it_was(dataset, plain, tmp_path):
    results = tmp_path / "resumed"
    run = predict(dataset, results)
    wait_for(results, FRAMES // 3, run)
    run.kill()
    run.wait()
    there = {path.name: path.stat().st_mtime_ns for path in results.glob("*.npz")}
    assert FRAMES // 3 <= len(there) < FRAMES
    assert predict(dataset, results, "--resume").wait() == 0
    same(plain, results)
    kept = [name for name, when in there.items() if (results / name).stat().st_mtime_ns == when]
    assert len(kept) >= len(there) - 1, "what was whole was not made again"
