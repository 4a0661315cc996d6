"""One forward of a file that hands out the tensors inside it, with little more memory than a plain run.

ONNX Runtime keeps what it is asked for until the end of a run, so that asking for every tensor of a network at once takes tens of
gigabytes. Here the graph is cut into consecutive segments. Each runs as a model of its own and is let go; what later segments read is
kept meanwhile. Operators that ONNX Runtime would have fused across a cut run one by one then, which may change the last bit of a number.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto

from ..export.network_file import NetworkFile
from ..graph.precision.emulate import emulate
from ..graph.runnable import make_runnable
from ..graph.submodel import submodel, value_types
from ..session import open_session

AT_ONCE = 2**28  # full size, all 35 GiB of tensors: 3.7 GiB at most, 2.9 without any; four times as many bytes take 5.7


class Segment(NamedTuple):
    """Consecutive nodes: first to last (exclusive) of the graph, tensors that they read from before, and those to be handed out."""

    first: int
    last: int
    reads: tuple[str, ...]
    gives: tuple[str, ...]


def walk(
    file: NetworkFile, feeds: Mapping[str, np.ndarray], wanted: Collection[str], at_once: int = AT_ONCE
) -> Iterator[tuple[str, np.ndarray]]:  # fmt: skip
    """Runs a file once and yields tensors of it.

    Args:
        file: the network; custom nodes run by their bodies.
        feeds: an array for each input.
        wanted: names of tensors: inputs of the graph, and typed outputs of its nodes.
        at_once: bytes of wanted tensors that a segment may hold, as far as a single node allows.

    Yields: (name, array), inputs first, then in graph order.
    Errors: ModelFileError for a tensor that the file does not have, for feeds that do not fit, and what ONNX Runtime raises.
    """
    model = file.model
    inner = {name: None for name in wanted if name not in feeds}
    submodel(model, file.input_names, list(inner) or [model.graph.output[0].name], "asked")  # refuses unknown names before the work
    for name in file.input_names:
        if name in wanted:
            yield name, feeds[name]
    if not inner:
        return
    alive = dict(feeds)
    last_read = {name: i for i, node in enumerate(model.graph.node) for name in node.input}
    for segment in segments(model.graph, set(inner), at_once):
        part = submodel(model, segment.reads, segment.gives, f"segment_{segment.first}")
        got = run_part(file, part, alive)
        for name in segment.gives:
            if name in inner:
                yield name, got[name]
        alive.update(got)
        for name in [name for name in alive if last_read.get(name, -1) < segment.last]:
            del alive[name]


def run_part(file: NetworkFile, part: ModelProto, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a part of the file's model on those of the values that it reads. Returns output → array."""
    runnable = onnx.ModelProto()
    runnable.CopyFrom(part)
    emulate(runnable)
    make_runnable(runnable, file.dialect)
    session = open_session(runnable, weights_folder=file.folder)
    return session.run({port.name: values[port.name] for port in session.inputs})


def segments(graph: GraphProto, wanted: set[str], at_once: int) -> list[Segment]:
    """Cuts a graph into consecutive segments, up to the last node that a wanted tensor needs.

    Args:
        wanted: outputs of nodes.
        at_once: bytes of wanted tensors in a segment; a cut is made where the fewest bytes are alive in the second half of what fits.
    """
    sizes = {name: _bytes(info) for name, info in value_types(graph).items()}
    end = max(i for i, node in enumerate(graph.node) if wanted & set(node.output)) + 1
    alive = _alive_bytes(graph, sizes, end)
    cuts, first, held = [0], 0, 0
    for i in range(end):
        size = sum(sizes.get(name, 0) for name in graph.node[i].output if name in wanted)
        while held + size > at_once and i > first:
            middle = first + (i - first + 1) // 2
            first = min(range(middle, i + 1), key=lambda place: (alive[place], -place))
            cuts.append(first)
            held = sum(sizes.get(name, 0) for node in graph.node[first:i] for name in node.output if name in wanted)
        held += size
    cuts.append(end)
    return [_segment(graph, wanted, first, last, end) for first, last in pairwise(cuts)]


def _segment(graph: GraphProto, wanted: set[str], first: int, last: int, end: int) -> Segment:
    weights = {tensor.name for tensor in graph.initializer}
    made = [name for node in graph.node[first:last] for name in node.output if name]
    read = dict.fromkeys(name for node in graph.node[first:last] for name in node.input if name)
    later = {name for node in graph.node[last:end] for name in node.input}
    before = tuple(name for name in read if name not in weights and name not in set(made))
    return Segment(first, last, before, tuple(name for name in made if name in wanted or name in later))


def _alive_bytes(graph: GraphProto, sizes: Mapping[str, int], end: int) -> list[int]:
    """Bytes that must be kept between node i - 1 and node i, for i from 0 to `end`."""
    last_read = {name: i for i, node in enumerate(graph.node[:end]) for name in node.input}
    made = {name: i for i, node in enumerate(graph.node[:end]) for name in node.output if name}
    changes = [0] * (end + 2)
    for name, i in made.items():
        changes[i + 1] += sizes.get(name, 0)
        changes[max(last_read.get(name, i), i) + 1] -= sizes.get(name, 0)
    totals, total = [], 0
    for change in changes[: end + 1]:
        total += change
        totals.append(total)
    return totals


def _bytes(info: onnx.ValueInfoProto) -> int:
    tensor = info.type.tensor_type
    width = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize if tensor.elem_type else 4
    return int(math.prod(dim.dim_value for dim in tensor.shape.dim) * width)
