"""The speed of matrix products: the better of two libraries, the fastest of its runs."""

from __future__ import annotations

import pytest
import torch

from occport.measure import gemm


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gemm, "SIZES", (((2, 3), 8, 4),))


class Clock:
    """Two readings for each run; it tells when the runs had begun and ended."""

    def __init__(self, *durations: float) -> None:
        self._times = iter([time for seconds in durations for time in (0.0, seconds)])

    def __call__(self) -> float:
        return next(self._times)


FLOPS = 2 * (6 * 2 * 3) * 8 * 4


@pytest.mark.parametrize(("durations", "how"), [((9, 4, 2, 3, 9, 1, 5, 5), "1x1 convolution"), ((0.1, 0.5, 2, 2, 9, 1, 5, 5), "mm")])
def test_the_fastest_run_of_the_better_library(durations: tuple[float, ...], how: str):
    speed = gemm.gemm_speed("fp32", torch.device("cpu"), Clock(*durations))
    assert speed == gemm.GemmSpeed("fp32", FLOPS / min(durations[1:4] + durations[5:]), how), "the first run of each does not count"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_for_real(precision: str):
    speed = gemm.gemm_speed(precision, torch.device("cpu"))
    assert speed.precision == precision and speed.flops > 0 and speed.how in ("mm", "1x1 convolution")
