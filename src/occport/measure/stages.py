"""The stages of a frame, and a clock that knows which of them a network in PyTorch is in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Which stage a module and all below it belong to; the longest path that fits decides. Nodes of an exported file are called after their
# module, with _ for the dots, so that the same table holds for them. A prepared network has its neck inside its backbone.
PATHS = (
    ("projection", "tables"),
    ("img_backbone", "backbone"),
    ("img_neck", "neck"),
    ("img_backbone.neck", "neck"),
    *((f"img_backbone.transfer.{i}", f"level {i}") for i in range(3)),
    *((f"pts_bbox_head.transfer_conv.{i}", f"level {i}") for i in range(3)),
    *((f"pts_bbox_head.transformer.{i}", f"level {i}") for i in range(3)),
    ("pts_bbox_head", "decoder"),
)
REST = "rest"  # what belongs to no module, and a runtime's own overhead
PREPROCESS, WHOLE = "preprocess", "whole"
STAGES = (PREPROCESS, "tables", "backbone", "neck", "level 0", "level 1", "level 2", "decoder", REST)

_PREFIXES = sorted(((path.replace(".", "_") + "_", stage) for path, stage in PATHS), key=lambda pair: -len(pair[0]))


def stage_of_node(name: str) -> str:
    """The stage of a node of an exported file by its name; "" for a name that tells nothing."""
    return next((stage for prefix, stage in _PREFIXES if name.startswith(prefix)), "")


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
