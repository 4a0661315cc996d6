"""Which tensors of a file tell a node where to sample, and how they are to be read; what is not looked at is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

from ...export.network_file import NetworkFile
from ...graph.model_file import tensor_of
from ...graph.precision.plan import LOCATION_FORMS
from ...kit.vectors.activations import CustomNode, Tap, custom_nodes
from ..dumps.axes import Shape, shapes_of
from ..dumps.marks import custom_nodes_of

_GRID = 1  # input of GridSample
_SPLIT = ("sampling_locations_x", "sampling_locations_y", "offset_x", "offset_y")
_OFFSETS = ("sampling_offsets", "sampling_offsets_merged")
_LOGITS = ("attention_logits", "attention_logits_merged")


@dataclass(frozen=True)
class Port:
    """How one node reads a tensor.

    Attributes:
        kind: "location", "grid", "corner grid" (`places.WAYS`); "pixels": offsets of an attention; "taps" and "packed taps": offsets of a
            deformable convolution; "logits".
        what: it holds, in words.
        maps: (H, W) of each level that is sampled; () for taps and logits.
        shape: in which it is read as (images, queries, M, L, P, 2), 1 for what it does not tell apart; () for taps and logits.
        number: stride of taps; terms of each sum of exponentials.
        stage: of the node.
    """

    kind: str
    what: str
    maps: tuple[tuple[int, int], ...] = ()
    shape: Shape = ()
    number: int = 1
    stage: str = ""


@dataclass(frozen=True)
class Ports:
    """Of a file.

    Attributes:
        found: tensor → how it is read, each way once.
        unseen: what is not looked at: the reason → the nodes.
    """

    found: dict[str, list[Port]] = field(default_factory=dict)
    unseen: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, port: Port) -> None:
        """One more way to read a tensor."""
        ways = self.found.setdefault(name, [])
        if port not in ways:
            ways.append(port)

    def leave(self, why: str, node: str) -> None:
        """One more node that is not looked at."""
        nodes = self.unseen.setdefault(why, [])
        if node not in nodes:
            nodes.append(node)


def ports_of(file: NetworkFile, stages: Mapping[str, str]) -> Ports:
    """The ports of a file's custom nodes, GridSample and DeformConv.

    Args:
        stages: tensor → its stage.

    Errors: ModelFileError for a custom node that is not as its contract says.
    """
    ports, shapes = Ports(), shapes_of(file.model.graph)
    outputs = {node.name or node.output[0]: node.output[0] for node in custom_nodes_of(file)}
    for node in custom_nodes(file.model, file.dialect) if outputs else ():
        _of_custom(ports, file, node, stages.get(outputs.get(node.name, ""), ""))
    for one in file.model.graph.node:
        name = one.name or next(iter(one.output), one.op_type)
        if one.op_type == "GridSample" and not one.domain:
            _of_grid(ports, one, name, shapes, stages.get(one.output[0], ""))
        elif one.op_type == "DeformConv" and not one.domain:
            if one.input[2] in shapes:
                ports.add(one.input[2], Port("taps", "offsets", number=_strides(one)))
            else:
                ports.leave("DeformConv whose offsets are constant or of no known shape", name)
        elif any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in one.attribute):
            ports.leave(f"tensors inside the branches of {one.op_type}", name)
    return ports


def _of_custom(ports: Ports, file: NetworkFile, node: CustomNode, stage: str) -> None:
    for port in node.contract.inputs:
        tap = node.taps.get(port.name)
        if tap is None:
            continue
        if port.form in _SPLIT:
            ports.leave("sampling places with x and y on ports of their own", node.name)
        elif port.form in _LOGITS:
            ports.add(tap.value, Port("logits", "logits", number=node.letters["L"] * node.letters["P"], stage=stage))
        elif port.form in ("offset", "offset_all") and node.window is not None:
            kind = "taps" if port.form == "offset" else "packed taps"
            ports.add(tap.value, Port(kind, "offsets", number=node.window.stride[0], stage=stage))
        elif port.form in (*LOCATION_FORMS, *_OFFSETS):
            maps = _maps_of(file, node)
            if maps is None:
                ports.leave("sampling places on maps whose sizes are no constant", node.name)
            else:
                kind = "pixels" if port.form in _OFFSETS else "location"
                what = "reference points" if port.form.startswith("reference") else "offsets" if kind == "pixels" else "locations"
                ports.add(tap.value, Port(kind, what, maps, _read_as(tap, node.letters), stage=stage))


def _read_as(tap: Tap, letters: Mapping[str, int]) -> Shape:
    """The shape (A, Q, M, L, P, 2) of a port's numbers, by its form."""
    images, queries = tap.shape[:2]
    if tap.form == "reference_points":  # (A, Q, L, 2)
        return images, queries, 1, letters["L"], 1, 2
    if tap.form == "reference_points_shared":  # (A, Q, 1, 2*R)
        return images, queries, 1, 1, letters.get("R", 1), 2
    return images, queries, letters["M"], letters["L"], letters["P"], 2  # (A, Q, M, L, P, 2), or (A, Q, M, L*P*2)


def _of_grid(ports: Ports, node: NodeProto, name: str, shapes: Mapping[str, Shape], stage: str) -> None:
    image, grid = shapes.get(node.input[0], ()), shapes.get(node.input[_GRID], ())
    if len(image) != 4 or len(grid) != 4:
        ports.leave("GridSample that is not of known maps (H, W)", name)
        return
    corners = any(attribute.name == "align_corners" and attribute.i for attribute in node.attribute)
    shape = (*grid[:2], 1, 1, *grid[2:])  # (A, Q, P, 2) → (A, Q, 1, 1, P, 2); A may count heads, too
    ports.add(node.input[_GRID], Port("corner grid" if corners else "grid", "grid", ((image[2], image[3]),), shape, stage=stage))


def _strides(node: NodeProto) -> int:
    return next((attribute.ints[0] for attribute in node.attribute if attribute.name == "strides"), 1)


def _maps_of(file: NetworkFile, node: CustomNode) -> tuple[tuple[int, int], ...] | None:
    """(H, W) of an attention's maps from the constant that tells them; None where it is computed."""
    form = next((port.name for port in node.contract.inputs if port.form == "spatial_shapes"), "")
    if form not in node.taps:
        return None
    makers = {name: one for one in file.model.graph.node for name in one.output if name}
    name = node.taps[form].value
    while name in makers and makers[name].op_type in ("Cast", "Identity") and not makers[name].domain:
        name = makers[name].input[0]
    if name in makers:
        return _sizes(constant_of(makers[name]))
    return _sizes(weight_of(file, name))


def _sizes(array: np.ndarray | None) -> tuple[tuple[int, int], ...] | None:
    return None if array is None else tuple((int(height), int(width)) for height, width in array.reshape(-1, 2))


def weight_of(file: NetworkFile, name: str) -> np.ndarray | None:
    """A weight by its name; None where there is none."""
    if all(tensor.name != name for tensor in file.model.graph.initializer):
        return None
    return tensor_of(file.model, name, file.folder)


def constant_of(node: NodeProto) -> np.ndarray | None:
    """What a Constant node gives, where it is told as a tensor; else None."""
    held = [one.t for one in node.attribute if one.name == "value" and one.type == AttributeProto.TENSOR]
    if node.op_type != "Constant" or node.domain or not held or held[0].data_location == TensorProto.EXTERNAL:
        return None
    return numpy_helper.to_array(held[0])


def rows_of(array: np.ndarray, port: Port, filled: np.ndarray | None) -> np.ndarray:
    """A tensor as (rows, M, L, P, 2), without the rows of empty slots where they are known.

    Args:
        array: of the port's kind, with locations, a grid or offsets in pixels.
        filled: (A, K) bool: slots that hold a voxel; an attention in single operators has A * M images. None: not known.
    """
    read = array.reshape(port.shape)
    images, queries = port.shape[:2]
    if filled is not None and queries == filled.shape[1] and images % filled.shape[0] == 0:
        kept: np.ndarray = read[np.repeat(filled, images // filled.shape[0], axis=0)]
        return kept
    return read.reshape(math.prod(port.shape[:2]), *port.shape[2:])
