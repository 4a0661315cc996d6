"""What the two custom nodes may be called and look like: the probed dialect's way, what it may have meant, everybody else's ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from ...graph import dialect as dialects
from ...graph.contract import Contract, Port
from ...graph.dialect import Dialect
from ...graph.forms import NUMBERS, SCALARS

BIASES = dialects.BIASES


class Candidate(NamedTuple):
    """One way of writing a custom node. `key` names its probe, `what` says how it differs from the probed dialect's."""

    key: str
    contract: Contract
    what: str


@cache
def attentions(base: Dialect) -> tuple[Candidate, ...]:
    """Ways of writing the attention, the likeliest first; none for a dialect without custom nodes."""
    if base.msda is None:
        return ()
    found = [Candidate("msda", base.msda, "as the dialect has it"), *_numbers(base.msda)]
    if base.msda.domain:
        nameless = replace(base.msda, domain="")
        found.append(Candidate("msda_no_domain", nameless, "in the empty domain"))
        likely = ("msda_rank1_int64_constant", "msda_rank1_int32_constant")
        found += [_in_empty_domain(one) for one in _numbers(nameless) if one.key in likely]
    found += [Candidate(f"msda_{name}", contract, f"as {name} has it") for name, contract in _others(base, "msda")]
    if any(port.form == "num_embed" for port in base.msda.inputs):
        other = "head" if base.msda.num_embed == "all" else "all"
        what = f"num_embed is {'the head width' if other == 'head' else 'heads x head width'}"
        found.append(Candidate(f"msda_num_embed_{other}", replace(base.msda, num_embed=other), what))
    return _distinct(found)


@cache
def convolutions(base: Dialect) -> tuple[Candidate, ...]:
    """Ways of writing the deformable convolution, the likeliest first."""
    if base.dcn is None:
        return ()
    found = [Candidate("dcn", base.dcn, "as the dialect has it")]
    if base.dcn.domain:
        for name in base.dcn.other_names:
            found.append(Candidate(f"dcn_{name}", replace(base.dcn, op_type=name), f"as {base.dcn.domain}::{name}"))
        found.append(Candidate("dcn_no_domain", replace(base.dcn, domain=""), "in the empty domain"))
    renamed = tuple(replace(one, name="deformable_groups") if one.form == "deform_groups" else one for one in base.dcn.attributes)
    found.append(Candidate("dcn_deformable_groups", replace(base.dcn, attributes=renamed), "its attribute is deformable_groups"))
    found += [Candidate(f"dcn_{name}", contract, f"as {name} has it") for name, contract in _others(base, "dcn")]
    return _distinct(found)


def biases(base: Dialect) -> list[str]:
    """What may stand behind the convolution, the dialect's own first."""
    assert base.dcn is not None
    with_input = any(port.form == "bias" for port in base.dcn.inputs)
    return [base.dcn.bias, *(bias for bias in BIASES if bias != base.dcn.bias and (with_input or bias != "input"))]


def has_rank6(contract: Contract) -> bool:
    """Whether the attention's inputs are made from sampling locations, which are computed at rank 6."""
    return any(port.form.startswith("sampling_locations") or port.rank == 6 for port in contract.inputs)


def has_softmax_in_front(contract: Contract) -> bool:
    """Whether the attention wants weights after the softmax."""
    return any(port.form.startswith("attention_weights") for port in contract.inputs)


def describe_numbers(contract: Contract) -> str:
    """The ranks, dtypes and places of the numbers among an attention's inputs, in words."""
    scalars = next((port for port in contract.inputs if port.form in SCALARS), None)
    shapes = next((port for port in contract.inputs if port.form == "spatial_shapes"), None)
    parts = [f"scalars of rank {scalars.rank}, {scalars.dtype}, {_place(scalars)}"] if scalars else []
    return "; ".join(parts + ([f"spatial_shapes {shapes.dtype}, {_place(shapes)}"] if shapes else []))


def _place(port: Port) -> str:
    return "as a Constant node" if port.place == "constant" else "as an initializer"


def _numbers(contract: Contract) -> list[Candidate]:
    """The contract with its numbers written in other ways: few changes first."""
    own = next((port for port in contract.inputs if port.form in SCALARS), None)
    shapes = next((port for port in contract.inputs if port.form == "spatial_shapes"), None)
    if shapes is None:
        return []
    dtypes, places = ("int64", "int32"), ("constant", "initializer")
    if own is None:
        other = "int32" if shapes.dtype == "int64" else "int64"
        changed = tuple(replace(port, dtype=other) if port.form in NUMBERS else port for port in contract.inputs)
        return [Candidate(f"msda_shapes_{other}", replace(contract, inputs=changed), f"spatial_shapes in {other}")]
    ways = [(rank, dtype, dtype, place) for rank in (0, 1) for dtype in dtypes for place in places]
    ways += [(own.rank, "int32" if dtype == "int64" else "int64", dtype, "constant") for dtype in dtypes]
    given = (own.rank, own.dtype, shapes.dtype, "constant" if own.place == "constant" else "initializer")
    ways.sort(key=lambda way: sum(a != b for a, b in zip(way, given, strict=True)))
    return [_with_numbers(contract, *way) for way in ways if way != given]


def _with_numbers(contract: Contract, rank: int, scalars: str, shapes: str, place: str) -> Candidate:
    def port_with(port: Port) -> Port:
        if port.form in SCALARS:
            return replace(port, rank=rank, dtype=scalars, place=place)
        return replace(port, dtype=shapes, place=place) if port.form in NUMBERS else port

    changed = replace(contract, inputs=tuple(port_with(port) for port in contract.inputs))
    key = f"msda_rank{rank}_{scalars}_{place}" + ("" if scalars == shapes else f"_shapes_{shapes}")
    return Candidate(key, changed, describe_numbers(changed))


def _in_empty_domain(candidate: Candidate) -> Candidate:
    return candidate._replace(key=candidate.key.replace("msda", "msda_no_domain", 1), what=f"in the empty domain, {candidate.what}")


def _others(base: Dialect, operator: str) -> Iterator[tuple[str, Contract]]:
    """The other built-in dialects' contracts of an operator, by the dialects' names."""
    for name in dialects.names():
        contract: Contract | None = getattr(dialects.load(name), operator)
        if contract is not None and name != base.name:
            yield name, contract


def _distinct(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """Without those that would make the same node as an earlier one."""
    seen: list[Contract] = []
    kept = []
    for candidate in candidates:
        plain = _node_of(candidate.contract)
        if plain not in seen:
            seen.append(plain)
            kept.append(candidate)
    return tuple(kept)


def _node_of(contract: Contract) -> Contract:
    """A contract without what does not show in one node: names of ports, what stands behind, limits."""
    ports = tuple(replace(port, name="", place="constant" if port.place == "constant" else "initializer") for port in contract.inputs)
    return replace(contract, inputs=ports, limits=(), bias="", attributes=tuple(sorted(contract.attributes, key=lambda one: one.name)))
