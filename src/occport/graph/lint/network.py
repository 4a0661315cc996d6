"""Holding a written file against what SurroundOcc must be: a wrong number in a scalar passes every numeric check.

What is expected comes from the config, the budgets and the dialect alone, never from the code that wrote the nodes. Works on a
model whose weights stay on disk (`model_file.read_skeleton`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from ...config import Config
from ..attributes import Window
from ..contract import Contract
from ..dialect import Dialect
from .facts import Facts
from .finding import Finding
from .node import Wanted, check_node
from .operators import describe
from .scopes import is_custom, label, operator_of
from .site import Site, contract_of

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@dataclass(frozen=True)
class ExpectedAttention:
    """Sizes of one attention node, from the config."""

    images: int
    slots: int
    heads: int
    head_width: int
    points: int
    feat_hw: tuple[int, int]


@dataclass(frozen=True)
class Expected:
    """The custom nodes that a network must have, in graph order."""

    attention: tuple[ExpectedAttention, ...]
    deform_convs: int
    deform_groups: int


def expected_nodes(config: Config, image_hw: tuple[int, int], slots: Sequence[int], batch: int = 1) -> Expected:
    """What the config says about the custom nodes. `slots`: K of each level, fine to coarse."""
    attention = [
        ExpectedAttention(
            batch * config.num_cameras, slots[i], level.num_heads, level.width // level.num_heads, level.num_points,
            (image_hw[0] // (8 << i), image_hw[1] // (8 << i)),
        )
        for i, level in enumerate(config.levels)
        for _ in range(level.num_layers)
    ]  # fmt: skip
    stages = zip(BLOCKS[config.backbone.depth], config.backbone.stage_with_dcn, strict=True)
    return Expected(tuple(attention), sum(blocks for blocks, deformable in stages if deformable), config.backbone.deform_groups)


def check_contract(model: onnx.ModelProto, dialect: Dialect, expected: Expected) -> list[str]:
    """Every way in which the custom nodes are not what the dialect and the config say; empty when all is right.

    Limits of the target's kernels are not looked at: they say what the target can do, not whether the file is right.
    """
    custom = [node for node in model.graph.node if is_custom(node)]
    if dialect.msda is None or dialect.dcn is None:
        return [f"{label(node)}: expected standard operators only, got {operator_of(node)}" for node in custom]
    facts = Facts(model)
    known = [(node, contract_of(node, dialect)) for node in custom]
    attention = [Site(node, contract, facts) for node, contract in known if contract is dialect.msda]
    convs = [Site(node, contract, facts) for node, contract in known if contract is dialect.dcn]
    findings = [Finding(label(node), "", describe(dialect), operator_of(node)) for node, contract in known if contract is None]
    for what, sites, count in (
        ("attention nodes", attention, len(expected.attention)), ("deformable convolutions", convs, expected.deform_convs),
    ):  # fmt: skip
        if len(sites) != count:
            findings.append(Finding("", what, str(count), str(len(sites))))
    for site, sizes in zip(attention, expected.attention, strict=False):
        findings += check_node(site, _wanted(sizes))
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), 1, expected.deform_groups)
    for site in convs:
        findings += check_node(site, Wanted(window=window))
        inputs = _inputs(site.contract)
        if len(site.node.input) != inputs:
            findings.append(Finding(site.name, "inputs", str(inputs), str(len(site.node.input)), f"bias: {site.contract.bias}"))
    return [str(finding) for finding in findings]


def _wanted(sizes: ExpectedAttention) -> Wanted:
    h, w = sizes.feat_hw
    letters = {"A": sizes.images, "Q": sizes.slots, "M": sizes.heads, "D": sizes.head_width, "P": sizes.points, "L": 1, "R": 1, "S": h * w}
    return Wanted(letters, [(h, w)])


def _inputs(contract: Contract) -> int:
    """How many inputs a deformable convolution has: an optional bias is there where the policy says so."""
    return sum(not port.optional or (port.form == "bias" and contract.bias == "input") for port in contract.inputs)
