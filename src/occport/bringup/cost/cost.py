"""The cost of a file, summed up by operator, layer and stage, with the network's own figures beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...export.network_file import NetworkFile
from ...graph.stages import PLACES
from .liveness import Liveness, Peak
from .network import NetworkCost, network_cost
from .node_cost import NodeCost, activation_bytes, dtypes_of, kinds_without_rule, node_costs, weights_of

GROUPS: Mapping[str, Callable[[NodeCost], str]] = {
    "operator": lambda node: node.op_type, "layer": lambda node: node.layer, "stage": lambda node: node.stage,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """The sum of some nodes.

    Attributes:
        name: of the operator, layer or stage.
        nodes: how many.
        parameters, products, sampled, operations: as in `NodeCost` and `Work`.
        read_bytes, write_bytes: of activations and weights.
    """

    name: str
    nodes: int
    parameters: int
    products: int
    sampled: int
    operations: int
    read_bytes: int
    write_bytes: int

    @property
    def macs(self) -> int:
        """Products, and four for each sampled number."""
        return self.products + 4 * self.sampled

    @property
    def intensity(self) -> float:
        """Operations for each byte read or written, a MAC being two; 0 where nothing is moved."""
        moved = self.read_bytes + self.write_bytes
        return (2 * self.macs + self.operations) / moved if moved else 0.0


@dataclass(frozen=True)
class Cost:
    """What a file costs.

    Attributes:
        file: its name.
        nodes: in graph order.
        constants: bytes of all weights and constants.
        peak: of activations.
        liveness: which buffers are alive when.
        dtypes: of every activation.
        network: None for a file of another origin.
        custom: DOMAIN::NAME → number of nodes.
        without_rule: operators that no rule knows; each number that comes out of them counts as one operation.
    """

    file: str
    nodes: tuple[NodeCost, ...]
    constants: int
    peak: Peak
    liveness: Liveness
    dtypes: Mapping[str, str]
    network: NetworkCost | None
    custom: Mapping[str, int]
    without_rule: tuple[str, ...]

    @property
    def total(self) -> Row:
        """Of all nodes."""
        return _row("all", self.nodes)

    def rows(self, by: str) -> tuple[Row, ...]:
        """Sums by one of GROUPS: stages in the order of the data, others with the most MACs first."""
        groups: dict[str, list[NodeCost]] = {}
        for node in self.nodes:
            groups.setdefault(GROUPS[by](node), []).append(node)
        rows = [_row(name, tuple(nodes)) for name, nodes in groups.items()]
        if by == "stage":
            return tuple(sorted(rows, key=lambda row: (PLACES.index(row.name) if row.name in PLACES else len(PLACES), row.name)))
        return tuple(sorted(rows, key=lambda row: (-row.macs, -(row.read_bytes + row.write_bytes), row.name)))

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        network = self.network
        return {
            "file": self.file,
            "total": _table(self.total),
            **{f"by_{by}": [_table(row) for row in self.rows(by)] for by in GROUPS},
            "constant_bytes": self.constants,
            "peak_activations": {
                "bytes": self.peak.total, "node": self.peak.node,
                "alive": [{"tensor": name, "bytes": size} for name, size in self.peak.tensors],
            },
            "network": network and {"parameters": network.parameters, "macs": network.total, "by_stage": dict(network.macs)},
            "custom_nodes": dict(self.custom),
            "operators_without_rule": list(self.without_rule),
            "nodes": [_node_table(node) for node in self.nodes],
        }  # fmt: skip


def cost_of(file: NetworkFile) -> Cost:
    """Counts a file by its shapes; nothing is run.

    Raises:
        ModelFileError: a custom node is not as its contract says, or sizes are missing.
    """
    nodes = node_costs(file)
    liveness = Liveness(file.model.graph, activation_bytes(file.model.graph))
    custom: dict[str, int] = {}
    for node in nodes:
        if node.custom:
            custom[node.op_type] = custom.get(node.op_type, 0) + 1
    constants = sum(tensor.nbytes for tensor in weights_of(file.model.graph).values())
    return Cost(
        file.path.name, nodes, constants, liveness.peak(), liveness, dtypes_of(file.model.graph), network_cost(file), custom,
        tuple(kinds_without_rule(nodes)),
    )  # fmt: skip


def _row(name: str, nodes: tuple[NodeCost, ...]) -> Row:
    works = [node.work for node in nodes]
    return Row(
        name, len(nodes), sum(node.parameters for node in nodes), sum(work.products for work in works),
        sum(work.sampled for work in works), sum(work.operations for work in works),
        sum(node.read_bytes for node in nodes), sum(node.write_bytes for node in nodes),
    )  # fmt: skip


def _table(row: Row) -> dict[str, Any]:
    return {**vars(row), "macs": row.macs, "intensity": row.intensity}


def _node_table(node: NodeCost) -> dict[str, Any]:
    return {
        "name": node.name, "operator": node.op_type, "stage": node.stage, "layer": node.layer, "dtype": node.dtype,
        "kind": node.work.kind, "parameters": node.parameters, "products": node.work.products, "sampled": node.work.sampled,
        "operations": node.work.operations, "macs": node.work.macs, "read_bytes": node.read_bytes, "write_bytes": node.write_bytes,
        "custom": node.custom,
    }  # fmt: skip
