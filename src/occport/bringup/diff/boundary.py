"""Voxels on the border of an image, which one rounding sees and another does not.

Their slot tables tell which voxels each camera of theirs sees. Where the comparison that decides it is not dumped itself, its result is
made from their tables, and all that follows in the geometry is computed from that: one voxel more or less then shifts our slots as it
does theirs. That a voxel differs is explained where it is as near to the border as rounding moves it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from ...export.network_file import NetworkFile
from ...graph.runnable import make_runnable
from ...graph.stages import stages_of
from ...graph.submodel import submodel, value_types
from ...session import open_session
from ..dumps.index import Index
from .noise import DRAW, draw, with_noise
from .rounding import Rounding, coarsest, rounding_of
from .rows import Match, filled_slots

_GEOMETRY = "tables"
_RUNS = 6
_REACH = 8.0  # times the largest error of some runs
_NEAR = 0.1  # of an image's side, from its border
_LISTED = 3


@dataclass(frozen=True, eq=False)
class Boundary:
    """What their tables say about who sees what.

    Attributes:
        hits_name, hits: the tensor that tells for each camera and voxel whether it is seen, made from their tables.
        flips: (camera, voxel) that only one of both sees.
        ratio: how far the clearest of them is from the border, over what rounding explains; 0 where there are none.
        tensor: the slot table of the level with the clearest one.
        node, op_type: that decides.
        place, words: the same for the user.
    """

    hits_name: str
    hits: NDArray[np.bool_]
    flips: int
    ratio: float
    tensor: str
    node: str
    op_type: str
    place: str
    words: str


def boundary_of(
    file: NetworkFile, index: Index, given: Mapping[str, np.ndarray],
    theirs: Callable[[str], NDArray[np.generic] | None], dtypes: Mapping[str, str], shifted: Mapping[str, Match],
) -> Boundary | None:  # fmt: skip
    """What is seen by theirs; None where the file has no geometry, they dumped it themselves, or nothing tells their slots.

    Args:
        given: arrays for the inputs of the file that they did not dump.
        shifted: slot tables that they did not dump → how their rows are shifted; which voxel that comes from, the border tells.
    """
    decider = _decider(file.model.graph, index)
    tables = {name: table for name in index.slots if name in dtypes and (table := theirs(name)) is not None}
    if decider is None or not (tables or shifted) or decider.output[0] in dtypes:
        return None
    feeds = dict(given)
    for name in file.input_names:
        if name not in feeds and (array := theirs(name)) is not None:
            feeds[name] = array
    if any(name not in feeds for name in file.input_names):
        return None
    stages = stages_of(file.model.graph)
    roundings = [_rounding(theirs, dtypes, name) for name in dtypes if stages.get(name) == _GEOMETRY]
    own = {name: one for name in feeds if name in dtypes and (one := _rounding(theirs, dtypes, name)) is not None}
    ours, margin, error = _run(file, decider, feeds, own, coarsest([one for one in roundings if one is not None]))
    hits = _hits_of(ours, index, tables)
    _shift(hits, ours, margin, index, shifted)
    flips = np.argwhere(hits != ours)
    name, (node, op_type) = decider.output[0], (decider.name or decider.output[0], decider.op_type)
    if not len(flips):
        return Boundary(name, hits, 0, 0.0, index.slots[0], node, op_type, "", "")
    ratios = margin[tuple(flips.T)] / error[tuple(flips.T)]
    flips = flips[np.argsort(-ratios, kind="stable")]
    said, level = _places(index, flips)
    count = f"{len(flips):,} voxels are seen by a camera in only one of both, "
    far = int((ratios > 1).sum())
    count += f"{far:,} of them farther from the border than rounding moves them" if far else "as near to the border as rounding moves them"
    return Boundary(name, hits, len(flips), float(ratios.max()), index.slots[level], node, op_type, said, f"{count} ({said})")


def _decider(graph: GraphProto, index: Index) -> NodeProto | None:
    """The first comparison of the geometry that gives a boolean for each camera and each voxel of all levels."""
    stages, types, total = stages_of(graph), value_types(graph), sum(math.prod(grid) for grid in index.grids)
    for node in graph.node:
        info = types.get(node.output[0]) if node.output else None
        if info is None or stages.get(node.output[0]) != _GEOMETRY or info.type.tensor_type.elem_type != TensorProto.BOOL:
            continue
        sizes = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        return node if total and len(index.grids) == len(index.slots) and sizes[-1] == total and node.input[0] in types else None
    return None


def _rounding(theirs: Callable[[str], NDArray[np.generic] | None], dtypes: Mapping[str, str], name: str) -> Rounding | None:
    array = theirs(name)
    return rounding_of(array, dtypes[name]) if array is not None and array.dtype.kind == "f" else None


def _run(
    file: NetworkFile, decider: NodeProto, feeds: Mapping[str, np.ndarray], own: Mapping[str, Rounding], inside: Rounding
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Ours: what is seen, each distance from the border, and how far rounding moves it."""
    model = submodel(file.model, list(feeds), [decider.output[0], decider.input[0]], "border")
    make_runnable(model, file.dialect)
    fed = {port.name: feeds[port.name] for port in model.graph.input}
    ours = open_session(model, weights_folder=file.folder).run(fed)
    noisy = open_session(with_noise(model, own, inside), weights_folder=file.folder)
    distance = ours[decider.input[0]].astype(np.float64)
    error = np.zeros_like(distance)
    for number in range(_RUNS):
        moved = noisy.run({**fed, DRAW: draw(number)}, [decider.input[0]])[decider.input[0]]
        error = np.maximum(error, np.abs(moved - distance))
    margin = np.abs(distance - _threshold(file, decider))
    near = error[(error > 0) & (margin < _NEAR)]  # behind a camera, numbers and their errors are of another size
    typical = float(np.median(near)) if near.size else inside.unit
    return ours[decider.output[0]], margin, _REACH * np.maximum(error, typical)


def _threshold(file: NetworkFile, decider: NodeProto) -> float:
    """What the distance is compared with."""
    tensor = next((one for one in file.model.graph.initializer if one.name == decider.input[1]), None)
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
        return 0.0
    return float(onnx.numpy_helper.to_array(tensor).reshape(-1)[0])


def _hits_of(ours: NDArray[np.bool_], index: Index, tables: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
    """(..., A, V of all levels): what their tables list; ours for levels without one."""
    hits = ours.copy()
    flat = hits.reshape(-1, hits.shape[-1])
    begin = 0
    for name, grid in zip(index.slots, index.grids, strict=True):
        count = math.prod(grid)
        if name in tables:
            table = np.asarray(tables[name], np.int64).reshape(len(flat), -1)
            filled = filled_slots(table)
            for camera, (row, there) in enumerate(zip(table, filled, strict=True)):
                seen = np.zeros(count, bool)
                voxels = row[there]
                seen[voxels[(voxels >= 0) & (voxels < count)]] = True
                seen[0] = ours.reshape(len(flat), -1)[camera, begin] if row[0] == 0 else False  # 0 also says that the first slot is empty
                flat[camera, begin : begin + count] = seen
        begin += count
    return hits


def _shift(
    hits: NDArray[np.bool_], ours: NDArray[np.bool_], margin: NDArray[np.float64], index: Index, shifted: Mapping[str, Match]
) -> None:  # fmt: skip
    """Puts into `hits` which voxels must have come or gone where rows are shifted: of those that could, the nearest to the border."""
    seen, before = (array.reshape(-1, array.shape[-1]) for array in (hits, ours))
    near = margin.reshape(-1, margin.shape[-1])
    end = 0
    for name, grid in zip(index.slots, index.grids, strict=True):
        begin, end = end, end + math.prod(grid)
        match = shifted.get(name)
        if match is None:
            continue
        for camera in range(len(seen)):
            voxels, slots = match.voxels[camera][match.filled[camera]], match.theirs[camera][match.filled[camera]]
            steps, places = np.diff(slots, prepend=-1), np.concatenate([[-1], voxels])
            for k in np.flatnonzero((steps != 1) & (slots >= 0)):
                low, high = int(places[k]) + 1, int(places[k + 1])
                more = bool(steps[k] > 1)  # of theirs between two of ours; else two of ours in one place of theirs: one of them is gone
                between = np.flatnonzero(np.logical_not(before[camera, begin + low : begin + high])) + low
                could = between if more else np.array([low - 1, high])
                could = could[could >= 0]
                seen[camera, begin + could[np.argsort(near[camera, begin + could], kind="stable")][: abs(int(steps[k]) - 1)]] = more


def _places(index: Index, flips: NDArray[np.int64]) -> tuple[str, int]:
    """The clearest few in words, and the level of the clearest."""
    said, levels = [], []
    for flip in flips[:_LISTED]:
        camera, number = int(flip[-2]), int(flip[-1])
        level = 0
        while number >= math.prod(index.grids[level]):
            number -= math.prod(index.grids[level])
            level += 1
        z, y, x = (int(one) for one in np.unravel_index(number, index.grids[level]))
        name = f" ({index.cameras[camera]})" if camera < len(index.cameras) else ""
        said.append(f"camera {camera}{name}, level {level}, voxel X {x}, Y {y}, Z {z}")
        levels.append(level)
    return "; ".join(said) + ("; ..." if len(flips) > _LISTED else ""), levels[0]
