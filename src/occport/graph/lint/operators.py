"""Names and domains of the custom nodes: an operator that a target does not know makes the whole file unusable."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import onnx

from .. import dialect as dialects
from ..dialect import Dialect
from .finding import NOTE, Finding
from .scopes import STANDARD_DOMAINS, is_custom, label, operator_of, scopes
from .site import contract_of


def check_operators(model: onnx.ModelProto, dialect: Dialect) -> Iterator[Finding]:
    """Custom nodes that the dialect does not have, none at all where it has some, and the imports of their domains."""
    custom = [node for scope in scopes(model) if scope.function is None for node in scope.nodes if is_custom(node)]
    strangers = [node for node in custom if contract_of(node, dialect) is None]
    hints: dict[str, str] = {}  # a file can have thousands of them
    for node in strangers:
        operator = operator_of(node)
        if operator not in hints:
            hints[operator] = _hint(node, dialect)
        yield Finding(label(node), "operator", describe(dialect), operator, hints[operator])
    if dialect.msda is not None and len(strangers) == len(custom):
        fix = "choose the dialect that the file was written in with --dialect, or write this one with `occport retarget`"
        yield Finding("", "custom nodes", f"nodes of dialect {dialect.name}: {describe(dialect)}", "none", fix)
    yield from _check_imports(model, dialect, {node.domain for node in custom} - set(STANDARD_DOMAINS))


def describe(dialect: Dialect) -> str:
    """The operators of a dialect in words."""
    contracts = [contract.title for contract in (dialect.msda, dialect.dcn) if contract is not None]
    return " or ".join(contracts) if contracts else "standard operators only"


def _hint(node: onnx.NodeProto, dialect: Dialect) -> str:
    homes = [name for name in dialects.names() if name != dialect.name and contract_of(node, dialects.load(name)) is not None]
    if homes:
        return f"it belongs to {' and '.join(homes)}: give --dialect {homes[0]}, or `occport retarget --to {dialect.name}`"
    contracts = [contract for contract in (dialect.msda, dialect.dcn) if contract is not None]
    for contract in contracts:
        if contract.op_type == node.op_type:
            return f"the name is right, the domain must be {contract.domain!r}"
    by_name = {contract.op_type.lower(): contract for contract in contracts}
    near = difflib.get_close_matches(node.op_type.lower(), by_name, n=1, cutoff=0.6)
    if near:
        return f"did you mean {by_name[near[0]].title}?"
    return "a target without it refuses the file: write it in operators that the target has"


def _check_imports(model: onnx.ModelProto, dialect: Dialect, used: set[str]) -> Iterator[Finding]:
    imports = {entry.domain: entry.version for entry in model.opset_import}
    for domain in sorted(used):
        version = dialect.domains.get(domain)
        if domain not in imports:
            fix = "add the domain to opset_import: readers refuse the file without"
            yield Finding("", f"opset_import of domain {domain!r}", f"version {version or 1}", "none", fix)
        elif version is not None and imports[domain] != version:
            yield Finding("", f"opset_import of domain {domain!r}", f"version {version}", str(imports[domain]))
    bodies = {node.domain for scope in scopes(model) if scope.function is not None for node in scope.nodes}
    for domain in sorted(imports.keys() - used - bodies - set(STANDARD_DOMAINS)):
        fix = "some readers want a library for every domain that is imported: leave it out"
        yield Finding("", f"opset_import of domain {domain!r}", "only domains in use", "no node of it", fix, NOTE)
