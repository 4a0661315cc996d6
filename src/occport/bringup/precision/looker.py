"""What is to be looked for in each tensor of a file, and whose rows are empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from ...export.network_file import NetworkFile
from ...graph.contract import TWIN_DOMAIN
from ...graph.model_file import iter_initializers
from ...graph.stages import stages_of
from ...graph.submodel import value_types
from .hazard import TABLES, Hazard
from .places import of_locations, of_offsets, of_pixels
from .ports import Port, constant_of, ports_of, rows_of
from .rounding import Low
from .slots import Filled, filled_of, slot_tables
from .tensors import Place, of_exponentials, of_reader, of_values, range_of
from .weights import of_weights


class Looker:
    """The rules, tensor by tensor.

    Args:
        file: in float32.
        low: the 16-bit type.

    Attributes:
        wanted: every float32 tensor that is an input or that a node other than a Constant makes, whether it follows from an input or not.
        tables: tensors that tell which slots hold a voxel; they must be seen before those of their levels.
        unseen: why something is not looked at → the nodes.
    """

    def __init__(self, file: NetworkFile, low: Low) -> None:
        file = with_first_outputs(file)
        self._file, self._low = file, low
        graph = file.model.graph
        self._stages = {**_inputs_of_geometry(file), **stages_of(graph)}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(filter(None, node.input)):
                self._readers.setdefault(name, []).append(node)
        ports = ports_of(file, self._stages)
        self._ports, self.unseen = ports.found, {why: tuple(nodes) for why, nodes in ports.unseen.items()}
        made, constant = slot_tables(file, self._stages, ports)
        self.tables = frozenset(made.values())
        self._levels = {name: [stage for stage, one in made.items() if one == name] for name in self.tables}
        self._filled: dict[str, Filled | None] = {**constant}
        types = value_types(graph)
        made_by_nodes = [name for node in graph.node if node.op_type != "Constant" for name in node.output]
        untyped = [name for name in made_by_nodes if name not in types]
        if untyped:
            self.unseen["tensors without a type"] = tuple(untyped)
        known = [name for name in (*file.input_names, *made_by_nodes) if name in types]
        self.wanted = [name for name in known if types[name].type.tensor_type.elem_type == TensorProto.FLOAT]

    def look(self, name: str, array: np.ndarray) -> Iterator[Hazard]:
        """The hazards of one tensor; a slot table is remembered."""
        for stage in self._levels.get(name, ()):
            self._filled[stage] = filled_of(array)
        if array.dtype != np.float32:
            return
        place, found = self._place(name), range_of(array)
        yield from of_values(place, array, found, self._low)
        for reader in self._readers.get(name, []):
            if reader.domain in ("", "ai.onnx"):
                yield from of_reader(place, reader, array, found, self._low, self._file.opset)
        yield from self._of_ports(place, array)

    def constants(self) -> Iterator[Hazard]:
        """The hazards of the weights, and of the places that a weight or a Constant tells."""
        for name, array in iter_initializers(self._file.model, self._file.folder):
            if array.dtype == np.float32 and array.size and name in self._readers:
                reader = self._readers[name][-1]
                place = Place(name, reader.name, _kind(reader), self._stages.get(next(iter(reader.output), ""), ""))
                yield from of_weights(place, array, self._low)
                yield from self._of_ports(place, array)
        for node in self._file.model.graph.node:
            held = constant_of(node)
            if held is not None and held.dtype == np.float32:
                yield from self._of_ports(self._place(node.output[0]), held)

    def begins(self, found: list[Hazard], kind: str) -> list[Hazard]:
        """The findings, those of a kind that spreads marked where nothing that their tensor is made from has it.

        What the geometry has does not count for the rest: exports keep it in float32.
        """
        having = {hazard.tensor for hazard in found if hazard.kind == kind and hazard.severity != "kept"}
        return [
            replace(hazard, begins=not having & set(self._makers[hazard.tensor].input if hazard.tensor in self._makers else ()))
            if hazard.kind == kind and hazard.severity != "kept" else hazard
            for hazard in found
        ]  # fmt: skip

    def _place(self, name: str) -> Place:
        node = self._makers.get(name)
        return Place(name, node.name if node else "", _kind(node) if node else "", self._stages.get(name, ""))

    def _of_ports(self, place: Place, array: np.ndarray) -> Iterator[Hazard]:
        for port in self._ports.get(place.tensor, ()):
            if port.kind == "logits":
                yield from of_exponentials(place, port.number, range_of(array), self._low)
            elif port.kind == "taps":
                yield from of_offsets(place, array, port.number, self._low)
            elif port.kind == "packed taps":
                yield from of_offsets(place, pairs_of(array), port.number, self._low)
            else:
                yield from _of_maps(place, rows_of(array, port, self._filled.get(port.stage)), port, self._low)


def _of_maps(place: Place, rows: np.ndarray, port: Port, low: Low) -> Iterator[Hazard]:
    """Each level on its own map; rows (n, M, L, P, 2), where L is 1 the same numbers stand for every level."""
    for level, (height, width) in enumerate(port.maps):
        points = rows[:, :, min(level, rows.shape[2] - 1)]
        which = f" on map {level} of {len(port.maps)}" if len(port.maps) > 1 else ""
        if port.kind == "pixels":
            found = of_pixels(place, points, width, height, low)
        else:
            found = of_locations(place, points, width, height, low, port.kind, f"{port.what}{which}")
        yield from found


def pairs_of(packed: NDArray[np.float32]) -> NDArray[np.float32]:
    """(A, G*T*3, Ho, Wo), all dx, all dy, the mask → (A, G*T*2, Ho, Wo) in pairs (dy, dx)."""
    A, thirds, height, width = packed.shape
    parts = packed.reshape(A, 3, thirds // 3, height, width)
    return np.stack([parts[:, 1], parts[:, 0]], axis=2).reshape(A, -1, height, width)  # (A, G*T, 2, Ho, Wo) → pairs


def with_first_outputs(file: NetworkFile) -> NetworkFile:
    """A file to look into, not to run: nodes that leave their first output out have only those that are there."""
    if all(node.output and node.output[0] for node in file.model.graph.node):
        return file
    model = ModelProto()
    model.CopyFrom(file.model)
    nodes = [node for node in model.graph.node if any(node.output)]
    for node in nodes:
        there = [name for name in node.output if name]
        del node.output[:]
        node.output.extend(there)
    kept = ModelProto()
    kept.CopyFrom(model)
    del kept.graph.node[:]
    kept.graph.node.extend(nodes)
    return replace(file, model=kept)


def _inputs_of_geometry(file: NetworkFile) -> dict[str, str]:
    """The calibration and its tables belong to the geometry; of a file of another origin nothing is known."""
    spec = file.spec
    return {} if spec is None else {name: TABLES for name in file.input_names if name != spec.renamed("img")}


def _kind(node: NodeProto) -> str:
    return node.op_type if node.domain in ("", TWIN_DOMAIN) else f"{node.domain}::{node.op_type}"
