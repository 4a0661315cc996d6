"""What any file must be, whatever its operators: static types everywhere, nothing that depends on data, no racing scatter."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from ..lowering.old_exporter import TORCH_1_10_OPSET_11_OPS
from .facts import Facts
from .finding import NOTE, Finding
from .scopes import STANDARD_DOMAINS, is_custom, label, scopes

FORBIDDEN = ("Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "ScatterND", "Unique")  # data-dependent, or racing
OLD_OPSET = 11


def check_structure(model: onnx.ModelProto, opset: int, ir_version: int, functions: bool) -> list[str]:
    """Of a file that we wrote: opset, IR and functions exactly, static types everywhere, no data-dependent operator, no racing scatter."""
    findings = []
    imports = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if imports.get("ai.onnx") != opset:
        findings.append(f"opset_import: expected {opset}, got {imports.get('ai.onnx')}")
    if model.ir_version != ir_version:
        findings.append(f"ir_version: expected {ir_version}, got {model.ir_version}")
    if bool(model.functions) != functions:
        findings.append(f"functions: expected {'some' if functions else 'none'}, got {len(model.functions)}")
    facts = Facts(model)
    for node in model.graph.node:
        if node.op_type in FORBIDDEN and node.domain in STANDARD_DOMAINS:
            findings.append(f"{node.name}: {node.op_type}: expected no data-dependent operator")
        if _reduces(node):
            findings.append(f"{node.name}: {node.op_type}: expected no reduction; it races in ONNX Runtime")
        for name in filter(None, node.output):
            dtype, shape = facts.type(name)
            if name not in facts.constant_nodes and not is_static(shape):
                findings.append(f"{name}: expected a static shape, got {dtype} {shape}")
    return findings


def check_old_operators(model: onnx.ModelProto, opset: int) -> list[str]:
    """At opset 11: operators that torch 1.10's exporter did not have, and that a compiler of its time may not know."""
    return [f"{name}: torch 1.10's opset-11 exporter does not write it" for name in sorted(_new_operators(model, opset))]


def check_age(model: onnx.ModelProto, opset: int) -> Iterator[Finding]:
    """The same of any file, as notes."""
    for name, node in _new_operators(model, opset).items():
        fix = "a compiler of that time may not know it, although it is of that opset"
        yield Finding(label(node), name, "an operator that torch 1.10 wrote at opset 11", "one that came later", fix, NOTE)


def check_data_dependence(model: onnx.ModelProto) -> Iterator[Finding]:
    """The same of any file; a plain ScatterND is a note, as it is right where no index repeats."""
    for scope in scopes(model):
        for node in scope.nodes:
            if node.domain not in STANDARD_DOMAINS:
                continue
            if _reduces(node):
                fix = "it races in ONNX Runtime at two or more threads: gather back instead"
                yield Finding(label(node), node.op_type, "no reduction", f"reduction {_reduction(node)!r}", fix)
            elif node.op_type == "ScatterND":
                fix = "where indices repeat, the order of writing is nobody's promise"
                yield Finding(label(node), node.op_type, "a gather", "a scatter", fix, NOTE)
            elif node.op_type in FORBIDDEN:
                fix = "its shape or its way follows the data: most compilers refuse it, or bake in the data that was traced"
                yield Finding(label(node), node.op_type, "no data-dependent operator", "one", fix)


def check_static(model: onnx.ModelProto, facts: Facts) -> Iterator[Finding]:
    """Inputs and values of the main graph without dtype or with an axis that has no number."""
    fix = "export with fixed sizes, or give the inputs static shapes and run ONNX's shape inference"
    for value in model.graph.input:
        dtype, shape = facts.type(value.name)
        if not is_static(shape):
            yield Finding("", f"input ({value.name})", "a static shape", f"{dtype} {_words(shape)}", fix)
    for node in model.graph.node:
        for name in filter(None, node.output):
            dtype, shape = facts.type(name)
            if not is_static(shape):
                yield Finding(label(node), f"output ({name})", "a static shape", f"{dtype} {_words(shape)}", fix)


def is_static(shape: tuple[int, ...] | None) -> bool:
    """True where every axis has a number from 1 up."""
    return shape is not None and all(size > 0 for size in shape)


def _words(shape: tuple[int, ...] | None) -> str:
    return "without shape" if shape is None else f"[{', '.join('?' if size < 0 else str(size) for size in shape)}]"


def _reduces(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("Scatter") and _reduction(node) not in ("", "none")


def _reduction(node: onnx.NodeProto) -> str:
    return next((attribute.s.decode(errors="replace") for attribute in node.attribute if attribute.name == "reduction"), "")


def _new_operators(model: onnx.ModelProto, opset: int) -> dict[str, onnx.NodeProto]:
    """Operator → its first node, of those that torch 1.10 did not write at opset 11; none at later opsets."""
    found: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node if opset <= OLD_OPSET else ():
        if node.domain in STANDARD_DOMAINS and not is_custom(node) and node.op_type not in TORCH_1_10_OPSET_11_OPS:
            found.setdefault(node.op_type, node)
    return found
