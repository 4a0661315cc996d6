"""Ray: the same outcomes as in one process, each exactly once, whatever dies. Ray is started as seldom as can be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray.data", reason="needs occport[ray]")

from occport.errors import UserError
from occport.use import ray_pool
from occport.use.ray_pool import MAX_DEADLY, TRIES, run_on_ray
from occport.use.work import Outcome, run_here
from ray_plans import CountingPlan, tasks

pytestmark = pytest.mark.xdist_group("ray")

@pytest.fixture(scope="module")
def here() -> Iterator[None]:
    """Ray, started once for the tests that use it."""
    ray_pool._check_installed()
    with ray_pool._connected(2, None):
        yield


def assert_same(got: list[Outcome], wanted: list[Outcome]) -> None:
    """Everything but the process."""
    assert sorted(outcome.number for outcome in got) == [outcome.number for outcome in wanted]
    for mine, other in zip(sorted(got, key=lambda outcome: outcome.number), wanted, strict=True):
        assert replace(mine, row={}) == replace(other, row={})
        assert mine.row.keys() == other.row.keys()
        for key in mine.row.keys() - {"process"}:
            assert type(mine.row[key]) is type(other.row[key])
            np.testing.assert_array_equal(mine.row[key], other.row[key])


def test_a_worker_that_dies_in_the_middle_costs_nothing(here, tmp_path) -> None:
    alone, there = tmp_path / "alone", tmp_path / "there"
    alone.mkdir()
    there.mkdir()
    (alone / "died_37").touch()  # nobody dies here
    wanted = list(run_here(CountingPlan(alone, deadly_once=(37,), damaged=(5, 150)), tasks(200)))
    got = list(run_on_ray(CountingPlan(there, deadly_once=(37,), damaged=(5, 150)), tasks(200), 2))
    assert_same(got, wanted)
    assert sum(outcome.row["counts"] for outcome in got if outcome.row).sum() == 198 * 8 * 9 * 5
    assert {outcome.number: outcome.error for outcome in got if outcome.error} == {
        5: "image of frame 5: got a text", 150: "image of frame 150: got a text",
    }  # fmt: skip
    assert (there / "died_37").exists()
    assert len({outcome.row["process"] for outcome in got if outcome.row}) == 3  # two, and who took the place of the one that died
    assert all((there / f"done_{number}").read_text() == "done\n" for number in range(200) if number not in (5, 150))


def test_a_frame_that_kills_every_process_is_reported_and_the_others_are_done(here) -> None:
    wanted = list(run_here(CountingPlan(), tasks(20)))
    got = list(run_on_ray(CountingPlan(deadly=(7,)), tasks(20), 2))
    assert [outcome.error for outcome in got if outcome.number == 7] == [
        f"its worker process died {TRIES} times; look whether memory is short, and try this frame with --workers 1",
    ]
    assert_same([outcome for outcome in got if outcome.number != 7], [outcome for outcome in wanted if outcome.number != 7])


def test_processes_that_always_die_end_the_run(here) -> None:
    with pytest.raises(UserError) as caught:
        list(run_on_ray(CountingPlan(dies_at_start=True), tasks(200), 2))
    got = f"got {MAX_DEADLY + 1} frames at each of which {TRIES} of them died"
    assert str(caught.value) == f"the workers: expected processes that live, {got}; look whether memory is short; fewer workers need less"


def test_a_plan_that_cannot_start(here) -> None:
    with pytest.raises(UserError) as caught:
        list(run_on_ray(CountingPlan(refused="no such file"), tasks(40), 2))
    assert str(caught.value) == "network: got no such file"


def test_threads_are_those_of_this_process(here, monkeypatch) -> None:
    """Ray would give each worker one; see the module's docstring."""
    handler, said = signal.getsignal(signal.SIGTERM), print
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (with_three,) = run_on_ray(CountingPlan(), tasks(1), 1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    (without,) = run_on_ray(CountingPlan(), tasks(1), 1)
    assert (with_three.row["threads"], without.row["threads"]) == ("3", None)
    assert without.row["folder"] == str(Path.cwd())  # relative paths mean the same
    assert signal.getsignal(signal.SIGTERM) is handler and print is said  # Ray takes both


def test_a_folder_that_a_machine_does_not_have(here, tmp_path, monkeypatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    real = ray_pool._dataset

    def removed(plan, some, workers):
        dataset = real(plan, some, workers)
        (tmp_path / "gone").rmdir()
        return dataset

    monkeypatch.setattr(ray_pool, "_dataset", removed)
    with pytest.raises(UserError) as caught:
        list(run_on_ray(CountingPlan(), tasks(2), 1))
    line = str(caught.value)
    assert line.startswith(f"folder {tmp_path / 'gone'} on ") and line.endswith("work in a folder of a shared file system")


def test_a_bug_in_a_worker_surfaces_with_its_traceback(here) -> None:
    """The last test of this Ray, which lets go of the workers only a while later."""
    with pytest.raises(ZeroDivisionError, match="a bug, planted") as caught:
        list(run_on_ray(CountingPlan(bug_at=11), tasks(40), 2))
    assert "ray_plans.py" in str(caught.value)


# A driver and its cluster know each other by a secret, which is read when Ray is imported: so both are processes of their own.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "the-cluster-of-the-tests-" * 2}
CLUSTER = """
import ray, sys
context = ray.init(address="local", num_cpus=2, object_store_memory=2**27, include_dashboard=False, log_to_driver=False)
print(context.address_info["address"], flush=True)
sys.stdin.read()
"""
DRIVER = """
import os, sys
sys.path.insert(0, {tests!r})
from ray_plans import CountingPlan, tasks
from occport.errors import UserError
from occport.use.ray_pool import run_on_ray
address = {address!r}
got = list(run_on_ray(CountingPlan(), tasks(6), 2, address))
assert sorted(outcome.number for outcome in got) == [0, 1, 2, 3, 4, 5]
assert all(outcome.row["folder"] == os.getcwd() for outcome in got)
for workers, where in ((99, address), (2, "127.0.0.1:1"), (2, "nonsense")):
    try:
        list(run_on_ray(CountingPlan(), tasks(200), workers, where))
    except UserError as error:
        print(error)
"""


def test_a_cluster(tmp_path) -> None:
    """One that was started elsewhere, in another folder; one that is too small; two that are not there."""
    search = os.pathsep.join([str(Path(ray_pool.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **TOKEN, "PYTHONPATH": search}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert cluster.stdin is not None and cluster.stdout is not None
    try:
        address = cluster.stdout.readline().strip()
        code = DRIVER.format(tests=str(Path(__file__).parent), address=address)
        driver = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=False)
    finally:
        cluster.stdin.close()
        cluster.wait(60)
    assert (driver.returncode, driver.stderr) == (0, "")
    small, dead, nonsense = driver.stdout.splitlines()
    assert small == f"the Ray cluster at {address}: expected a CPU for each of 99 workers, got 2 CPUs; take fewer workers"
    middle = "expected one that this machine belongs to, with the same versions of Python and Ray, got "
    end = "; see `ray status`; a cluster with a token wants it in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    for line, where in ((dead, "127.0.0.1:1"), (nonsense, "nonsense")):
        assert line.startswith(f"the Ray cluster at {where}: {middle}") and line.endswith(end)


INTERRUPTED = """
import sys
sys.path.insert(0, {tests!r})
from ray_plans import CountingPlan, tasks
from occport.staging import terminate_as_interrupt
from occport.use.ray_pool import run_on_ray
terminate_as_interrupt()
from contextlib import closing
from pathlib import Path
plan = CountingPlan(Path({marks!r}), deadly_once=(4,), slow=0.05)
try:
    with closing(run_on_ray(plan, tasks(2000), 2)) as stream:  # the signal may come in here as well as in there
        for count, outcome in enumerate(stream, 1):
            if count == 12:
                print(outcome.row["process"], flush=True)
except KeyboardInterrupt as stop:
    print(type(stop).__name__, count, flush=True)
"""


def test_on_this_machine_it_is_quiet_and_ends_when_it_is_told(tmp_path) -> None:
    """Ray started here, a process that dies, then SIGTERM: nothing of Ray on the terminal, none of its processes left."""
    code = INTERRUPTED.format(tests=str(Path(__file__).parent), marks=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout is not None
    worker = int(child.stdout.readline())
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=60)[0].split()
    assert child.returncode == 0, said
    assert said[0] == "Terminated" and 12 <= int(said[1]) < 2000 and len(said) == 2, said
    assert (tmp_path / "died_4").exists()
    for _ in range(100):
        if not Path(f"/proc/{worker}/stat").exists():
            break
        time.sleep(0.1)
    else:
        pytest.fail("a worker is still there")


@contextmanager
def _nothing(*arguments: object) -> Iterator[None]:
    yield


def test_doubles_are_dropped_and_what_is_missing_is_named(monkeypatch) -> None:
    came = [Outcome(number, f"frame_{number:03}") for number in (2, 0, 2, 1)]
    monkeypatch.setattr(ray_pool, "_connected", _nothing)
    monkeypatch.setattr(ray_pool, "_dataset", _nothing)
    monkeypatch.setattr(ray_pool, "_replies", lambda dataset: iter(came))
    assert [outcome.number for outcome in run_on_ray(CountingPlan(), tasks(3), 2)] == [2, 0, 1]
    stream = run_on_ray(CountingPlan(), tasks(9), 2)
    assert [next(stream).number for _ in range(3)] == [2, 0, 1]
    with pytest.raises(UserError) as caught:
        next(stream)
    names = "frame_003, frame_004, frame_005, frame_006, frame_007 and 1 more"
    assert str(caught.value) == f"6 of 9 frames: expected an outcome of each, got none of {names}; run these again"


def test_without_tasks_nothing_is_started_but_the_plan() -> None:
    assert list(run_on_ray(CountingPlan(), [], 2)) == []
    with pytest.raises(UserError, match="network: got no such file"):
        list(run_on_ray(CountingPlan(refused="no such file"), [], 2))


def test_without_ray(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(UserError, match=r"several workers: expected ray with ray.data, got .*; pip install 'occport\[ray\]'"):
        list(run_on_ray(CountingPlan(), tasks(2), 2))


def test_the_tally_forgets_who_came_back() -> None:
    tally = ray_pool._Tally()
    assert tally.begin(5) == (0, 0)
    tally.end(5)
    assert [tally.begin(5) for _ in range(TRIES)] == [(died, 0) for died in range(TRIES)]
    assert tally.begin(5) == (TRIES, 1)
    assert tally.begin(6) == (0, 1)
