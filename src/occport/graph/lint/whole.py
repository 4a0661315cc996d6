"""All rooms of lint, in the order of a reader: the file, its operators, its wiring, each custom node, its types, the chip's list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from ..dialect import Dialect
from .facts import Facts
from .finding import NOTE, Finding
from .makers import check_makers, makers_of
from .node import check_node
from .operators import check_operators
from .scopes import Scope, scopes
from .site import Site, contract_of
from .structure import check_age, check_data_dependence, check_static
from .support import Support, check_support
from .types import with_types
from .versions import check_functions, check_schemas, check_versions, opset_of
from .wiring import check_names, check_wiring, unreachable_inputs


def lint(
    model: onnx.ModelProto,
    dialect: Dialect,
    *,
    folder: Path | None = None,
    opset: int | None = None,
    support: Mapping[str, list[Support]] | None = None,
) -> list[Finding]:
    """Every way in which a file of any origin is not what a dialect says; the model itself is not changed, and nothing is run.

    Args:
        model: the file, or its skeleton (`model_file.read_skeleton`).
        folder: where its external data lie; None: numbers in there count as unknown.
        opset: the one that the file must have; None: any from 11 to 22.
        support: the operators of a chip (`support.read_support`).

    Errors: ModelFileError where constants that must be read are damaged or missing.
    """
    wiring = check_wiring(model)
    findings = [*check_versions(model, dialect, opset), *check_functions(model, dialect), *check_operators(model, dialect), *wiring]
    typed, notes = (model, []) if wiring else with_types(model, dialect, folder)
    facts = Facts(typed, folder)
    makers = {} if wiring else makers_of(typed.graph)  # a damaged graph can have rings
    for site in _sites(typed, dialect, facts, folder):
        findings += check_node(site)
        findings += check_makers(site, makers) if site.counts_fit else []
    findings += check_data_dependence(model)
    findings += check_static(typed, facts)
    if wiring:
        fix = "mend them first"
        findings.append(Finding("", "schemas", "values that hang together", "the errors above: not looked at", fix, NOTE))
    else:
        findings += check_schemas(typed)
    for name in unreachable_inputs(model):
        fix = "what it should change is baked in, or was cut off: trace it again"
        findings.append(Finding("", f"input {name}", "a way to an output", "none", fix))
    findings += check_age(model, opset_of(model) or 0)
    findings += [*check_names(model), *notes]
    if support is not None:
        findings += check_support(typed, support, facts)
    return findings


def _sites(model: onnx.ModelProto, dialect: Dialect, facts: Facts, folder: Path | None) -> Iterator[Site]:
    """The dialect's nodes in the main graph and in subgraphs; in a function nothing is known of sizes."""
    for scope in scopes(model):
        if scope.function is None:
            inside = facts if scope.outer is None else _inside(model, scope, facts, folder)
            for node in scope.nodes:
                contract = contract_of(node, dialect)
                if contract is not None:
                    yield Site(node, contract, inside)


def _inside(model: onnx.ModelProto, scope: Scope, facts: Facts, folder: Path | None) -> Facts:
    """The facts of a subgraph, with those of all graphs around it."""
    assert scope.outer is not None
    outer = facts if scope.outer.outer is None else _inside(model, scope.outer, facts, folder)
    return Facts(model, folder, scope.graph, outer)
