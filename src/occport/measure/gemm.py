"""How fast this machine multiplies matrices: what every other speed is held against.

PyTorch has two libraries for it on a CPU, one behind `torch.mm` and one behind convolutions, and which is faster depends on processor and
precision; the better one counts. The sizes are the network's own: its largest convolutions as products.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..model.prepared import DTYPES
from .stages import synchroniser

# six images of (h, w), K = channels x taps, output channels: the 3x3 convolutions of the backbone's stages 3 and 4
SIZES = (((58, 100), 2304, 256), ((29, 50), 4608, 512))
IMAGES = 6
_TIMES = 3


@dataclass(frozen=True)
class GemmSpeed:
    """The best that was reached: operations in a second, and how ("mm" or "1x1 convolution")."""

    precision: str
    flops: float
    how: str


def gemm_speed(precision: str, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> GemmSpeed:
    """Measures, with PyTorch's present number of threads; a second or two on two cores, fractions of it on more.

    Args:
        precision: one of `model.prepared.PRECISIONS`.
        device: where.
        clock: seconds from any start.
    """
    dtype, wait = DTYPES[precision], synchroniser(device)
    best = GemmSpeed(precision, 0.0, "")
    for (height, width), depth, out in SIZES:
        image = torch.rand(IMAGES, depth, height, width, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        weight = torch.rand(out, depth, 1, 1, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        rows = image.permute(0, 2, 3, 1).reshape(-1, depth)  # (A, K, h, w) → (A*h*w, K), no copy
        columns = weight.view(out, depth).t()  # (K, O)
        flops = 2 * rows.shape[0] * depth * out
        for how, run in (("mm", lambda: torch.mm(rows, columns)), ("1x1 convolution", lambda: F.conv2d(image, weight))):  # noqa: B023
            speed = flops / _least(run, wait, clock)
            if speed > best.flops:
                best = GemmSpeed(precision, speed, how)
    return best


def _least(run: Callable[[], torch.Tensor], wait: Callable[[], None], clock: Callable[[], float]) -> float:
    """Seconds of the fastest of a few runs, after one that does not count."""
    found = []
    with torch.no_grad():
        for _ in range(1 + _TIMES):
            wait()
            begin = clock()
            run()
            wait()
            found.append(clock() - begin)
    return max(min(found[1:]), 1e-9)
