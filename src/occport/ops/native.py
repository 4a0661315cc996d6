"""The native kernels (`csrc/`): built when they are first needed, cached, and never required.

A C++ compiler (`CXX`, else g++, clang++ or c++) makes a shared library for this very machine, in a few seconds; `OCCPORT_CACHE`, else the
user's cache folder, keeps it. The file's name holds a hash of sources, flags and processor, one of the compiler and one of the file itself:
a library made for another machine, or one that was cut short, is never loaded. Without a compiler the operators run as plain PyTorch, with
the same results to rounding, and `status()` says why. `OCCPORT_KERNELS=off` switches the kernels off.

A kernel is a C function that takes pointers only and gives nothing back: `find().library.occport_columns_float(a.data_ptr(), …)`.
It uses the OpenMP runtime that PyTorch has loaded (a library of the same name is not loaded twice), so that both share one set of threads.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch  # before the kernels: its OpenMP runtime is the one they use

FOLDER = Path(__file__).with_name("csrc")
SOURCES = ("deform_conv.cpp", "group_norm.cpp", "msda.cpp")
# inf and nan keep their meaning: nothing of -ffast-math but that no one looks at errno and floating-point traps
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility-inlines-hidden", "-shared", "-fPIC")
EXTRAS = (("-march=native", "-fopenmp"), ("-march=native",), ("-fopenmp",), ())  # the first that the compiler takes
FUNCTIONS = {"occport_columns": 5, "occport_attention": 7, "occport_group_norm": 6}  # name without dtype → number of pointers
DTYPES = {"float": torch.float32, "bfloat16": torch.bfloat16}  # name's ending → dtype
_COMPILERS = ("g++", "clang++", "c++")
_OFF = ("off", "0", "no")
_BUILD_SECONDS = 300
_lock = threading.Lock()
_off_here: ContextVar[bool] = ContextVar("occport_kernels_off", default=False)


@dataclass(frozen=True)
class Found:
    """The library, or None; and what to say of it."""

    library: ctypes.CDLL | None
    reason: str


def find() -> Found:
    """The kernels of this process: loaded from the cache, or built, or absent. The machine is asked once, the switches each time."""
    if os.environ.get("OCCPORT_KERNELS", "").strip().lower() in _OFF:
        return Found(None, "switched off by OCCPORT_KERNELS")
    if _off_here.get():
        return Found(None, "switched off here")
    with _lock:
        return _find()


def status() -> str:
    """One line: whether the kernels run, and why not."""
    found = find()
    return found.reason if found.library else f"plain PyTorch operators, several times slower: {found.reason}"


@contextmanager
def switched_off() -> Iterator[None]:
    """The references run inside, in this thread; other threads keep the kernels."""
    token = _off_here.set(True)
    try:
        yield
    finally:
        _off_here.reset(token)


@cache
def _find() -> Found:
    try:
        command = _compiler()
        library, name = _cached(command) or _built(command)
    except subprocess.CalledProcessError as error:
        return Found(None, f"the C++ compiler failed ({shlex.join(error.cmd[:1])}): {_first_line(error.stderr)}")
    except subprocess.TimeoutExpired:
        return Found(None, f"the C++ compiler took more than {_BUILD_SECONDS} s")
    except (OSError, AttributeError) as error:
        return Found(None, " ".join(str(error).split()))
    threads = "" if ctypes.c_int.in_dll(library, "occport_threaded").value else ", one thread: the compiler has no OpenMP"
    return Found(library, f"native kernels ({name}{threads})")


def _compiler() -> list[str]:
    """The compiler's command; empty where there is none."""
    given = shlex.split(os.environ.get("CXX", ""))
    names = [given] if given else [[name] for name in _COMPILERS]
    return next(([path, *rest] for first, *rest in names if (path := shutil.which(first))), [])


def _cached(command: list[str]) -> tuple[ctypes.CDLL, str] | None:
    """A whole library of these sources and this machine. Without a compiler, any compiler's will do."""
    pattern = f"kernels-{_sources_key()}-{_compiler_key(command) if command else '*'}-*.so"
    folder = _cache_folder()
    for path in sorted(folder.glob(pattern)) if folder else ():
        try:
            if path.stem.endswith(_short_hash(path.read_bytes())):
                return _loaded(path), path.name
        except (OSError, AttributeError):
            continue
    return None


def _built(command: list[str]) -> tuple[ctypes.CDLL, str]:
    """Compiles, keeps the library in the cache where that can be written to, and loads it. Errors: as the compiler's and the loader's."""
    if not command:
        wanted = f"CXX is {os.environ['CXX']!r}" if os.environ.get("CXX", "").strip() else f"looked for {', '.join(_COMPILERS)}"
        raise FileNotFoundError(f"no C++ compiler ({wanted}); install one, or let CXX name it")
    with tempfile.TemporaryDirectory(prefix="occport-kernels-") as scratch:
        made = Path(scratch) / "kernels.so"
        _compile(command, made)
        name = f"kernels-{_sources_key()}-{_compiler_key(command)}-{_short_hash(made.read_bytes())}.so"
        kept = _keep(made, name)
        return _loaded(kept or made), name if kept else f"{name}, not kept: the cache folder cannot be written to"


def _compile(command: list[str], made: Path) -> None:
    for extra in EXTRAS:
        line = [*command, *FLAGS, *extra, *(str(FOLDER / name) for name in SOURCES), "-o", str(made)]
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=_BUILD_SECONDS, check=False)
        if done.returncode == 0:
            return
    raise subprocess.CalledProcessError(done.returncode, line, done.stdout, done.stderr)


def _keep(made: Path, name: str) -> Path | None:
    """Into the cache under a name of its own, then by one rename: whoever builds at the same time sees all of it or nothing."""
    folder = _cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, staged = tempfile.mkstemp(prefix=".kernels-", dir=folder)
    except OSError:
        return None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(made.read_bytes())
        Path(staged).chmod(0o755)
        return Path(staged).replace(folder / name)
    except OSError:
        Path(staged).unlink(missing_ok=True)
        return None


def _loaded(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for function, count in FUNCTIONS.items():
        for dtype in DTYPES:
            entry = getattr(library, f"{function}_{dtype}")
            entry.argtypes, entry.restype = [ctypes.c_void_p] * count, None
    return library


@cache
def _sources_key() -> str:
    """Sources, flags and processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processor = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    sources = b"".join(path.name.encode() + path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.is_file())
    return _short_hash(sources, repr((FLAGS, EXTRAS, platform.machine(), platform.system(), processor)).encode())


def _compiler_key(command: list[str]) -> str:
    """Another compiler, or a newer one in its place, makes a library of its own."""
    program = Path(command[0]).resolve()
    about = program.stat()
    return _short_hash(repr((str(program), about.st_size, about.st_mtime_ns, command[1:])).encode())[:8]


def _cache_folder() -> Path | None:
    """Where libraries are kept; None for a user who has no home."""
    chosen, caches = os.environ.get("OCCPORT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen)
    try:
        return (Path(caches) if caches else Path.home() / ".cache") / "occport"
    except RuntimeError:
        return None


def _short_hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()] or text.split("\n") or [""]
    return " ".join(lines[0].split())[:200] or "it said nothing"
