"""Memory of a process: its peak, and pages that are kept. In processes of their own: what the C library is told lasts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from occport import memory

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
FAULTS = """
import resource, ctypes
from occport import memory
{first}
def touch():
    block = bytearray(64 * 2**20)
    del block
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(text: str, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split()


@LINUX
def test_kept_pages_are_not_asked_for_again():
    kept, faults = run(FAULTS.format(first="kept = memory.keep_pages()"))
    if kept == "False":
        pytest.skip("this C library is not glibc")
    _, plain = run(FAULTS.format(first="kept = False"))
    assert int(faults) < int(plain) / 10


@LINUX
def test_a_block_with_the_usual_allocator():
    text = """
from contextlib import nullcontext
import resource
from occport import memory
def faults(context):
    with context:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            block = bytearray(64 * 2**20)
            del block
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
kept = memory.keep_pages()
faults(nullcontext())
before, usual = faults(nullcontext()), faults(memory.usual_pages())
faults(nullcontext())
print(kept, before, usual, faults(nullcontext()))
"""
    kept, before, usual, after = run(text)
    if kept == "False":
        pytest.skip("this C library is not glibc")
    assert int(before) < int(usual) / 10 and int(after) < int(usual) / 10


@LINUX
def test_a_users_own_settings_stay():
    assert run("from occport import memory; print(memory.keep_pages())", MALLOC_ARENA_MAX="1") == ["False"]


@LINUX
def test_peak_and_its_reset():
    text = """
from occport import memory
start = memory.peak_rss()
block = bytearray(b"x") * (128 * 2**20)
high = memory.peak_rss()
del block
print(start, high, memory.reset_peak_rss(), memory.peak_rss())
"""
    start, high, could, after = run(text)
    assert int(high) - int(start) > 120 * 2**20
    if could == "True":
        assert int(after) < int(high) - 100 * 2**20


def test_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no folder" / "none")
    assert memory.peak_rss() == 0
    assert memory.reset_peak_rss() is False


def test_another_c_library(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    assert memory.keep_pages() is False


GIVEN = """
from occport import memory
memory.keep_pages()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20
block = [bytearray(2**20) for _ in range(256)]
del block
held = resident()
memory.give_back()
print(held, resident())
"""


@LINUX
def test_what_is_free_can_be_given_back_at_once():
    held, left = map(int, run(GIVEN))
    if held < 256:
        pytest.skip("this C library does not keep pages")
    assert left < held - 200
