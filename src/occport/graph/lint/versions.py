"""Opset, IR version and functions of a file, and whether every node is one of that opset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from ..contract import TWIN_DOMAIN
from ..dialect import Dialect
from ..lowering.schema_check import check_nodes_against_schema
from ..opset import FIRST_IR_WITH_FUNCTIONS, OPSETS, ir_version_for
from .finding import ERROR, NOTE, Finding
from .scopes import STANDARD_DOMAINS, is_custom, label, operator_of, scopes

FIRST_IR_WITH_FREE_INITIALIZERS = 4  # before it, every initializer is a graph input with a default


def opset_of(model: onnx.ModelProto) -> int | None:
    """The version of ONNX's own operators that the file imports."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), None)


def check_versions(model: onnx.ModelProto, dialect: Dialect, opset: int | None) -> Iterator[Finding]:
    """Opset and IR version.

    Args:
        opset: the one that the file must have; None: any that we know, with a note where it is later than the dialect's own.
    """
    got = opset_of(model)
    twice = [domain for domain, count in Counter(entry.domain for entry in model.opset_import).items() if count > 1]
    for domain in twice:
        yield Finding("", f"opset_import of domain {domain!r}", "one version", "several")
    known = f"{OPSETS[0]} to {OPSETS[-1]}"
    if got is None:
        yield Finding("", "opset_import", str(opset or known), "none", "without it no reader knows which operators are meant")
        return
    if opset is not None and got != opset:
        yield Finding("", "opset_import", str(opset), str(got), f"`occport export --opset {opset}`, or ONNX's version converter")
    elif opset is None and got not in OPSETS:
        yield Finding("", "opset_import", known, str(got), "give --opset if the target takes it")
    elif opset is None and got > dialect.opset:
        fix = f"give --opset {got} if the target takes it"
        yield Finding("", "opset_import", f"{dialect.opset}, the dialect's own, or less", str(got), fix, NOTE)
    usual = ir_version_for(got) if got in OPSETS else model.ir_version
    most = dialect.ir or max(usual, FIRST_IR_WITH_FUNCTIONS if model.functions else 0)
    if model.ir_version > most:
        expected = f"{most}, as the dialect says, or less" if dialect.ir else f"{most}, the usual one of opset {got}, or less"
        fix = "readers built for that opset refuse later ones; the number alone can be lowered"
        yield Finding("", "ir_version", expected, str(model.ir_version), fix, ERROR if dialect.ir else NOTE)
    inputs = {value.name for value in model.graph.input}
    if model.ir_version < FIRST_IR_WITH_FREE_INITIALIZERS and any(tensor.name not in inputs for tensor in model.graph.initializer):
        expected = f"{FIRST_IR_WITH_FREE_INITIALIZERS} or more in a file whose weights are no graph inputs"
        yield Finding("", "ir_version", expected, str(model.ir_version), f"readers refuse it: raise the number, to {usual} for instance")
    if model.functions and model.ir_version < FIRST_IR_WITH_FUNCTIONS:
        yield Finding("", "ir_version", f"{FIRST_IR_WITH_FUNCTIONS} or more in a file with functions", str(model.ir_version))


def check_functions(model: onnx.ModelProto, dialect: Dialect) -> Iterator[Finding]:
    """Functions that the target would choke on; custom nodes without a body where all must have one; bodies that do not fit.

    A body of the dialect's own node is a note: a target that goes by the node's name does not look at it.
    """
    named = {(contract.domain, contract.op_type) for contract in (dialect.msda, dialect.dcn) if contract is not None}
    if not dialect.functions:
        for function in model.functions:
            own_body = (function.domain, function.name) in named
            fix = "a target that does not know functions chokes on them: " + ("export without --functions" if own_body else "inline it")
            got = f"{function.domain}::{function.name}"
            yield Finding("", "functions", f"none in a file of dialect {dialect.name}", got, fix, NOTE if own_body else ERROR)
    else:
        bodies = {(function.domain, function.name) for function in model.functions}
        for scope in scopes(model):
            for node in scope.nodes:
                if is_custom(node) and (node.domain, node.op_type) not in bodies:
                    yield Finding(label(node), "function", f"a body for {operator_of(node)} in the file", "none", "export with --functions")
    own = opset_of(model)
    for function in model.functions:
        title = f"function {function.domain}::{function.name}"
        imports = {entry.domain: entry.version for entry in function.opset_import}
        if imports.get("", own) != own:
            yield Finding(title, "opset_import", f"{own}, as in the model", str(imports[""]))
        for domain in sorted({node.domain for node in function.node} - imports.keys() - set(STANDARD_DOMAINS)):
            yield Finding(title, "opset_import", f"domain {domain!r}, which its nodes have", "none")


def check_schemas(model: onnx.ModelProto) -> Iterator[Finding]:
    """Nodes that ONNX's own schemas do not allow at the file's opset. For a model whose wiring is sound; its types may be missing."""
    opset = opset_of(model)
    if opset is None or opset > onnx.defs.onnx_opset_version():
        return
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    for scope in scopes(renamed):
        for node in scope.nodes:
            if is_custom(node) and node.domain in STANDARD_DOMAINS:
                node.domain = TWIN_DOMAIN
            elif node.domain in STANDARD_DOMAINS:
                node.domain = ""
    try:
        graph = ir.from_proto(renamed)
    except ir.serde.SerdeError as error:
        yield Finding("", "graph", "one that ONNX's own readers take", _root(error), "export it again")
        return
    for violation in check_nodes_against_schema(graph, opset):
        if not violation.reason.endswith("has no type"):
            yield Finding(violation.node, violation.op, f"as opset {opset} has it", violation.reason, "lower it, or raise the file's opset")


def _root(error: BaseException) -> str:
    """The first cause of a chain of errors, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
