"""How many bytes of activations are alive at once, when the nodes run in graph order and nothing is kept that nobody reads any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnx import GraphProto

from ...graph.stages import first_output
from .work import VIEWS


@dataclass(frozen=True)
class Peak:
    """The node while which the most is alive.

    Attributes:
        total: bytes, inputs and outputs of the file included, weights not.
        node: its name, or that of its first output where it has none.
        tensors: (name, bytes) of what is alive then, the largest first.
    """

    total: int
    node: str
    tensors: tuple[tuple[str, int], ...]


class Liveness:
    """Which buffers are alive while each node runs.

    Args:
        graph: the nodes.
        sizes: bytes of each activation; constants and weights have no entry. An input counts from the start until it was last read, an
            output until the end. What a view gives (Reshape ...) is the buffer that it reads.
    """

    def __init__(self, graph: GraphProto, sizes: Mapping[str, int]) -> None:
        self._sizes, self._names = sizes, [node.name or first_output(node) for node in graph.node]
        self.buffer: dict[str, str] = {name: name for name in sizes}  # tensor → whose bytes it is
        outputs = {info.name for info in graph.output}
        for node in graph.node:
            if node.op_type in VIEWS and node.input and node.input[0] in self.buffer:
                self.buffer[first_output(node)] = self.buffer[node.input[0]]
        first_inputs = [info.name for info in graph.input if info.name in sizes]
        first = dict.fromkeys(first_inputs, 0)
        last: dict[str, int] = dict(first)
        for i, node in enumerate(graph.node):
            for name in (*node.input, *node.output):
                if name in self.buffer:
                    first.setdefault(self.buffer[name], i)
                    last[self.buffer[name]] = i
        # buffers of inputs and outputs of the file
        self.given = frozenset(self.buffer[name] for name in (*first_inputs, *outputs) if name in self.buffer)
        last.update({self.buffer[name]: len(graph.node) - 1 for name in outputs if name in self.buffer})
        self.spans: dict[str, tuple[int, int]] = {name: (begin, last[name]) for name, begin in first.items()}
        self.totals = self._totals(self.spans)

    def _totals(self, buffers: Collection[str]) -> list[int]:
        """Bytes of some buffers that are alive while each node runs."""
        changes = [0] * (len(self._names) + 1)
        for name in buffers:
            begin, end = self.spans[name]
            changes[begin] += self._sizes[name]
            changes[end + 1] -= self._sizes[name]
        totals, total = [], 0
        for change in changes[:-1]:
            total += change
            totals.append(total)
        return totals

    def peak(self) -> Peak:
        """Where the most is alive."""
        if not self.totals:
            return Peak(0, "", ())
        place = max(range(len(self.totals)), key=lambda i: self.totals[i])
        alive = [(name, self._sizes[name]) for name, (begin, end) in self.spans.items() if begin <= place <= end]
        return Peak(self.totals[place], self._names[place], tuple(sorted(alive, key=lambda pair: (-pair[1], pair[0]))))

    def size(self, name: str) -> int:
        """Bytes of a buffer."""
        return self._sizes[name]

    def fitting(self, room: float, scale: Mapping[str, float] | None = None) -> set[str]:
        """Buffers that stay in a memory of `room` bytes: short-lived ones first, each only where it fits as long as it lives. Inputs and
        outputs of the file are none of them: they come from outside and go there.

        Args:
            scale: buffer → factor of its bytes, for other dtypes than the file's.
        """
        used = [0.0] * len(self._names)
        held: set[str] = set()
        for name in sorted(self.spans.keys() - self.given, key=lambda name: (self._length(name), self._sizes[name], name)):
            begin, end = self.spans[name]
            size = self._sizes[name] * (scale or {}).get(name, 1.0)
            if all(total + size <= room for total in used[begin : end + 1]):
                held.add(name)
                used[begin : end + 1] = [total + size for total in used[begin : end + 1]]
        return held

    def _length(self, name: str) -> int:
        begin, end = self.spans[name]
        return end - begin


