"""The stages of a frame, and a clock that knows which of them a network in PyTorch is in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..graph.stages import PATHS, PLACES, REST

PREPROCESS, WHOLE = "preprocess", "whole"
STAGES = (PREPROCESS, *PLACES, REST)


class StageClock:
    """Shares the time of a forward among the stages; what a stage calls of another one counts for that one alone.

    Args:
        network: a SurroundOcc, prepared or not. It is called as always, inside `running`.
        synchronise: waits until the device has done what it was given; called before the clock is read.
        clock: seconds from any start, never backwards.
    """

    def __init__(
        self, network: nn.Module, synchronise: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._network, self._synchronise, self._clock = network, synchronise, clock
        self._open: list[str] = []
        self._seconds: dict[str, float] = {}
        self._since = 0.0

    @property
    def stage(self) -> str:
        """Where the network is now."""
        return self._open[-1] if self._open else REST

    @contextmanager
    def running(self) -> Iterator[dict[str, float]]:
        """For a `with` block around a forward. Yields the seconds of each stage, complete when the block has ended."""
        self._seconds, self._open = {}, [REST]
        modules = dict(self._network.named_modules())
        handles = []
        for path, stage in PATHS:
            if path in modules:
                handles.append(modules[path].register_forward_pre_hook(self._entering(stage)))
                handles.append(modules[path].register_forward_hook(self._leaving, always_call=True))
        self._synchronise()
        self._since = self._clock()
        try:
            yield self._seconds
        finally:
            for handle in handles:
                handle.remove()
            self._lap()

    def _entering(self, stage: str) -> Callable[[nn.Module, object], None]:
        def enter(module: nn.Module, inputs: object) -> None:
            self._lap()
            self._open.append(stage)

        return enter

    def _leaving(self, module: nn.Module, inputs: object, output: object) -> None:
        self._lap()
        self._open.pop()

    def _lap(self) -> None:
        self._synchronise()
        now = self._clock()
        self._seconds[self.stage] = self._seconds.get(self.stage, 0.0) + now - self._since
        self._since = now


def synchroniser(device: torch.device) -> Callable[[], None]:
    """A function that waits for the device; on the CPU there is nothing to wait for."""
    if device.type == "cpu":
        return lambda: None
    return lambda: torch.accelerator.synchronize(device)
