"""Kernels that round the factors of products themselves, which their dumps do not show: TF32 of a GPU's matrix units, and the like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...export.network_file import NetworkFile
from ...graph.contract import TWIN_DOMAIN
from ...graph.stages import stages_of
from .rounding import Rounding

MATH = MappingProxyType({
    "tf32": Rounding("tf32", 11),
    "fp16": Rounding("fp16", 11, tiny=2.0**-25),
    "bf16": Rounding("bf16", 8),
})  # fmt: skip
_FACTORS = {"Conv": (0, 1), "ConvTranspose": (0, 1), "MatMul": (0, 1), "Gemm": (0, 1)}
_FORMS = ("value", "input", "weight")  # of custom nodes: what is multiplied and added up; places and masks stay as they are
_GEOMETRY = "tables"


@dataclass(frozen=True)
class Products:
    """How factors are rounded, and where.

    Attributes:
        rounding: of each number.
        factors: first output of a node → which of its inputs.
    """

    rounding: Rounding
    factors: Mapping[str, tuple[int, ...]]


def products_of(file: NetworkFile, math: str) -> Products:
    """Every node with products, custom ones too, but for the geometry: a projection with such factors loses hits, and is wrong.

    Args:
        math: a key of MATH.
    """
    contracts = [one for one in (file.dialect.msda, file.dialect.dcn) if one is not None]
    known: dict[tuple[str, str], tuple[int, ...]] = {("", op_type): places for op_type, places in _FACTORS.items()}
    for one in contracts:
        known[(one.domain or TWIN_DOMAIN, one.op_type)] = tuple(i for i, port in enumerate(one.inputs) if port.form in _FORMS)
    stages = stages_of(file.model.graph)
    factors = {
        node.output[0]: known[(node.domain, node.op_type)]
        for node in file.model.graph.node
        if (node.domain, node.op_type) in known and stages[node.output[0]] != _GEOMETRY
    }
    return Products(MATH[math], factors)
