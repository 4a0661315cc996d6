"""Memory of this process: how much it took at most, and an allocator that keeps the pages it was given.

A frame's activations are hundreds of megabytes each. glibc gives such blocks back to the kernel at once and asks for fresh pages for the
next one; the kernel then clears every page, which takes a good part of a frame's time. `keep_pages` makes it keep them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# parameters of glibc's mallopt, which takes ints
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
# glibc's own, as its moving thresholds stand once large blocks have been freed
_USUAL = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 2**10}
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def keep_pages() -> bool:
    """Lets the C library keep freed memory for the next allocation, for the rest of the process. Returns whether it does.

    Only glibc knows how; elsewhere, and where the user has set one of its `MALLOC_…` variables, nothing changes.
    """
    return _set(_KEPT)


@contextmanager
def usual_pages() -> Iterator[None]:
    """For a `with` block in a process that keeps its pages: the C library as it is by itself, to measure against."""
    _set(_USUAL)
    try:
        yield
    finally:
        _set(_KEPT)


def give_back() -> None:
    """Hands what is free to the system after all, once something large is done for good and something else follows."""
    with suppress(OSError, AttributeError, TypeError):  # as in `_set`
        ctypes.CDLL(None).malloc_trim(0)


def _set(values: Mapping[int, int]) -> bool:
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # a static program, another C library, Windows
        return False
    done = [mallopt(parameter, value) for parameter, value in values.items()]  # every one, whatever becomes of the first
    return all(done)


def peak_rss() -> int:
    """Bytes of memory that this process has held at most since its start, or since `reset_peak_rss`; 0 where the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def reset_peak_rss() -> bool:
    """Makes the peak what is held now. Returns whether the system lets us."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
