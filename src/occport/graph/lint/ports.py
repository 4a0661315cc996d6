"""Inputs and outputs of a custom node: how many, in which order, of which dtype, rank and place."""

from __future__ import annotations

from collections.abc import Iterator

from ..contract import Port
from .finding import NOTE, Finding
from .site import Site


def check_ports(site: Site) -> Iterator[Finding]:
    """Counts, gaps, dtype, rank and place of every port."""
    yield from _check_counts(site)
    if not site.counts_fit:
        return
    for i, port in enumerate(site.contract.inputs[: len(site.node.input)]):
        if not site.node.input[i] and not port.optional:
            yield Finding(site.name, port.name, expected="an input", got="an empty name", fix=f"input {i} must be there")
    for port, name in site.ports():
        what = f"{port.name} ({name})"
        dtype, shape = site.facts.type(name)
        if not _fits(site, port, name):
            expected, got = f"{port.dtype} of rank {port.rank}", f"{dtype} of shape {shape}"
            yield Finding(site.name, what, expected, got, _elsewhere(site, port, name))
        place = site.facts.place(name)
        if port.place not in ("value", place):
            fix = f"the compiler reads it while compiling: it must be in the file as {_PLACES[port.place]}"
            yield Finding(site.name, what, f"in place {port.place!r}", repr(place), fix)


_PLACES = {"constant": "a Constant node", "initializer": "an initializer"}


def _check_counts(site: Site) -> Iterator[Finding]:
    inputs, given = site.contract.inputs, len(site.node.input)
    names = ", ".join(f"[{port.name}]" if port.optional else port.name for port in inputs)
    if not site.fewest <= given <= len(inputs):
        many = str(len(inputs)) if site.fewest == len(inputs) else f"{site.fewest} to {len(inputs)}"
        yield Finding(site.name, "inputs", many, str(given), f"in this order: {names}")
    outputs = list(site.node.output)
    if not outputs or not outputs[0]:
        yield Finding(site.name, "outputs", "1", "none")
    elif any(outputs[1:]):
        fix = "the operator has one output; a second one that nobody reads can go"
        yield Finding(site.name, "outputs", "1", str(len(outputs)), fix, severity=NOTE if len(outputs) == 2 else "error")


def _fits(site: Site, port: Port, name: str) -> bool:
    dtype, shape = site.facts.type(name)
    return dtype == port.dtype and shape is not None and len(shape) == port.rank


def _elsewhere(site: Site, port: Port, name: str) -> str:
    """Where a value that does not fit its port would fit, if the one there does not fit either."""
    inputs = site.ports()[:-1]
    if site.facts.type(name)[1] is None:
        return "give the file types and shapes: its exporter wrote none here"
    for other, there in inputs:
        if other is not port and _fits(site, other, name) and not _fits(site, other, there):
            return f"it fits the port {other.name}: the order is {', '.join(each.name for each, _ in inputs)}"
    dtype, shape = site.facts.type(name)
    if shape is not None and len(shape) == port.rank and dtype != port.dtype:
        return f"write it as {port.dtype}: a plugin reads the bytes as that whatever they are"
    return ""
