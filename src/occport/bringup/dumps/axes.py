"""What the axes of a network's tensors are, as far as that can be known: cameras, slots, voxels, channels, rows and columns of maps.

Letters: B samples, A cameras, K slots of a camera, R rows of a voxel, V voxels of a level in (Z, Y, X) order, C channels, H x W maps of
the images, X, Y, Z voxels of a volume; M heads, D head width, L levels, P points as in `graph.forms`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto

from ...export.network_file import NetworkFile
from ...export.spec import Spec
from ...graph.contract import TWIN_DOMAIN, Contract
from ...graph.forms import PORT_FORMS
from ...graph.stages import stages_of
from ...graph.submodel import value_types

Axes = tuple[str, ...]
Shape = tuple[int, ...]
AXIS_WORDS: Mapping[str, str] = {
    "B": "sample", "A": "camera", "K": "slot", "R": "row", "V": "voxel", "C": "channel", "H": "row", "W": "column", "X": "X", "Y": "Y",
    "Z": "Z", "M": "head", "D": "head channel", "L": "level", "P": "point", "O": "channel", "Ho": "row", "Wo": "column", "M*D": "channel",
    "A*K": "slot", "A*H*W": "pixel", "S": "pixel", "Q": "slot",
    "row": "row", "column": "column",
}  # fmt: skip
_IMAGES = ("backbone", "neck")
_PORTS: Mapping[str, str] = {
    "img": "B A C H W", "lidar2img": "B A row column", "dropped": "B L", "slots": "B A K", "ref_uv": "B A K uv", "back": "B R V",
    "weight": "B V",
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One level of the volume.

    Attributes:
        slots: tensor (A, K) that says which voxel is in each slot.
        images, room: A and K.
        voxels: V.
        grid: (Z, Y, X); None for a file of another origin.
        map: (H, W) of its images' features; None where it has none.
    """

    slots: str
    images: int
    room: int
    voxels: int
    grid: tuple[int, int, int] | None
    map: tuple[int, int] | None


def shapes_of(graph: GraphProto) -> dict[str, Shape]:
    """Name → shape of every tensor of a graph whose sizes are all known, weights left out."""
    found = {}
    for name, info in value_types(graph).items():
        if info.type.tensor_type.HasField("shape"):
            found[name] = tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
    return found


def levels_of(file: NetworkFile) -> dict[str, Level]:
    """Stage → its level, fine to coarse, as far as the file looks up voxels by a table: queries (V, C) gathered by slots (A, K)."""
    graph, spec = file.model.graph, file.spec
    shapes, stages = shapes_of(graph), stages_of(graph)
    kept = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}  # queries of a first layer may be constant
    whole = {name for name, info in value_types(graph).items() if info.type.tensor_type.elem_type == TensorProto.INT64}
    found: dict[str, Level] = {}
    for node in graph.node:
        stage = stages.get(node.output[0], "")
        if node.op_type != "Gather" or not stage.startswith("level ") or stage in found or node.input[1] not in whole:
            continue
        data, slots = shapes.get(node.input[0], kept.get(node.input[0], ())), shapes.get(node.input[1], ())
        if len(data) == 2 and len(slots) == 2 and _axis(node) == 0:
            sizes = (shape for name, shape in shapes.items() if stages.get(name) == stage and len(shape) == 4)
            first = next(sizes, None)  # the level's first map is (A, C, H, W)
            grid = _grid(spec, int(stage.removeprefix("level ")))
            found[stage] = Level(node.input[1], *slots, data[0], grid, (first[2], first[3]) if first else None)
    return found


def axes_of(file: NetworkFile) -> dict[str, Axes]:
    """Tensor → its axes, for those that are known."""
    graph = file.model.graph
    shapes, stages, levels = shapes_of(graph), stages_of(graph), levels_of(file)
    volumes = _volumes(file.spec)
    found: dict[str, Axes] = {}
    for name, shape in shapes.items():
        stage = stages.get(name, "")
        if stage in _IMAGES and len(shape) == 4:
            found[name] = ("A", "C", "H", "W")
        elif stage in levels:
            found[name] = _of_level(shape, levels[stage])
        elif stage == "tables":
            voxels = sum(level.voxels for level in levels.values())
            found[name] = next(filter(None, (_of_table(shape, level, voxels) for level in levels.values())), ())
        elif stage == "decoder":
            found[name] = _of_volume(shape, volumes)
    found.update(_of_ports(file, shapes))
    for node, contract in _custom(file):
        found.update(_of_contract(node, contract, shapes))
    return {name: axes for name, axes in found.items() if axes and len(axes) == len(shapes[name])}


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)


def _grid(spec: Spec | None, number: int) -> tuple[int, int, int] | None:
    if spec is None or number >= len(spec.config.levels):
        return None
    level = spec.config.levels[number]
    return level.volume_z, level.volume_h, level.volume_w


def _of_level(shape: Shape, level: Level) -> Axes:
    rest = ("C", "D", "E", "F")
    if shape[:2] == (level.images, level.room):
        return ("A", "K", *rest[: len(shape) - 2])
    if shape and shape[0] == level.voxels and len(shape) == 2:
        return "V", "C"
    if len(shape) in (2, 3) and shape[1] == level.voxels:
        return ("R", "V", "C")[: len(shape)]
    if level.map and len(shape) == 4 and shape[0] == level.images:
        if shape[2:] == level.map:
            return "A", "C", "H", "W"
        if shape[1:3] == level.map:
            return "A", "H", "W", "C"
    if level.map and len(shape) == 2 and shape[0] == level.images * math.prod(level.map):
        return "A*H*W", "C"
    if len(shape) == 2 and shape[0] in (level.images * level.room, level.images * level.room + 1):
        return "A*K", "C"
    return _of_volume(shape, [level.grid] if level.grid else [])


def _of_table(shape: Shape, level: Level, voxels: int) -> Axes:
    """`voxels`: of all levels, which a projection may take at once."""
    if shape[1:3] == (level.images, level.room):
        return ("B", "A", "K", "uv")[: len(shape)]
    if len(shape) in (2, 3) and shape[-1] in (level.voxels, voxels):
        row = "A" if shape[1] == level.images else "R"
        return ("B", row, "V") if len(shape) == 3 else ("B", "V")
    if len(shape) in (3, 4) and shape[:2] == (1, level.images):
        return ("B", "A", "row", "column")[: len(shape)]
    return ()


def _volumes(spec: Spec | None) -> list[tuple[int, int, int]]:
    """Sizes (Z, Y, X) of the volumes of all scales."""
    return [(z, y, x) for x, y, z in spec.config.output_sizes] if spec else []


def _of_volume(shape: Shape, grids: list[tuple[int, int, int]]) -> Axes:
    for grid in grids:
        x_first = grid[::-1]
        if len(shape) == 5 and shape[1:4] == grid:
            return "B", "Z", "Y", "X", "C"
        if len(shape) == 4 and shape[1:] == grid:
            return "B", "Z", "Y", "X"
        if len(shape) == 5 and shape[2:] in (grid, x_first):
            return ("B", "C", "Z", "Y", "X") if shape[2:] == grid else ("B", "C", "X", "Y", "Z")
        if len(shape) == 4 and shape[1:] == x_first:
            return "B", "X", "Y", "Z"
    return ()


def _of_ports(file: NetworkFile, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Axes]]:
    """Inputs and outputs of an export; samples and cameras may have been merged or left out."""
    if file.spec is None:
        return
    for name in file.spec.input_names + file.spec.output_names:
        kind = name.split("_", 1)[1] if name.startswith("level") else name
        shape = shapes.get(file.spec.renamed(name), ())
        if kind in _PORTS:
            letters = tuple(_PORTS[kind].split())
            yield file.spec.renamed(name), letters[len(letters) - len(shape) :]
        else:
            yield file.spec.renamed(name), _of_volume(shape, _volumes(file.spec))


def _custom(file: NetworkFile) -> Iterator[tuple[NodeProto, Contract]]:
    known = {(one.domain or TWIN_DOMAIN, one.op_type): one for one in (file.dialect.msda, file.dialect.dcn) if one is not None}
    for node in file.model.graph.node:
        if (node.domain, node.op_type) in known:
            yield node, known[node.domain, node.op_type]


def _of_contract(node: NodeProto, contract: Contract, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Axes]]:
    """The ports of a custom node by their forms; its queries Q are the slots K."""
    ports = [*zip(node.input, contract.inputs, strict=False), *zip(node.output, (contract.output,), strict=False)]
    for name, port in ports:
        letters = tuple("K" if letter == "Q" else letter for letter in PORT_FORMS[port.form].shape.split())
        if len(letters) == len(shapes.get(name, ())) > 0:
            yield name, letters
