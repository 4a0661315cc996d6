"""The native kernels on wild inputs, each array exactly as long as it must be; NumPy only, so that it runs under the address sanitizer.

As a program, which prints how many calls it made:

    python native_driver.py LIBRARY CALLS KERNEL...
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

WILD = np.array([0, -0.5, -1, 1e9, -1e9, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)
UNTOUCHED = {"float": (np.float32, 77.0), "bfloat16": (np.uint16, 0x1234)}  # dtype in NumPy, and a value that no kernel writes


def call(library: ctypes.CDLL, name: str, *arrays: np.ndarray) -> None:
    """One kernel, by the addresses of its arrays."""
    function = getattr(library, name)
    function.restype = None
    function(*(ctypes.c_void_p(array.ctypes.data) for array in arrays))


def values(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    """Numbers between 1/2 and 1, as the kernel has them."""
    numbers = rng.uniform(0.5, 1, shape).astype(np.float32)
    return numbers if dtype == "float" else (numbers.view(np.uint32) >> 16).astype(np.uint16)


def positions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Offsets: near, far, or no numbers."""
    near = rng.normal(0, 3, shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.3, rng.choice(WILD, shape), near)


def numbers(*found: int) -> np.ndarray:
    return np.array(found, np.int64)


def strides(array: np.ndarray) -> list[int]:
    return [step // array.itemsize for step in array.strides]


def run_columns(library: ctypes.CDLL, rng: np.random.Generator, dtype: str) -> None:
    """One tile of columns, at any place in a small map."""
    kernel, step, gap, groups = rng.integers(1, 4, 2), rng.integers(1, 3, 2), rng.integers(1, 3, 2), rng.integers(1, 4, 2)
    pad, hw = rng.integers(0, 3, 2), rng.integers(1, 5, 2)
    hw = np.maximum(hw, gap * (kernel - 1) + 1 - 2 * pad)
    out_hw = (hw + 2 * pad - gap * (kernel - 1) - 1) // step + 1
    channels, taps = int(np.lcm(*groups) * rng.choice([1, 2, 5, 16, 17])), int(kernel.prod())
    first = int(rng.integers(0, out_hw.prod()))
    last = int(rng.integers(first, out_hw.prod() + 1))
    offset, mask = positions(rng, groups[1] * taps * 2, *out_hw), positions(rng, groups[1] * taps, *out_hw)
    if rng.random() < 0.5:  # channels last
        offset, mask = (np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1) for array in (offset, mask))
    kind, mark = UNTOUCHED[dtype]
    out = np.full((last - first, taps * channels), mark, kind)
    sizes = numbers(*hw, channels, out_hw[1], *kernel, *step, *pad, *gap, *groups, first, last, 1, *strides(offset), *strides(mask))
    call(library, f"occport_columns_{dtype}", values(rng, dtype, *hw, channels), offset, mask, out, sizes)
    if (out == mark).any():
        raise AssertionError(f"columns left out, sizes {sizes.tolist()}")


def run_attention(library: ctypes.CDLL, rng: np.random.Generator, dtype: str) -> None:
    """One call with a few queries; offsets and logits with or without a gap between queries."""
    A, M, L, P = (int(size) for size in rng.integers(1, 4, 4))
    Q, D = int(rng.integers(1, 20)), int(rng.choice([1, 2, 3, 7, 16, 17, 31, 33, 64, 130]))
    shapes = rng.integers(1, 5, (L, 2))
    S = int(shapes.prod(1).sum())
    gap = int(rng.integers(0, 2))
    offsets, logits = positions(rng, A, Q, (M * L * P + gap) * 2), rng.normal(0, 2, (A, Q, M * L * P + gap)).astype(np.float32)
    kind, mark = UNTOUCHED[dtype]
    out = np.full((A, Q, M * D), mark, kind)
    steps = [*strides(offsets)[:2], *strides(logits)[:2]]
    if gap:  # the last query has no gap behind it
        offsets, logits = offsets.ravel()[: -2 * gap].copy(), logits.ravel()[:-gap].copy()
    sizes = numbers(A, S, M, D, Q, L, P, 1, *steps)
    reference = positions(rng, A, Q, L, 2) / 3
    given = (values(rng, dtype, A, S, M, D), shapes, reference, offsets, logits)
    call(library, f"occport_attention_{dtype}", *given, out, sizes)
    if (out == mark).any():
        raise AssertionError(f"outputs left out, sizes {sizes.tolist()}")


def run_group_norm(library: ctypes.CDLL, rng: np.random.Generator, dtype: str) -> None:
    """One call on a few positions or on more than a block of them."""
    B, G, threads = (int(size) for size in rng.integers(1, 4, 3))
    P, C = int(rng.choice([1, 2, 255, 256, 257, 600])), G * int(rng.choice([1, 2, 5, 16, 17]))
    weight, bias = positions(rng, C), positions(rng, C)
    out = np.full((B, P, C), -1, np.float32)  # after a ReLU nothing is negative
    sizes = numbers(B, P, C, G, threads, 10**7)
    call(library, f"occport_group_norm_{dtype}", values(rng, dtype, B, P, C), weight, bias, out, np.empty((threads, 2, C)), sizes)
    if (out == -1).any():
        raise AssertionError(f"outputs left out, sizes {sizes.tolist()}")


KERNELS = {"columns": run_columns, "attention": run_attention, "group_norm": run_group_norm}

if __name__ == "__main__":
    LIBRARY, CALLS, WANTED = ctypes.CDLL(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    for SEED in range(CALLS):
        for NAME in WANTED:
            for DTYPE in UNTOUCHED:
                KERNELS[NAME](LIBRARY, np.random.default_rng(SEED), DTYPE)
    print(CALLS * len(WANTED) * len(UNTOUCHED), "calls")
