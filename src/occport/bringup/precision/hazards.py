"""The hazard report of half precision, made from a float32 file and one frame before any kernel exists: one forward, every number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.contract import TWIN_DOMAIN
from ...graph.model_file import iter_initializers
from ...graph.precision.emulate import is_low
from ...graph.precision.plan import LOCATION_FORMS
from ...graph.stages import stages_of
from ...graph.submodel import value_types
from ...kit.vectors.activations import CustomNode, custom_nodes
from ..cost.node_cost import node_costs
from ..dumps.axes import shapes_of
from ..dumps.marks import custom_nodes_of, named_tensors
from ..walk import walk
from .geometry import Hits, hits_in, of_geometry
from .hazard import SEVERITIES, Hazard
from .places import of_locations, of_offsets
from .rounding import Low, low
from .sums import Sum, of_sums, terms_of
from .tensors import Place, of_reader, of_values, range_of

_OFFSETS = "offset"
_GRID = 1  # input of GridSample


@dataclass(frozen=True)
class Hazards:
    """What 16 bits would do to a file.

    Attributes:
        file: its name.
        low: the type.
        found: worst first.
        hits: of both ways of projecting; () where the rig is not known.
        tensors: how many were looked at.
    """

    file: str
    low: Low
    found: tuple[Hazard, ...]
    hits: tuple[Hits, ...]
    tensors: int

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        kinds = [hazard.kind for hazard in self.found]
        return {
            "file": self.file, "precision": self.low.name, "largest": self.low.largest, "tensors": self.tensors,
            "counts": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
            "geometry": [hits.to_json() for hits in self.hits],
            "hazards": [hazard.to_json() for hazard in self.found],
        }  # fmt: skip


def hazards_of(file: NetworkFile, feeds: Mapping[str, np.ndarray], precision: str = "fp16") -> Hazards:
    """Runs a file once and looks at every float32 tensor.

    Args:
        file: in float32.
        feeds: an array for each input.
        precision: "fp16" or "bf16".

    Errors: ModelFileError for a file that has 16 bits already, and what a walk raises.
    """
    if is_low(file.model):
        fix = "give the float32 export: what 16 bits do is worked out from that"
        raise ModelFileError(f"model file {file.path}", expected="numbers in float32", got="some of 16 bits", fix=fix)
    kind = low(precision)
    looker = _Looker(file, kind)
    found = list(_of_weights(file, kind))
    for name, array in walk(file, feeds, looker.wanted):
        found += looker.look(name, array)
    hits = _hits(file, feeds, kind)
    found += [*of_geometry(hits, kind), *of_sums(_sums(file), kind)]
    order = sorted(found, key=lambda hazard: SEVERITIES.index(hazard.severity))
    return Hazards(file.path.name, kind, tuple(order), hits, len(looker.wanted))


class _Looker:
    """What is to be looked for in each tensor."""

    def __init__(self, file: NetworkFile, kind: Low) -> None:
        graph = file.model.graph
        types = value_types(graph)
        self._low = kind
        self._stages = stages_of(graph)
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self.wanted = [name for name in named_tensors(file) if types[name].type.tensor_type.elem_type == TensorProto.FLOAT]
        nodes = custom_nodes(file.model, file.dialect) if custom_nodes_of(file) else ()
        self._shapes = shapes_of(graph)
        self._maps, self._offsets = _places(file, nodes, self._shapes)

    def look(self, name: str, array: np.ndarray) -> Iterator[Hazard]:
        """The hazards of one tensor."""
        node = self._makers.get(name)
        domain = "" if node is None or node.domain in ("", TWIN_DOMAIN) else f"{node.domain}::"
        place = Place(name, node.name if node else "", f"{domain}{node.op_type}" if node else "", self._stages.get(name, ""))
        found = range_of(array)
        yield from of_values(place, array, found, self._low)
        for reader in self._readers.get(name, []):
            yield from of_reader(place, reader, array, found, self._low)
        if name in self._maps:
            grid, (height, width) = self._maps[name]
            yield from of_locations(place, (array + 1) / 2 if grid else array, width, height, self._low)
        if name in self._offsets:
            yield from of_offsets(place, array, self._offsets[name], self._low)


def _places(
    file: NetworkFile, nodes: tuple[CustomNode, ...], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[bool, tuple[int, int]]], dict[str, int]]:
    """Tensors of locations → whether they are a grid in [-1, 1], and (H, W) of their map; tensors of offsets → stride."""
    maps: dict[str, tuple[bool, tuple[int, int]]] = {}
    offsets: dict[str, int] = {}
    for node in nodes:
        for port in node.contract.inputs:
            tap = node.taps.get(port.name)
            if tap is None:
                continue
            if port.form in LOCATION_FORMS and tap.shape[-1] == 2 and node.letters.get("L", 1) == 1:
                maps[tap.value] = (False, _map_of(file, node))
            elif port.form == _OFFSETS and node.window is not None:
                offsets[tap.value] = node.window.stride[0]
    for one in file.model.graph.node:
        if one.op_type == "GridSample" and not one.domain and len(shapes.get(one.input[0], ())) == 4:
            maps[one.input[_GRID]] = (True, (shapes[one.input[0]][2], shapes[one.input[0]][3]))
        elif one.op_type == "DeformConv" and not one.domain and one.input[2] in shapes:
            offsets[one.input[2]] = next((attribute.ints[0] for attribute in one.attribute if attribute.name == "strides"), 1)
    return maps, offsets


def _map_of(file: NetworkFile, node: CustomNode) -> tuple[int, int]:
    """(H, W) of an attention's one map, from the constant that tells it."""
    port = next(port.name for port in node.contract.inputs if port.form == "spatial_shapes")
    name = node.taps[port].value
    held = [one.attribute[0].t for one in file.model.graph.node if one.op_type == "Constant" and name in one.output]
    (sizes,) = [*held, *(tensor for tensor in file.model.graph.initializer if tensor.name == name)]
    height, width = numpy_helper.to_array(sizes).reshape(-1)
    return int(height), int(width)


def _of_weights(file: NetworkFile, kind: Low) -> Iterator[Hazard]:
    stages = stages_of(file.model.graph)
    readers = {name: node for node in file.model.graph.node for name in node.input}
    for name, array in iter_initializers(file.model, file.folder):
        node = readers.get(name)
        if array.dtype != np.float32 or not array.size or node is None:
            continue
        stage = stages.get(node.output[0], "")
        size = np.abs(array)
        largest = float(size.max())
        place = Place(name, node.name, node.op_type, stage)
        if stage != "tables" and largest > kind.largest:
            words = f"up to {largest:,.6g}, beyond {kind.largest:,.0f}"
            yield Hazard("weight overflow", "breaks", *place, float(array.min()), float(array.max()), words, {"largest": largest})
        gone = int(np.count_nonzero((size > 0) & (size <= kind.least / 2)))
        if gone:
            words = f"{gone:,} of {array.size:,} weights become 0"
            yield Hazard("weight underflow", "watch", *place, float(array.min()), float(array.max()), words, {"zero": gone / array.size})


def _hits(file: NetworkFile, feeds: Mapping[str, np.ndarray], kind: Low) -> tuple[Hits, ...]:
    """Both ways of projecting, on the rig that is fed, else on that of the export."""
    if file.spec is None or file.manifest is None:
        return ()
    rig = feeds.get(file.spec.renamed("lidar2img"), np.array(file.manifest["frame"]["lidar2img"]))
    return hits_in(file.spec, rig.reshape(-1, 4, 4), kind)


def _sums(file: NetworkFile) -> list[Sum]:
    shapes = shapes_of(file.model.graph)
    costs = [cost for cost in node_costs(file) if cost.work.products and cost.stage != "tables"]
    return [Sum(cost, terms_of(cost, math.prod(shapes[cost.writes[0][0]]))) for cost in costs]
