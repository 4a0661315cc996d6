"""The native kernels are built once, kept, never trusted when damaged, and never required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from occport.ops import native
from occport.ops.deform_conv import deform_conv2d, reference

Compiler = Callable[[str], Path]


def call_log(compiler: Path) -> list[str]:
    """One line for each time that the compiler ran."""
    log = compiler.with_suffix(".log")
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> Path:
    """A real library."""
    command = native._compiler()
    if not command:
        pytest.skip("no C++ compiler")
    made = tmp_path_factory.mktemp("native") / "ready.so"
    native._compile(command, made)
    return made


@pytest.fixture
def compiler(ready: Path, tmp_path: Path, monkeypatch) -> Compiler:
    """Makes CXX a script that keeps a log and then runs some lines of shell; $ready is a library, $made where it is wanted."""

    def write(lines: str) -> Path:
        script = tmp_path / "compiler"
        begin = f'#!/bin/sh\necho "$@" >> {script}.log\nready={ready}\nfor made; do :; done\n'
        script.write_text(begin + lines)
        script.chmod(0o755)
        monkeypatch.setenv("CXX", str(script))
        return script

    return write


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch):
    """An empty cache, and a process that has not looked for kernels yet."""
    monkeypatch.setenv("OCCPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OCCPORT_KERNELS", raising=False)
    native._find.cache_clear()
    yield tmp_path / "cache"
    native._find.cache_clear()


def again() -> native.Found:
    """What a new process would find."""
    native._find.cache_clear()
    return native.find()


def right() -> bool:
    """The operator gives what its reference gives."""
    torch.manual_seed(0)
    tensors = (torch.randn(1, 2, 4, 5), torch.randn(1, 18, 4, 5), torch.rand(1, 9, 4, 5), torch.randn(3, 2, 3, 3), None)
    attributes = ([1, 1], [1, 1], [1, 1], 1, 1)
    return torch.allclose(deform_conv2d(*tensors, *attributes), reference(*tensors, *attributes), atol=1e-5)


def test_built_once_then_kept(compiler: Compiler, cache_folder: Path):
    script = compiler("cp $ready $made")
    found = native.find()
    assert found.library is not None and len(call_log(script)) == 1 and right()
    (kept,) = cache_folder.iterdir()
    assert native.status() == found.reason == f"native kernels ({kept.name})"
    assert native.find() is found and again().library is not None and len(call_log(script)) == 1


def test_another_compiler_makes_its_own_and_none_takes_any(compiler: Compiler, cache_folder: Path, monkeypatch):
    compiler("cp $ready $made")
    assert native.find().library is not None
    script = compiler("cp $ready $made # newer")
    assert again().library is not None and len(call_log(script)) == 2 and len(list(cache_folder.iterdir())) == 2
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert again().library is not None


def test_other_sources_make_their_own(compiler: Compiler, tmp_path: Path, monkeypatch):
    script = compiler("cp $ready $made")
    assert native.find().library is not None
    changed = shutil.copytree(native.FOLDER, tmp_path / "csrc")
    (changed / "msda.cpp").write_text((changed / "msda.cpp").read_text() + "// changed\n")
    monkeypatch.setattr(native, "FOLDER", changed)
    native._sources_key.cache_clear()
    assert again().library is not None and len(call_log(script)) == 2
    native._sources_key.cache_clear()


@pytest.mark.parametrize("damage", ["cut short", "empty", "changed"])
def test_a_damaged_library_is_built_again(compiler: Compiler, cache_folder: Path, damage: str):
    script = compiler("cp $ready $made")
    assert native.find().library is not None
    (kept,) = cache_folder.iterdir()
    whole = kept.read_bytes()
    other = kept.with_name(".other")  # a new file: the old one is still mapped by this process
    other.write_bytes({"cut short": whole[:5000], "empty": b"", "changed": whole[:-1] + b"!"}[damage])
    other.replace(kept)
    assert again().library is not None and len(call_log(script)) == 2 and right()
    assert [path.read_bytes() for path in cache_folder.iterdir()] == [whole]


def test_a_library_that_cannot_be_loaded_is_built_again(compiler: Compiler, cache_folder: Path):
    script = compiler('echo "not a library" > $made')
    found = native.find()
    assert found.library is None and found.reason
    compiler("cp $ready $made")
    os.utime(script, ns=(0, 0))
    assert again().library is not None and len(call_log(script)) == 2 and right()


@pytest.mark.parametrize("cxx", ["no-such-compiler", "no-such-compiler -O1"])
def test_a_compiler_that_is_not_there(cxx: str, monkeypatch):
    monkeypatch.setenv("CXX", cxx)
    assert native.find().library is None and right()
    assert native.status() == (
        f"plain PyTorch operators, several times slower: no C++ compiler (CXX is {cxx!r}); install one, or let CXX name it"
    )


def test_no_compiler_at_all(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert native.find().reason == "no C++ compiler (looked for g++, clang++, c++); install one, or let CXX name it"


def test_a_compiler_that_fails(compiler: Compiler, cache_folder: Path):
    script = compiler('echo "in file x:" >&2; echo "x.cpp:1: error: no   such thing" >&2; exit 1')
    assert native.find() == native.Found(None, f"the C++ compiler failed ({script}): x.cpp:1: error: no such thing")
    assert len(call_log(script)) == len(native.EXTRAS) and not cache_folder.exists() and right()


def test_a_compiler_that_fails_in_silence(compiler: Compiler):
    script = compiler("exit 1")
    assert native.find().reason == f"the C++ compiler failed ({script}): it said nothing"


def test_a_compiler_that_hangs(compiler: Compiler, monkeypatch):
    monkeypatch.setattr(native, "_BUILD_SECONDS", 0.2)
    compiler("exec sleep 60")
    assert native.find() == native.Found(None, "the C++ compiler took more than 0.2 s")


def test_without_openmp_it_is_built_all_the_same(compiler: Compiler):
    real = " ".join(native._compiler())
    script = compiler(f'for flag; do [ "$flag" = -fopenmp ] && exit 1; done\nexec {real} "$@"')
    assert native.find().library is not None and len(call_log(script)) == 2 and right()
    assert native.status().endswith(", one thread: the compiler has no OpenMP)")


@pytest.mark.parametrize("how", ["a file in its place", "no home"])
def test_a_cache_that_cannot_be_written_to(how: str, compiler: Compiler, cache_folder: Path, tmp_path: Path, monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "scratch").mkdir()
    compiler("cp $ready $made")
    with monkeypatch.context() as patch:  # PyTorch asks for a home as well, at an operator's first call
        patch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
        if how == "no home":
            for name in ("OCCPORT_CACHE", "XDG_CACHE_HOME"):
                patch.delenv(name, raising=False)
            patch.setattr(Path, "home", homeless)
        else:
            cache_folder.write_text("in the way")
        found = native.find()
    assert found.library is not None and right()
    assert found.reason.endswith(".so, not kept: the cache folder cannot be written to)")
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("word", ["off", "OFF", "0", "no", " off "])
def test_switched_off_by_the_user(word: str, compiler: Compiler, monkeypatch):
    script = compiler("cp $ready $made")
    monkeypatch.setenv("OCCPORT_KERNELS", word)
    assert native.find() == native.Found(None, "switched off by OCCPORT_KERNELS") and right()
    assert native.status() == "plain PyTorch operators, several times slower: switched off by OCCPORT_KERNELS"
    assert not call_log(script)


def test_switched_off_in_one_thread_for_a_while(compiler: Compiler):
    compiler("cp $ready $made")
    elsewhere: list[native.Found] = []
    with pytest.raises(KeyError), native.switched_off():
        assert native.find() == native.Found(None, "switched off here") and right()
        with native.switched_off():
            pass
        assert native.find().library is None
        other = threading.Thread(target=lambda: elsewhere.append(native.find()))
        other.start()
        other.join()
        raise KeyError
    assert elsewhere[0].library is not None and native.find() is elsewhere[0]


ASK = "from occport.ops import native; print(native.status())"
MAPS = "; print({line.split('/')[-1].strip() for line in open('/proc/self/maps') if 'omp' in line.split('/')[-1]})"


def test_many_processes_at_once(compiler: Compiler, cache_folder: Path):
    script = compiler("sleep 1; cp $ready $made")
    running = [subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=120)[0] for process in running}
    (kept,) = cache_folder.iterdir()
    assert said == {f"native kernels ({kept.name})\n"} and 1 <= len(call_log(script)) <= 3


def test_importing_builds_nothing_and_one_openmp_is_loaded(compiler: Compiler, cache_folder: Path):
    script = compiler("cp $ready $made")
    program = f"import os, occport.ops.deform_conv, occport.ops.msda; print(os.path.exists({str(cache_folder)!r})); {ASK}{MAPS}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    before, status, runtimes = done.stdout.splitlines()
    assert before == "False" and status.startswith("native kernels (") and len(call_log(script)) == 1
    if "libgomp.so.1" not in runtimes:
        pytest.skip(f"PyTorch is built with another OpenMP runtime: {runtimes}")
    assert runtimes == "{'libgomp.so.1'}"


def test_no_symbol_but_ours_is_to_be_seen(ready: Path):
    program = shutil.which("nm")
    if program is None:
        pytest.skip("no nm")
    listed = subprocess.run([program, "-D", "--defined-only", str(ready)], capture_output=True, text=True, check=True).stdout
    wanted = {f"{function}_{dtype}" for function in native.FUNCTIONS for dtype in native.DTYPES} | {"occport_threaded"}
    assert {line.split()[-1] for line in listed.splitlines()} == wanted
