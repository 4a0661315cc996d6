"""The native kernels under the address and undefined-behaviour sanitizers: wild inputs give them nothing to say, planted bugs do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from occport.ops import native

DRIVER = Path(__file__).with_name("native_driver.py")
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-Wno-psabi")
STRICT = ("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror")  # OpenMP has threads of its own, which sanitizers do not know
WIDTHS = [("-march=native",), ()]  # vectors of the machine's width, and of any machine's
KERNELS = {"columns": "deform_conv.cpp", "attention": "msda.cpp", "group_norm": "group_norm.cpp"}
PLANTED = {  # kernel, file, what stands there, what is put in its place, what is said
    "a row past the map": ("columns", "bilinear.hpp", "y0 + 1 < height && x0", "y0 < height && x0", "AddressSanitizer"),
    "infinity as a pixel": ("columns", "bilinear.hpp", "y < float(height) && ", "", "runtime error: "),
    "columns past the tile": ("columns", "deform_conv.cpp", "position < s.last;", "position <= s.last;", "AddressSanitizer"),
    "a corner below the map": ("attention", "msda.cpp", "(row < height - 1)", "(row < height)", "AddressSanitizer"),
    "past the volume": ("group_norm", "group_norm.cpp", "std::min(first + BLOCK, s", "std::max(first + BLOCK, s", "AddressSanitizer"),
}


def built(folder: Path, sources: Path, kernels: list[str], *flags: str) -> Path:
    """A library of some kernels, with sanitizers."""
    command = native._compiler()
    if not command:
        pytest.skip("no C++ compiler")
    made = folder / "sanitized.so"
    standing = ("-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
    line = [*command, *standing, *SANITIZERS, *flags, *(str(sources / KERNELS[name]) for name in kernels), "-o", str(made)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if ("sanitize" in done.stderr and "unrecognized" in done.stderr) or "cannot find" in done.stderr:
        pytest.skip("this C++ compiler has no address and undefined-behaviour sanitizers")
    assert done.returncode == 0, done.stderr
    return made


def driven(library: Path, kernels: list[str]) -> subprocess.CompletedProcess[str]:
    """The driver on a library; Python itself runs under the address sanitizer, so that it knows the bounds of every array."""
    asked = subprocess.run([*native._compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    runtime = Path(asked.stdout.strip())
    if not (runtime.is_absolute() and runtime.is_file()):
        pytest.skip("this C++ compiler has no address sanitizer that can be loaded into Python")
    setting = {"LD_PRELOAD": str(runtime), "ASAN_OPTIONS": "detect_leaks=0", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(DRIVER), str(library), "250", *kernels]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | setting, timeout=300)


@pytest.mark.parametrize("width", WIDTHS, ids=["native", "generic"])
def test_sanitizers_find_nothing(tmp_path: Path, width: tuple[str, ...]):
    assert sorted(KERNELS.values()) == sorted(native.SOURCES) and {f"occport_{name}" for name in KERNELS} == set(native.FUNCTIONS)
    done = driven(built(tmp_path, native.FOLDER, list(KERNELS), *width, *STRICT), list(KERNELS))
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout == f"{500 * len(KERNELS)} calls\n"


@pytest.mark.parametrize("bug", PLANTED)
def test_sanitizers_find_a_planted_bug(tmp_path: Path, bug: str):
    kernel, name, right, wrong, said = PLANTED[bug]
    sources = shutil.copytree(native.FOLDER, tmp_path / "csrc")
    text = (sources / name).read_text()
    assert text.count(right) == 1
    (sources / name).write_text(text.replace(right, wrong))
    done = driven(built(tmp_path, sources, [kernel]), [kernel])
    assert done.returncode and not done.stdout
    assert said in done.stderr and ("AddressSanitizer" not in said or f"occport_{kernel}_" in done.stderr), done.stderr[-2000:]
