"""Whether a 16-bit file is its float32 graph and nothing else.

A weight that is wrong by a tenth changes the logits by less than 16 bits do, so that no comparison of results would find it. But a file in
16 bits follows from a float32 graph by rules, and each can be held exactly, on the file as it was written: the same nodes in the same
order; between two nodes at most one Cast, and only where their types differ, so that nothing is rounded that its reader takes as float32;
weights rounded once, bit by bit; float32 wherever `plan.py` says so. What the float32 graph gives can then be compared as strictly as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..dialect import Dialect
from ..model_file import iter_initializers
from .plan import wide_nodes
from .types import LOW, PRECISIONS

_FLOATS = {TensorProto.FLOAT, *(kind.value for kind in LOW)}


@dataclass(frozen=True)
class Comparison:
    """What was compared, and what is wrong.

    Attributes:
        findings: a line for each thing that is wrong.
        nodes, wide: nodes, and those of them that keep float32.
        weights, numbers, flushed: weights that were rounded, their numbers, and how many of these became 0.
    """

    findings: tuple[str, ...]
    nodes: int
    wide: int
    weights: int
    numbers: int
    flushed: int

    @property
    def described(self) -> str:
        """One line."""
        rounded = f"{self.weights} weights of {self.numbers:,} numbers rounded once, {self.flushed:,} of them to 0"
        return f"{self.nodes} nodes one by one, {self.wide} of them in float32; {rounded}"


def compare_graphs(
    low: ModelProto, low_folder: Path, exact: ModelProto, exact_folder: Path, precision: str, dialect: Dialect
) -> Comparison:  # fmt: skip
    """Holds a 16-bit file against the float32 graph that it should come from, both as they were read from disk.

    Args:
        low, exact: skeletons; weights lie in their folders.
        precision: "fp16" or "bf16".
        dialect: of both.
    """
    return _Pair(low, low_folder, exact, exact_folder, precision, dialect).compared()


class _Pair:
    def __init__(
        self, low: ModelProto, low_folder: Path, exact: ModelProto, exact_folder: Path, precision: str, dialect: Dialect
    ) -> None:  # fmt: skip
        self._low, self._exact, self._precision = low, exact, PRECISIONS[precision]
        self._weights, self._wanted = _weights(low, low_folder), _weights(exact, exact_folder)
        self._types = _types(low)
        self._wide = {node.name for node in wide_nodes(ir.from_proto(exact), dialect, self._precision)}
        self._casts = {node.output[0]: node.input[0] for node in low.graph.node if self._is_ours(node)}
        self._origin = {info.name: info.name for info in low.graph.input}  # value of the file → of the float32 graph
        self._read: dict[tuple[str, str], None] = {}
        self._weights_seen = self._numbers = self._flushed = self._wide_seen = 0

    def _is_ours(self, node: NodeProto) -> bool:
        """A Cast between float32 and 16 bits: the float32 graph has none of them."""
        return node.op_type == "Cast" and not node.domain and {self._types.get(node.input[0]), self._types.get(node.output[0])} <= _FLOATS

    def compared(self) -> Comparison:
        findings: list[str] = []
        nodes = [node for node in self._low.graph.node if node.output[0] not in self._casts]
        if len(nodes) != len(self._exact.graph.node):
            findings.append(f"{len(nodes)} nodes beside casts, the float32 graph has {len(self._exact.graph.node)}")
        for mine, wanted in zip(nodes, self._exact.graph.node, strict=False):
            findings += self._of_node(mine, wanted)
        for mine, wanted in zip(self._low.graph.output, self._exact.graph.output, strict=False):
            if self._origin.get(self._root(mine.name)[0]) != wanted.name:
                findings.append(f"output {mine.name}: made of another value than in the float32 graph")
        for mine, wanted in self._read:
            findings += self._of_weight(mine, wanted)
        return Comparison(tuple(findings), len(nodes), self._wide_seen, self._weights_seen, self._numbers, self._flushed)

    def _root(self, name: str) -> tuple[str, int]:
        """The value in front of our casts, and how many these are."""
        count = 0
        while name in self._casts:
            name, count = self._casts[name], count + 1
        return name, count

    def _of_node(self, mine: NodeProto, wanted: NodeProto) -> Iterator[str]:
        who = mine.name or mine.output[0]
        self._origin.update(zip(mine.output, wanted.output, strict=False))
        if (mine.domain, mine.op_type, mine.name) != (wanted.domain, wanted.op_type, wanted.name) or len(mine.input) != len(wanted.input):
            yield f"{who} ({mine.op_type}): the float32 graph has {wanted.name} ({wanted.op_type}) there"
            return
        if not _same_attributes(mine, wanted):
            yield f"{who}: other attributes than in the float32 graph"
        if len(mine.output) != len(wanted.output):
            yield f"{who}: {len(mine.output)} outputs, the float32 graph has {len(wanted.output)}"
        for name, there in zip(mine.input, wanted.input, strict=True):
            root, casts = self._root(name)
            if root in self._weights and there in self._wanted:
                self._read[root, there] = None
                if casts:
                    yield f"{who}: weight {root} is cast when the file runs"
            elif self._origin.get(root, "") != there:
                yield f"{who}: reads {name or 'nothing'}, in the float32 graph {there or 'nothing'}"
            if casts > 1 or (casts == 1 and self._types.get(root) == self._types.get(name)):
                yield f"{who}: {root} is rounded and widened again before it is read"
        if wanted.name in self._wide:
            self._wide_seen += 1
            low = [name for name in (*mine.input, *mine.output) if self._types.get(name) in _FLOATS - {TensorProto.FLOAT}]
            if low:
                yield f"{who}: {', '.join(low[:3])} in {self._precision.name}, which has to stay in float32"

    def _of_weight(self, mine: str, wanted: str) -> Iterator[str]:
        got, exact = self._weights[mine], self._wanted[wanted]
        low = got.dtype == self._precision.numpy
        with np.errstate(over="ignore"):
            want = exact.astype(self._precision.numpy) if low else exact
        if got.dtype != want.dtype or got.shape != want.shape:
            yield f"weight {mine}: {got.dtype} {list(got.shape)}, expected {want.dtype} {list(want.shape)}"
            return
        if low:
            self._weights_seen += 1
            self._numbers += got.size
            self._flushed += int(np.count_nonzero(exact) - np.count_nonzero(want))
        bits = np.dtype(f"u{got.dtype.itemsize}")
        apart = np.ascontiguousarray(got).view(bits) != np.ascontiguousarray(want).view(bits)
        if apart.any():
            place = tuple(int(i) for i in np.argwhere(apart)[0]) if got.ndim else ()
            rounded = ", rounded," if low else ""
            yield (
                f"weight {mine}: {int(apart.sum()):,} of {got.size:,} numbers are not those of the float32 graph{rounded} first at "
                f"{list(place)}: got {got[place]!s}, want {want[place]!s}"
            )


def _weights(model: ModelProto, folder: Path) -> Mapping[str, np.ndarray]:
    """Initializers and what Constant nodes give, mapped from disk where they are big."""
    found = dict(iter_initializers(model, folder))
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _types(model: ModelProto) -> dict[str, int]:
    graph = model.graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.value_info, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _same_attributes(mine: NodeProto, wanted: NodeProto) -> bool:
    return _by_name(mine) == _by_name(wanted)


def _by_name(node: NodeProto) -> Collection[tuple[str, bytes]]:
    return {(attribute.name, _bytes(attribute)) for attribute in node.attribute}


def _bytes(attribute: AttributeProto) -> bytes:
    """A tensor by its numbers, as float64 where they are floats: what fills a shape has the type of the file."""
    if attribute.type != AttributeProto.TENSOR or attribute.t.data_type not in _FLOATS:
        serialised: bytes = attribute.SerializeToString(deterministic=True)
        return serialised
    numbers: bytes = numpy_helper.to_array(attribute.t).astype(np.float64).tobytes()
    return numbers
