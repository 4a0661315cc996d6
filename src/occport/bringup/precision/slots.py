"""Which slots of a level hold a voxel: rows of empty ones are computed as well, but nothing of them reaches a voxel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...export.network_file import NetworkFile
from ..diff.rows import filled_slots
from ..dumps.axes import levels_of
from .ports import Ports, constant_of, weight_of

Filled = NDArray[np.bool_]


def slot_tables(file: NetworkFile, stages: Mapping[str, str], ports: Ports) -> tuple[dict[str, str], dict[str, Filled]]:
    """What tells the filled slots of the levels.

    Args:
        file: the network.
        stages: tensor → its stage.
        ports: of the file.

    Returns: stage → tensor of the table (A, K), where a node makes it or it is an input; stage → (A, K) bool, filled slots, where a
        constant tells them: the table, or the one of the way back to the voxels, where queries of a first layer are a constant themselves.
    """
    graph = file.model.graph
    made = {stage: level.slots for stage, level in levels_of(file).items()}
    sizes = {port.stage: port.shape[:2] for ways in ports.found.values() for port in ways if port.shape}
    held = {name: constant for node in graph.node if (constant := constant_of(node)) is not None for name in node.output}
    found: dict[str, Filled] = {}
    for node in graph.node:
        stage = stages.get(next(iter(node.output), ""), "")
        if node.op_type == "Gather" and not node.domain and stage in sizes and stage not in (*made, *found):
            table = held.get(node.input[1], weight_of(file, node.input[1]))
            if table is not None and table.ndim == 2:
                filled = _of_constant(table.astype(np.int64), *sizes[stage])
                if filled is not None:
                    found[stage] = filled
    return made, found


def filled_of(table: np.ndarray) -> Filled | None:
    """(A, K) bool: slots that hold a voxel; None for a table of another shape. table: (A, K) or (1, A, K)."""
    whole = table.reshape(table.shape[-2:]) if table.ndim >= 2 and table.size == np.prod(table.shape[-2:]) else None
    return filled_slots(whole.astype(np.int64)) if whole is not None and whole.size else None


def _of_constant(table: NDArray[np.int64], images: int, room: int) -> Filled | None:
    """Of a table (A, K) of voxels, or (R, V) of slots camera * K + k, where A * K is none; None for any other.

    Args:
        images: A, or A times the heads.
        room: K.
    """
    if table.shape[1] == room and images % table.shape[0] == 0:
        filled = filled_slots(table)
        if ((np.diff(table, axis=1) > 0) | ~filled[:, 1:]).all() and (filled[:, :-1] | ~filled[:, 1:]).all():
            return filled
    none = int(table.max(initial=0))
    cameras = none // room
    if none % room or not cameras or images % cameras or table.min(initial=0) < 0:
        return None
    reached = np.zeros(none, np.bool_)
    reached[table[table < none]] = True
    return reached.reshape(cameras, room)
