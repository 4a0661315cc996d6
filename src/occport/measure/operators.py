"""Time and arithmetic by operator, of a network in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from .flops import of_call


@dataclass(frozen=True)
class Operator:
    """All calls of an operator in one frame.

    Attributes:
        name: as PyTorch ("aten.convolution") or ONNX Runtime ("Conv") calls it.
        calls: how many.
        seconds: of all calls.
        flops: of those calls whose arithmetic is known.
    """

    name: str
    calls: int
    seconds: float
    flops: int


class OperatorClock(TorchDispatchMode):
    """Times every operator that a network calls; for a `with` block around a forward without gradients.

    What an operator calls inside, as ours do, is its own time. A device is waited for after every call, so that a GPU, which would go
    on meanwhile, looks slower than it is.

    Args:
        synchronise: waits for the device.
        clock: seconds from any start.
    """

    def __init__(self, synchronise: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._synchronise, self._clock = synchronise, clock
        self._calls: list[Operator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begin = self._clock()
        out = func(*args, **(kwargs or {}))
        self._synchronise()
        seconds = self._clock() - begin
        self._calls.append(Operator(str(func.overloadpacket), 1, seconds, of_call(func, args, kwargs or {}, out)))
        return out

    def found(self) -> tuple[Operator, ...]:
        """The slowest first."""
        return summed(self._calls)


def summed(calls: Iterable[Operator], frames: int = 1) -> tuple[Operator, ...]:
    """Calls joined by name, the slowest first; of several frames the mean."""
    found: dict[str, Operator] = {}
    for call in calls:
        one = found.get(call.name, Operator(call.name, 0, 0.0, 0))
        found[call.name] = Operator(call.name, one.calls + call.calls, one.seconds + call.seconds, one.flops + call.flops)
    means = (Operator(each.name, each.calls // frames, each.seconds / frames, each.flops // frames) for each in found.values())
    return tuple(sorted(means, key=lambda each: -each.seconds))
