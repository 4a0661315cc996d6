"""A file with custom nodes, of any origin: which dialect it is in, with the types that it does not tell worked out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from ...errors import ExportError, ModelFileError
from ..dialect import Dialect, load, names
from ..lint.finding import ERROR
from ..lint.types import with_types
from ..lint.wiring import check_wiring
from ..model_file import iter_initializers, read_skeleton
from ..opset import OPSETS
from ..precision.emulate import has_low_weights
from ..twin import proto_to_twin

_DEFAULT_DOMAIN = ("", "ai.onnx")


class Foreign(NamedTuple):
    """What was read: a skeleton (weights on disk, in `folder`) whose custom nodes are named, typed, and under their twin's domain."""

    model: ModelProto
    dialect: Dialect
    opset: int
    folder: Path
    others: tuple[str, ...]  # custom operators that are none of the dialect's


def read_foreign(path: Path, origin: str | None) -> Foreign:
    """Reads a file and finds what its custom nodes are.

    Args:
        origin: name or file of its dialect; None finds it by the names of the nodes.

    Raises:
        ModelFileError: no ONNX model, one of 16 bits, weights that are missing, an opset that is none of 11 to 22, custom nodes of no
            dialect, of several, or inside a branch or a loop; values that no node makes, or two.
        ExportError: `origin` is no dialect, or has no custom nodes.
    """
    told = named(origin, "--from") if origin is not None else None
    model = read_skeleton(path)
    for _ in iter_initializers(model, path.parent):
        pass  # looks at each: what is missing or leads out of the folder is found now, not while writing
    if has_low_weights(model):
        fix = "take the float32 file; `occport export --precision` writes 16-bit ones for every dialect"
        raise ModelFileError(f"model file {path}", expected="numbers in float32", got="some of 16 bits", fix=fix)
    opset = next((entry.version for entry in model.opset_import if entry.domain in _DEFAULT_DOMAIN), 0)
    if opset not in OPSETS:
        expected = f"opset {OPSETS[0]} to {OPSETS[-1]}"
        raise ModelFileError(f"model file {path}", expected=expected, got=f"opset {opset}" if opset else "none", fix="export it anew")
    loose = check_wiring(model)
    if loose:
        what = ": ".join(filter(None, (str(path), loose[0].node, loose[0].what)))
        raise ModelFileError(what, expected=loose[0].expected, got=loose[0].got, fix=loose[0].fix)
    custom = custom_names(model.graph)
    dialect = told or identify(custom, str(path))
    mine = contract_names(dialect)
    if not mine:
        raise ExportError(
            f"--from {dialect.name}", expected="a dialect with custom nodes", got="one without: nothing tells which nodes belong together",
            fix="export again for the other target",
        )  # fmt: skip
    _check_places(model.graph, mine, path)
    if not mine & {(node.domain, node.op_type) for node in model.graph.node}:
        wanted, fix = " or ".join(sorted(map(_title, mine))), "choose another dialect with --from"
        raise ModelFileError(f"model file {path}", expected=f"nodes {wanted}", got=_listed(custom), fix=fix)
    _drop_bodies(model, mine)
    _name_nodes(model.graph, mine)
    _drop_unread_outputs(model.graph, mine)
    _import_domains(model)
    typed = with_shapes(model, dialect, path.parent, str(path))
    proto_to_twin(typed, dialect)
    return Foreign(typed, dialect, opset, path.parent, tuple(sorted(map(_title, custom - mine))))


def named(name: str, flag: str) -> Dialect:
    """A dialect by name or file. ExportError with the flag that named it."""
    if name not in names() and not name.endswith(".toml"):
        raise ExportError(f"{flag} {name}", expected=f"one of {', '.join(names())}, or a .toml file", got="an unknown name")
    return load(name)


def contract_names(dialect: Dialect) -> set[tuple[str, str]]:
    """(domain, operator) of the dialect's custom nodes, as they stand in a file."""
    return {(contract.domain, contract.op_type) for contract in (dialect.msda, dialect.dcn) if contract is not None}


def identify(custom: set[tuple[str, str]], what: str) -> Dialect:
    """The one built-in dialect that knows all those custom nodes which any knows. ModelFileError where there is none, or several."""
    known = [load(name) for name in names()]
    familiar = custom & set().union(*(contract_names(dialect) for dialect in known))
    fitting = [dialect for dialect in known if familiar and familiar <= contract_names(dialect)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        several = ", ".join(dialect.name for dialect in fitting)
        fix = "choose one with --from"
        raise ModelFileError(f"{what}: {_listed(familiar)}", expected="nodes of one dialect", got=f"those of {several}", fix=fix)
    if familiar:
        raise ModelFileError(what, expected="nodes of one dialect", got=_listed(familiar), fix="give --from a .toml file that has them all")
    fix = "give --from a .toml file that describes them" if custom else "only files with custom nodes can be retargeted"
    raise ModelFileError(what, expected="custom nodes of a known dialect", got=_listed(custom), fix=fix)


def custom_names(graph: GraphProto) -> set[tuple[str, str]]:
    """(domain, operator) of every node that ONNX does not define, those in branches and loops too."""
    return {(node.domain, node.op_type) for node in _all_nodes(graph) if not _is_standard(node)}


def with_shapes(model: ModelProto, dialect: Dialect, folder: Path, what: str) -> ModelProto:
    """A copy with every type that can be worked out; custom nodes stand as in a file. ModelFileError where types contradict each other."""
    typed, findings = with_types(model, dialect, folder)
    wrong = next((finding for finding in findings if finding.severity == ERROR), None)
    if wrong is not None:
        fix = "check it with onnx.checker"
        raise ModelFileError(f"model file {what}", expected="shapes that fit together", got=wrong.got, fix=fix)
    return typed


def _all_nodes(graph: GraphProto) -> list[NodeProto]:
    nodes = list(graph.node)
    for node in graph.node:
        for inner in _inner_graphs(node):
            nodes += _all_nodes(inner)
    return nodes


def _inner_graphs(node: NodeProto) -> list[GraphProto]:
    return [inner for attribute in node.attribute for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)]


def _check_places(graph: GraphProto, mine: set[tuple[str, str]], path: Path) -> None:
    for node in graph.node:
        for inner in _inner_graphs(node):
            hidden = [one for one in _all_nodes(inner) if (one.domain, one.op_type) in mine]
            if hidden:
                what = f"{path}: {hidden[0].name or hidden[0].output[0]}"
                raise ModelFileError(what, expected="custom nodes in the main graph", got=f"one inside {node.op_type} {node.name}")


def _drop_bodies(model: ModelProto, mine: set[tuple[str, str]]) -> None:
    """Removes function bodies of the custom nodes that are about to go; other functions stay."""
    kept = [function for function in model.functions if (function.domain, function.name) not in mine]
    del model.functions[:]
    model.functions.extend(kept)


def _name_nodes(graph: GraphProto, mine: set[tuple[str, str]]) -> None:
    """Gives custom nodes without a name, or with one that is taken, a name of their own."""
    taken = {node.name for node in graph.node if (node.domain, node.op_type) not in mine}
    for node in graph.node:
        if (node.domain, node.op_type) in mine:
            if not node.name or node.name in taken:
                stem, count = f"{node.op_type}_{node.output[0]}", 1
                node.name = stem
                while node.name in taken:
                    count += 1
                    node.name = f"{stem}_{count}"
            taken.add(node.name)


def _drop_unread_outputs(graph: GraphProto, mine: set[tuple[str, str]]) -> None:
    """Some exporters write a second output that nobody reads."""
    read = {name for node in _all_nodes(graph) for name in node.input} | {info.name for info in graph.output}
    for node in graph.node:
        while (node.domain, node.op_type) in mine and len(node.output) > 1 and node.output[-1] not in read:
            node.output.pop()


def _import_domains(model: ModelProto) -> None:
    """Some tools write custom nodes without saying so in the file's list of domains."""
    known = {entry.domain for entry in model.opset_import}
    for domain in sorted({node.domain for node in _all_nodes(model.graph)} - known - set(_DEFAULT_DOMAIN)):
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))


def _is_standard(node: NodeProto) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return bool(onnx.defs.has(node.op_type, domain=domain))


def _title(name: tuple[str, str]) -> str:
    return "::".join(name) if name[0] else name[1]


def _listed(found: set[tuple[str, str]]) -> str:
    return ", ".join(sorted(map(_title, found))) or "none"
