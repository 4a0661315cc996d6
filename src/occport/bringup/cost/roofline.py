"""How long a file would take on a chip at best: each node as long as its arithmetic, or as what it moves, whichever takes longer.

What stays on the chip: activations that fit into its SRAM for as long as they live, short-lived ones first (`Liveness.fitting`); weights
and all else go through the chip's memory once for each node that reads or writes them. Nodes run one after the other, in graph order;
on a chip that fuses, an elementwise node (Relu, Add, BatchNormalization ...) is done with the one before it, whose result nobody else
reads, and that result never leaves the chip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .chip import Chip
from .cost import Cost
from .liveness import Liveness
from .node_cost import NodeCost

BYTES: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_GEOMETRY = "tables"  # the stage that stays in float32 whatever the precision


@dataclass(frozen=True)
class NodeTime:
    """One node on a chip.

    Attributes:
        node: its cost.
        dtype: that it computes in there.
        flops: operations.
        moved: bytes that go through the chip's memory.
        compute, memory, launch: seconds that each alone would take.
    """

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
        without_rate: dtypes that the chip has no rate for; float32's was taken.
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
        _time(node, chip, precision, cost.liveness, held, scale, node.name in fused)
        for node in cost.nodes if node.moved or node.work.flops
    )  # fmt: skip
    stays = sum(cost.liveness.size(name) * scale.get(name, 1.0) for name in held)
    without = dict.fromkeys(time.dtype for time in times if time.dtype not in chip.peak and "float" in time.dtype and time.flops)
    return Roofline(chip, precision, times, stays, tuple(without))


def _fused(cost: Cost) -> dict[str, str]:
    """Elementwise node → the buffer that it gets from the node before it: of those that nobody else reads the one made last."""
    readers: dict[str, int] = {}
    made: dict[str, int] = {}
    buffer = cost.liveness.buffer
    for i, node in enumerate(cost.nodes):
        for name, _ in node.reads:
            readers[buffer[name]] = readers.get(buffer[name], 0) + 1
        for name, _ in node.writes:
            made.setdefault(buffer[name], i)
    found = {}
    for node in cost.nodes:
        mine = [buffer[name] for name, _ in node.reads if readers[buffer[name]] == 1 and buffer[name] in made]
        if node.work.kind == "elementwise" and mine and not cost.liveness.given & set(mine):
            found[node.name] = max(mine, key=lambda name: made[name])
    return found


def _scales(cost: Cost, precision: str) -> dict[str, float]:
    """Buffer → its bytes in the precision over those in the file."""
    if not precision:
        return {}
    found = {}
    for node in cost.nodes:
        factor = _factor(node, precision)
        found.update({cost.liveness.buffer.get(name, name): factor for name, _ in node.writes})
    return found


def _factor(node: NodeCost, precision: str) -> float:
    if not precision or node.stage == _GEOMETRY or node.dtype not in BYTES:
        return 1.0
    return BYTES[precision] / BYTES[node.dtype]


def _time(
    node: NodeCost, chip: Chip, precision: str, liveness: Liveness, held: set[str], scale: Mapping[str, float], fused: bool
) -> NodeTime:  # fmt: skip
    factor = _factor(node, precision)
    dtype = precision if precision and factor != 1.0 else node.dtype
    work = node.work
    compute = 2 * work.products / chip.rate(dtype, "products") + 2 * (work.macs - work.products) / chip.rate(dtype, "sampling")
    kind = work.kind if work.kind not in ("products", "sampling", "view") else "elementwise"
    compute += work.operations / chip.rate(dtype, kind)
    moved = node.weight_bytes * factor
    for name, size in (*node.reads, *node.writes):
        buffer = liveness.buffer.get(name, name)
        moved += 0.0 if buffer in held else size * scale.get(buffer, 1.0)
    return NodeTime(node, dtype, work.flops, moved, compute, moved / (chip.bandwidth * 1e9), 0.0 if fused else chip.launch * 1e-6)
