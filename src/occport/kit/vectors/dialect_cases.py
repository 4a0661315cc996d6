"""The edge cases in a dialect's form, and those that a dialect cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ModelFileError
from ...graph.attributes import Window, lower_window, read_window
from ...graph.contract import Contract
from ...graph.dialect import Dialect
from ...graph.forms import PORT_FORMS
from ...graph.port_arrays import lower_arrays, raise_arrays
from ...graph.retargeting.retarget import needs_wide
from ...graph.sizes import solve
from ..cases.case import Case, check, window
from .allowance import broken_limit
from .edge_cases import edge_cases


@dataclass(frozen=True)
class NodeCase:
    """A case as one node of a dialect computes it.

    Attributes:
        case: name, operator and quantities, which are raised from `ports`: what the golden values are made of.
        contract: the node's.
        ports: port name → array.
        attributes: of the node, by the dialect's names.
        facts: for the record.
        queries: the network's queries that an attention's are, where they were chosen.
    """

    case: Case
    contract: Contract
    ports: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]
    facts: Mapping[str, Any]
    queries: np.ndarray | None = None


@dataclass(frozen=True)
class LeftOut:
    """An edge case that is not there, and why."""

    name: str
    operator: str
    reason: str


def edge_node_cases(dialect: Dialect) -> tuple[list[NodeCase], list[LeftOut]]:
    """Every edge case that the dialect's nodes can be, and every one that they cannot."""
    found: list[NodeCase] = []
    left_out: list[LeftOut] = []
    for operator, contract in (("msda", dialect.msda), ("dcn", dialect.dcn)):
        assert contract is not None
        for case in edge_cases(operator, wide=operator == "msda" and needs_wide(dialect)):
            made = _as_node(case, contract)
            if isinstance(made, str):
                left_out.append(LeftOut(case.name, operator, made))
            else:
                found.append(made)
    return found, left_out


def _as_node(case: Case, contract: Contract) -> NodeCase | str:
    """The case in the contract's form, or the reason why it has none."""
    shape = window_of(case) if case.operator == "dcn" else None
    if case.operator == "msda":
        case = _repeated(case, contract)
    attributes = {one.name: one.default for one in contract.attributes} if shape is None else lower_window(contract, shape)
    if shape is not None:
        try:
            told = read_window(contract, attributes, shape.kernel, case.name)
        except ModelFileError as error:
            return str(error)
        if told != shape:
            return f"the attributes of {contract.title} cannot say {_difference(shape, told)}"
    try:
        ports = lower_arrays(contract, case.quantities)
    except KeyError as missing:
        return f"{contract.title} cannot hold {missing.args[0]} of this case"
    broken = broken_limit(contract, case.operator, letters_of(contract, ports, shape), shape)
    if broken:
        return broken
    raised = Case(case.name, case.operator, raise_arrays(contract, ports), case.attributes, case.what)
    check(raised)
    return NodeCase(raised, contract, ports, attributes, {})


def window_of(case: Case) -> Window:
    """The window of a "dcn" case, as the dialects' attributes are made from."""
    kh, kw = case.quantities["weight"].shape[2:]
    stride, padding, dilation, groups, deform_groups = window(case)
    return Window((kh, kw), stride, padding, dilation, groups, deform_groups)


def letters_of(contract: Contract, ports: Mapping[str, np.ndarray], shape: Window | None) -> dict[str, int]:
    """The sizes of a node by the letters of its ports' forms."""
    known = {} if shape is None else {"groups": shape.groups, "G": shape.deform_groups, "T": shape.kernel[0] * shape.kernel[1]}
    shapes = [(PORT_FORMS[port.form].shape, ports[port.name].shape) for port in contract.inputs if port.name in ports]
    letters, _ = solve([(terms, sizes) for terms, sizes in shapes if len(terms.split()) == len(sizes)], known)
    return letters


def _repeated(case: Case, contract: Contract) -> Case:
    """The case with its queries and the channels of its heads repeated until a kernel takes them that has a least number of them."""
    width, queries = case.quantities["value"].shape[3], _queries(case)
    D, Q = _next(contract, "head_width", width), _next(contract, "queries", queries)
    if width == D and queries == Q:
        return case
    changes: dict[str, np.ndarray | None] = {"value": case.quantities["value"].take(np.arange(D) % width, 3)}
    for name in ("sampling_locations", "attention_weights", "reference_points", "sampling_offsets", "attention_logits"):
        if name in case.quantities:
            changes[name] = case.quantities[name].take(np.arange(Q) % queries, 1)
    what = f"{case.what} (repeated to {Q} queries and {D} channels a head, which {contract.title} needs)"
    return Case(case.name, case.operator, case.with_quantities(changes).quantities, case.attributes, what)


def _queries(case: Case) -> int:
    return int(case.quantities.get("attention_weights", case.quantities.get("attention_logits", np.empty(0))).shape[1])


def _next(contract: Contract, size: str, got: int) -> int:
    """The smallest number from `got` on that the contract's limits on one size take; `got` where none does."""
    limits = [limit for limit in contract.limits if limit.size == size and limit.dtype in ("", "float32")]
    step = math.lcm(*(limit.multiple_of for limit in limits))
    first = max([got, *(limit.at_least for limit in limits)])
    found = -(-first // step) * step
    return found if all(limit.holds(found) for limit in limits) else got


def _difference(want: Window, told: Window) -> str:
    return " and ".join(f"{field} {getattr(want, field)}" for field in Window._fields if getattr(want, field) != getattr(told, field))
