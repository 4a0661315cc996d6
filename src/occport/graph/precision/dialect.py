"""A dialect as its nodes stand in a file of 16 bits."""

from __future__ import annotations

from dataclasses import replace

from ..contract import Contract
from ..dialect import Dialect
from .types import EXACT, PRECISIONS


def in_precision(dialect: Dialect, precision: str) -> Dialect:
    """The dialect whose contracts have the types that nodes have in a file of a precision.

    A node whose kernel lacks the type stays as it is, with casts around it.
    """
    if precision == EXACT:
        return dialect
    name = PRECISIONS[precision].name
    return replace(dialect, msda=_contract(dialect.msda, name), dcn=_contract(dialect.dcn, name))


def _contract(contract: Contract | None, name: str) -> Contract | None:
    if contract is None or name not in contract.dtypes:
        return contract
    inputs = tuple(replace(port, dtype=name) if port.dtype == "float32" and not port.wide else port for port in contract.inputs)
    return replace(contract, inputs=inputs, output=replace(contract.output, dtype=name))
