"""Which nodes stand between a tensor that was dumped and those before it that were dumped, too: what has to be run to judge it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from onnx import GraphProto

from ...graph.submodel import needed


@dataclass(frozen=True)
class Region:
    """Nodes that are run together.

    Attributes:
        outputs: dumped tensors that they make, in graph order.
        reads: tensors that they begin with: dumped, given, or inputs of the model; weights left out.
        nodes: numbers of the nodes that follow from the inputs, in graph order.
    """

    outputs: tuple[str, ...]
    reads: tuple[str, ...]
    nodes: tuple[int, ...]


def regions_of(graph: GraphProto, known: Collection[str], wanted: Iterable[str]) -> list[Region]:
    """The regions of some tensors, in graph order of their first outputs.

    Tensors whose regions share nodes are run together, unless one of them is what another one begins with.

    Args:
        known: tensors whose values are at hand.
        wanted: those of them that nodes make, in graph order.
    """
    places = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    weights = {tensor.name for tensor in graph.initializer}
    live = set(live_nodes(graph))
    found: list[Region] = []
    for name in wanted:
        nodes, read = needed(graph, set(known) - {name}, [name])
        numbers = {places[made] for node in nodes for made in node.output if made} & live
        reads = {one for one in read if one in known and one not in weights}
        new = Region((name,), tuple(sorted(reads)), tuple(sorted(numbers)))
        mate = next((i for i, region in enumerate(found) if _fit(region, new)), None)
        if mate is None:
            found.append(new)
        else:
            found[mate] = _joined(found[mate], new)
    return found


def live_nodes(graph: GraphProto) -> list[int]:
    """Numbers of the nodes that follow from the inputs; the others are constants that many regions may share."""
    weights = {tensor.name for tensor in graph.initializer}
    alive = {info.name for info in graph.input} - weights
    found = []
    for i, node in enumerate(graph.node):
        if any(name in alive for name in node.input):
            alive.update(node.output)
            found.append(i)
    return found


def _fit(first: Region, second: Region) -> bool:
    shared = set(first.nodes) & set(second.nodes)
    outputs, reads = {*first.outputs, *second.outputs}, {*first.reads, *second.reads}
    return bool(shared) and not outputs & reads


def _joined(first: Region, second: Region) -> Region:
    reads, nodes = {*first.reads, *second.reads}, {*first.nodes, *second.nodes}
    return Region((*first.outputs, *second.outputs), tuple(sorted(reads)), tuple(sorted(nodes)))
