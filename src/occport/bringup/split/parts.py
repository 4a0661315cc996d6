"""Where a file is cut: the parts of its network in the order in which they run, and the tensors that go from one to another."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.names import identifier
from ...graph.stages import PLACES, REST, first_output, stages_of
from ...graph.submodel import needed, value_types

HEADS = "heads"  # the class heads: each scale's logits and what becomes of them, labels or probabilities
BETWEEN = "part"  # the one that is asked for by its ends
_BEFORE, _AFTER = "before", "after"
_CLASS_HEAD = "pts_bbox_head_occ_"  # names of the nodes that make logits begin so
_ORDER = (REST, *PLACES, HEADS)
_NAMED = 5  # tensors in a message


@dataclass(frozen=True)
class Part:
    """Some nodes of a network.

    Attributes:
        name: as an identifier: "level_0".
        stage: of the network ("level 0", or HEADS); "" for a part by its ends.
        nodes: how many follow from the file's inputs.
        inputs: tensors that it reads from the file's inputs or from parts before it.
        outputs: tensors that it gives: those that parts behind it read and those that are outputs of the file, in graph order; of a part
            by its ends: its ends.
        others: tensors inside of it that what runs behind reads beside its ends.
    """

    name: str
    stage: str
    nodes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    others: tuple[str, ...] = ()


def stage_parts(file: NetworkFile) -> list[Part]:
    """The parts of a network by its stages, in an order in which they can run: tables, backbone, neck, level 0, level 1, level 2, decoder
    and HEADS, as far as the file has them.

    Errors: ModelFileError for a file whose nodes' names tell no stage, or whose stages need each other's tensors.
    """
    graph = file.model.graph
    stages, live = _stages_with_heads(graph), _live_nodes(file, ())
    owners = {i: stages[i] for i in live}
    if set(owners.values()) <= {REST}:
        expected, fix = "nodes named after SurroundOcc's modules", "cut it between tensors with --from and --to"
        raise ModelFileError(f"stages of {file.path}", expected=expected, got="none of these names", fix=fix)
    order = _in_order(graph, owners, file)
    owners |= dict.fromkeys(_output_makers(graph) - live, order[-1])  # an output that is a constant
    return [_part(file, owners, stage, identifier(stage), stage) for stage in order]


def part_between(file: NetworkFile, begin: Sequence[str], end: Sequence[str]) -> list[Part]:
    """The part between some tensors and others, called BETWEEN, with what runs before and behind it, where there is anything.

    Args:
        begin: where it begins; () for the file's inputs.
        end: where it ends; () for those of the file's outputs that follow from the beginning.

    Errors: ModelFileError for a tensor that the file does not have or that is a constant, ends that do not follow from the beginning
        alone, a beginning that is not needed or lies behind what it begins, and one with nothing behind it.
    """
    graph = file.model.graph
    live = _live_nodes(file, (*begin, *end))
    known = value_types(graph).keys() & {*file.input_names, *(name for i in live for name in graph.node[i].output)}
    for flag, names in (("--from", begin), ("--to", end)):
        for name in names:
            _check_tensor(flag, name, known)
    starts = list(dict.fromkeys(begin or file.input_names))
    ends = list(dict.fromkeys(end or _outputs_behind(graph, starts)))
    for name in end:
        if name in starts or name in file.input_names:
            raise ModelFileError(f"--to {name}", expected="a tensor behind the beginning", got="where it begins", fix="name a later one")
    if not ends:
        got, fix = "nothing behind it", "name an earlier one, or the end with --to"
        raise ModelFileError(f"--from {starts[0]}", expected="a tensor that an output follows from", got=got, fix=fix)
    inside = _numbers_inside(file, starts, ends, bool(begin)) & live
    behind = _following(graph, inside) & live
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
    for name in begin:
        if makers.get(name, -1) in inside | behind:
            expected, fix = "tensors that do not follow from each other", "leave it out: it is made inside of the part"
            raise ModelFileError(f"--from {name}", expected=expected, got="one that follows from the part's own nodes", fix=fix)
    owners = {i: BETWEEN if i in inside else _AFTER if i in behind else _BEFORE for i in live | _output_makers(graph)}
    parts = [_part(file, owners, name, name, "", (starts, ends) if name == BETWEEN else ((), ())) for name in (_BEFORE, BETWEEN, _AFTER)]
    return [part for part in parts if part.outputs]


def chosen(parts: Sequence[Part], names: Iterable[str]) -> list[Part]:
    """Those parts that are named, in their own order; "stages" names all.

    Errors: ModelFileError for a name that no part has.
    """
    wanted = {identifier(name) for name in names}
    known = [part.name for part in parts]
    for name in sorted(wanted - {"stages"} - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        fix = f"did you mean {near[0]!r}?" if near else "`--list` prints the parts"
        raise ModelFileError(f"--parts {name}", expected=f"stages, or some of {', '.join(known)}", got="no such part", fix=fix)
    return [part for part in parts if part.name in wanted or "stages" in wanted]


def _stages_with_heads(graph: GraphProto) -> list[str]:
    """The stage of every node; what follows from a class head's node belongs to HEADS."""
    stages = stages_of(graph)
    behind: set[str] = set()
    found = []
    for node in graph.node:
        if node.name.startswith(_CLASS_HEAD) or behind & set(node.input):
            behind |= set(filter(None, node.output))
            found.append(HEADS)
        else:
            found.append(stages[first_output(node)])
    return found


def _live_nodes(file: NetworkFile, wanted: Collection[str]) -> set[int]:
    """Numbers of the nodes that follow from the file's inputs, and that its outputs or some wanted tensors need."""
    graph = file.model.graph
    used = {*wanted, *(info.name for info in graph.output)}
    used |= needed(graph, (), used)[1]
    names = set(file.input_names)
    found = set()
    for i, node in enumerate(graph.node):
        if names & set(node.input):
            names |= set(filter(None, node.output))
            if used & set(node.output):
                found.add(i)
    return found


def _output_makers(graph: GraphProto) -> set[int]:
    outputs = {info.name for info in graph.output}
    return {i for i, node in enumerate(graph.node) if outputs & set(node.output)}


def _outputs_behind(graph: GraphProto, starts: Collection[str]) -> list[str]:
    """The file's outputs that follow from some tensors."""
    names = set(starts)
    for node in graph.node:
        if names & set(node.input):
            names |= set(filter(None, node.output))
    return [info.name for info in graph.output if info.name in names - set(starts)]


def _in_order(graph: GraphProto, owners: Mapping[int, str], file: NetworkFile) -> list[str]:
    """Stages so that each reads from those before it only; of those that could be next, the first in the way of the data."""
    made = {name: owners[i] for i in owners for name in graph.node[i].output if name}
    reads: dict[str, set[str]] = {stage: set() for stage in owners.values()}
    for i, stage in owners.items():
        reads[stage] |= {made[name] for name in graph.node[i].input if name in made} - {stage}
    order: list[str] = []
    while len(order) < len(reads):
        ready = [stage for stage in _ORDER if stage in reads and stage not in order and reads[stage] <= set(order)]
        if not ready:
            stuck = ", ".join(stage for stage in _ORDER if stage in reads and stage not in order)
            expected, fix = "stages of which each needs earlier ones only", "cut it between tensors with --from and --to"
            raise ModelFileError(f"stages of {file.path}", expected=expected, got=f"{stuck} that need each other", fix=fix)
        order.append(ready[0])
    return order


def _part(
    file: NetworkFile, owners: Mapping[int, str], owner: str, name: str, stage: str,
    asked: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Part:  # fmt: skip
    """The part of the nodes of one owner. `asked`: inputs that come first, and its ends where it has any."""
    graph = file.model.graph
    mine = [graph.node[i] for i in sorted(owners) if owners[i] == owner]
    made = {output: None for node in mine for output in node.output if output}
    known = {output for i in owners for output in graph.node[i].output if output} | set(file.input_names)
    reads = dict.fromkeys(read for node in mine for read in node.input if read in known and read not in made)
    wanted = {read for i in owners if owners[i] != owner for read in graph.node[i].input} | {info.name for info in graph.output}
    gives, first = tuple(out for out in made if out in wanted), dict.fromkeys(read for read in asked[0] if read in reads)
    ends = tuple(asked[1])
    return Part(name, stage, len(mine), tuple(first | reads), ends or gives, tuple(out for out in gives if ends and out not in ends))


def _check_tensor(flag: str, name: str, known: Collection[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    fix = f"did you mean {near[0]!r}?" if near else "`occport golden MODEL.onnx --mark all --list` prints the names"
    raise ModelFileError(f"{flag} {name}", expected=f"one of {len(known)} tensors that follow from the inputs", got="none of them", fix=fix)


def _numbers_inside(file: NetworkFile, starts: Sequence[str], ends: Sequence[str], named: bool) -> set[int]:
    """Numbers of the nodes between. ModelFileError where the ends need more than the beginning, or less where it was named."""
    graph = file.model.graph
    nodes, read = needed(graph, starts, ends)
    if any(name in read and name not in starts for name in file.input_names):
        raise _lacking(file, starts, ends, nodes)
    idle = [name for name in starts if name not in read]
    if named and idle:
        expected, fix = f"a tensor that {ends[0]} is made from", "leave it out"
        raise ModelFileError(f"--from {idle[0]}", expected=expected, got="one that nothing between reads", fix=fix)
    outputs = {name for node in nodes for name in node.output if name}
    return {i for i, node in enumerate(graph.node) if outputs & set(node.output)}


def _lacking(file: NetworkFile, starts: Sequence[str], ends: Sequence[str], nodes: Sequence[NodeProto]) -> ModelFileError:
    """What to say where the ends need more than the beginning. `nodes`: all that the ends need from there and from the file's inputs."""
    given, behind = set(file.input_names), set(starts)
    for node in nodes:
        given |= set(filter(None, node.output)) if given & set(node.input) else set()
        behind |= set(filter(None, node.output)) if behind & set(node.input) else set()
    expected = f"to follow from {', '.join(starts)}"
    for name in ends:
        if name not in behind:
            before = name in needed(file.model.graph, (), starts)[1]
            got, fix = ("one that lies before it", "exchange --from and --to") if before else ("one that does not", "leave it out")
            return ModelFileError(f"--to {name}", expected=expected, got=got, fix=fix)
    reads = dict.fromkeys(read for node in nodes if behind & set(node.input) for read in node.input)
    lost = [name for name in reads if name in given and name not in behind]
    got = f"{', '.join(lost[:_NAMED])}{f' and {len(lost) - _NAMED} more' if len(lost) > _NAMED else ''} needed, too"
    fix = f"begin at {'it' if len(lost) == 1 else 'them'}, too, or earlier"
    return ModelFileError(f"--to {ends[0]}", expected=expected, got=got, fix=fix)


def _following(graph: GraphProto, inside: set[int]) -> set[int]:
    """Numbers of the nodes that follow from some, without these."""
    names: set[str] = set()
    found = set()
    for i, node in enumerate(graph.node):
        if i in inside or names & set(node.input):
            names |= set(filter(None, node.output))
            found |= {i} - inside
    return found
