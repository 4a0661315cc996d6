"""How long a file would take on a chip at best: each node as long as its arithmetic, or as what it moves, whichever takes longer.

What stays on the chip: activations that fit into its SRAM for as long as they live, short-lived ones first (`Liveness.fitting`). Weights,
inputs and outputs of the file and all else go through the chip's memory once for each node that reads or writes them. Nodes run one after
the other, in graph order; on a chip that fuses, an elementwise node (Relu, Add, BatchNormalization ...) is done with the one before it,
whose result nobody else reads, and that result never leaves the chip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...graph.stages import REST
from .chip import DTYPES, Chip
from .cost import Cost
from .liveness import Liveness
from .node_cost import GEOMETRY, NodeCost, floating

BYTES: Mapping[str, int] = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_READ_IMAGES = ("backbone", REST)  # stages of an export that read an input which is no geometry


@dataclass(frozen=True)
class NodeTime:
    """One node on a chip.

    Attributes:
        number: of the node in `Cost.nodes`.
        node: its cost.
        dtype: that it computes in there.
        flops: operations.
        moved: bytes that go through the chip's memory.
        compute, memory, launch: seconds that each alone would take.
    """

    number: int
    node: NodeCost
    dtype: str
    flops: int
    moved: float
    compute: float
    memory: float
    launch: float

    @property
    def seconds(self) -> float:
        """The longer one of arithmetic and memory, and the launch."""
        return max(self.compute, self.memory) + self.launch

    @property
    def bound(self) -> str:
        """What decides: "compute", "memory" or "launch"."""
        return max(("compute", "memory", "launch"), key=lambda kind: float(getattr(self, kind)))


@dataclass(frozen=True)
class Roofline:
    """A file on a chip.

    Attributes:
        chip: the chip.
        precision: dtype of the floating-point numbers, "" for that of the file; the geometry keeps float32.
        times: of every node that computes or moves anything.
        on_chip: bytes of activations that are made, and never leave the chip.
        without_rate: dtypes that nodes compute in and the chip has no rate for; that of `chip.fallback` was taken.
    """

    chip: Chip
    precision: str
    times: tuple[NodeTime, ...]
    on_chip: float
    without_rate: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of all nodes one after the other."""
        return sum(time.seconds for time in self.times)

    def by_stage(self) -> dict[str, float]:
        """Stage → seconds, in graph order."""
        found: dict[str, float] = {}
        for time in self.times:
            found[time.node.stage] = found.get(time.node.stage, 0.0) + time.seconds
        return found

    def by_bound(self) -> dict[str, float]:
        """What decides → seconds."""
        return {kind: sum(time.seconds for time in self.times if time.bound == kind) for kind in ("compute", "memory", "launch")}

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "chip": {**vars(self.chip), "peak": dict(self.chip.peak), "efficiency": dict(self.chip.efficiency)},
            "precision": self.precision,
            "seconds": self.seconds, "by_stage": self.by_stage(), "by_bound": self.by_bound(),
            "activations_on_chip_bytes": self.on_chip, "dtypes_without_rate": list(self.without_rate),
            "rate_taken": self.chip.fallback if self.without_rate else None,
            "nodes": [
                {"name": time.node.name, "dtype": time.dtype, "moved_bytes": time.moved, "compute": time.compute, "memory": time.memory,
                 "seconds": time.seconds, "bound": time.bound}
                for time in self.times
            ],
        }  # fmt: skip


def roofline(cost: Cost, chip: Chip, precision: str = "") -> Roofline:
    """The times of a file's nodes on a chip.

    Args:
        precision: one of `chip.DTYPES` that all floating-point numbers but the geometry's would have; "" leaves them as they are.
    """
    scale = _scales(cost, precision)
    fused = _fused(cost) if chip.fuse else {}
    held = cost.liveness.fitting(chip.sram * 2**20, scale) | set(fused.values())
    times = tuple(
        _time(i, node, chip, precision, cost.liveness, held, scale, i in fused)
        for i, node in enumerate(cost.nodes) if node.moved or node.work.flops
    )  # fmt: skip
    stays = sum(cost.liveness.size(name) * scale.get(name, 1.0) for name in held)
    computing = dict.fromkeys(time.dtype for time in times if time.flops)
    without = [dtype for dtype in computing if dtype not in chip.peak and has_rates(dtype)]
    return Roofline(chip, precision, times, stays, tuple(without))


def has_rates(dtype: str) -> bool:
    """Whether chips have a rate for numbers of a type: not for indices and truth values."""
    return floating(dtype) or dtype in DTYPES


def _fused(cost: Cost) -> dict[int, str]:
    """Number of an elementwise node → the buffer that it gets from the node before it: that made last of those that nobody else reads."""
    readers: dict[str, int] = {}
    made: dict[str, int] = {}
    buffer = cost.liveness.buffer
    for i, node in enumerate(cost.nodes):
        for name, _ in node.reads:
            readers[buffer[name]] = readers.get(buffer[name], 0) + 1
        for name, _ in node.writes:
            made.setdefault(buffer[name], i)
    found = {}
    for i, node in enumerate(cost.nodes):
        mine = [buffer[name] for name, _ in node.reads if readers[buffer[name]] == 1 and buffer[name] in made]
        if node.work.kind == "elementwise" and mine and not cost.liveness.given & set(mine):
            found[i] = max(mine, key=lambda name: made[name])
    return found


def _scales(cost: Cost, precision: str) -> dict[str, float]:
    """Buffer → its bytes in the precision over those in the file."""
    if not precision:
        return {}
    buffer = cost.liveness.buffer
    wide: dict[str, bool] = {}  # geometry: what its stage makes, and inputs that it reads first; of an export all inputs but the images
    for node in cost.nodes:
        for name, _ in node.reads:
            wide.setdefault(buffer[name], node.stage == GEOMETRY if cost.network is None else node.stage not in _READ_IMAGES)
        wide.update({buffer[name]: node.stage == GEOMETRY for name, _ in node.writes})
    return {name: 1.0 if wide.get(name) else _factor(cost.dtypes[name], precision) for name in dict.fromkeys(buffer.values())}


def _factor(dtype: str, precision: str) -> float:
    """Bytes of a number in the precision over those of its dtype; whole numbers keep theirs."""
    return BYTES[precision] / BYTES[dtype] if precision and floating(dtype) and dtype in BYTES else 1.0


def _time(
    number: int, node: NodeCost, chip: Chip, precision: str, liveness: Liveness, held: set[str], scale: Mapping[str, float], fused: bool
) -> NodeTime:  # fmt: skip
    given = "" if node.stage == GEOMETRY or not floating(node.dtype) else precision
    dtype = given or node.dtype
    work = node.work
    compute = 2 * work.products / chip.rate(dtype, "products") + 2 * (work.macs - work.products) / chip.rate(dtype, "sampling")
    kind = work.kind if work.kind not in ("products", "sampling", "view") else "elementwise"
    compute += work.operations / chip.rate(dtype, kind)
    moved = node.weight_bytes - node.float_weight_bytes + node.float_weight_bytes * _factor(node.dtype, given)
    for name, size in (*node.reads, *node.writes):
        buffer = liveness.buffer.get(name, name)
        moved += 0.0 if buffer in held else size * scale.get(buffer, 1.0)
    return NodeTime(number, node, dtype, work.flops, moved, compute, moved / (chip.bandwidth * 1e9), 0.0 if fused else chip.launch * 1e-6)
