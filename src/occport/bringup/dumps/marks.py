"""Which tensors inside a network are asked for: those of the custom nodes, those between stages, all, or some by name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from onnx import NodeProto

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.contract import TWIN_DOMAIN
from ...graph.stages import stages_of
from ...graph.submodel import value_types
from .axes import levels_of

SETS = ("custom", "stages", "all")


def marked(file: NetworkFile, marks: Iterable[str]) -> list[str]:
    """The tensors that some marks mean, in graph order; in any case the file's inputs and outputs, and what tells the voxel of each slot.

    Args:
        marks: of SETS ("custom": what custom nodes read and make; "stages": what one stage of the network hands to another), names of
            tensors, and patterns of the shell (`*`, `?`, `[...]`) for names.

    Errors: ModelFileError for a name or a pattern that no tensor has, and for "custom" where there are no custom nodes.
    """
    known = named_tensors(file)
    wanted = {info.name for info in file.model.graph.output} | set(file.input_names)
    wanted |= {level.slots for level in levels_of(file).values()}
    for mark in marks:
        wanted |= set(_meant(file, mark, known))
    return [name for name in known if name in wanted]


def named_tensors(file: NetworkFile) -> list[str]:
    """Every tensor that follows from the inputs, typed: inputs, then in graph order; neither weights nor constants."""
    graph, types = file.model.graph, value_types(file.model.graph)
    live = dict.fromkeys(file.input_names)
    for node in graph.node:
        if any(name in live for name in node.input):
            live.update(dict.fromkeys(name for name in node.output if name))
    return [name for name in live if name in types]


def _meant(file: NetworkFile, mark: str, known: Collection[str]) -> Iterable[str]:
    if mark == "all":
        return known
    if mark == "custom":
        return _of_custom_nodes(file, known)
    if mark == "stages":
        return _between_stages(file, known)
    if mark in known:
        return [mark]
    found = [name for name in known if fnmatchcase(name, mark)]
    if not found:
        near = difflib.get_close_matches(mark, [*SETS, *known], n=1)
        fix = f"did you mean {near[0]!r}?" if near else "`--list` prints the names"
        expected = f"{', '.join(SETS)}, or the name of one of {len(known)} tensors"
        raise ModelFileError(f"--mark {mark}", expected=expected, got="no such tensor", fix=fix)
    return found


def _of_custom_nodes(file: NetworkFile, known: Collection[str]) -> Iterable[str]:
    nodes = custom_nodes_of(file)
    if not nodes:
        fix = "take `--mark stages`, `--mark all`, or names"
        raise ModelFileError("--mark custom", expected="a file with custom nodes", got=f"none of {file.dialect.name}", fix=fix)
    return [name for node in nodes for name in (*node.input, *node.output) if name in known]


def custom_nodes_of(file: NetworkFile) -> list[NodeProto]:
    """The nodes of the file's dialect, in graph order."""
    kinds = {(one.domain or TWIN_DOMAIN, one.op_type) for one in (file.dialect.msda, file.dialect.dcn) if one is not None}
    return [node for node in file.model.graph.node if (node.domain, node.op_type) in kinds]


def _between_stages(file: NetworkFile, known: Collection[str]) -> Iterable[str]:
    """Tensors that a node of another stage than their own reads. Inputs belong to no stage."""
    stages = stages_of(file.model.graph)
    made = {name: stages[name] for node in file.model.graph.node for name in node.output if name in known}
    for node in file.model.graph.node:
        stage = stages[node.output[0]]
        yield from (name for name in node.input if made.get(name, stage) != stage)
