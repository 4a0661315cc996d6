"""Where in the network a node or a tensor of a file is: its stage, by the name of the node that makes it."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, NodeProto

# Which stage a module and all below it belong to; the longest path that fits decides. Nodes of an exported file are called after their
# module, with _ for the dots, so that the same table holds for them. A prepared network has its neck inside its backbone.
PATHS = (
    ("projection", "tables"),
    ("img_backbone", "backbone"),
    ("img_neck", "neck"),
    ("img_backbone.neck", "neck"),
    *((f"img_backbone.transfer.{i}", f"level {i}") for i in range(3)),
    *((f"pts_bbox_head.transfer_conv.{i}", f"level {i}") for i in range(3)),
    *((f"pts_bbox_head.transformer.{i}", f"level {i}") for i in range(3)),
    ("pts_bbox_head", "decoder"),
)
REST = "rest"  # what belongs to no module, and a runtime's own overhead
PLACES = ("tables", "backbone", "neck", "level 0", "level 1", "level 2", "decoder")  # in the order of the way of the data

_PREFIXES = sorted(((path.replace(".", "_") + "_", stage) for path, stage in PATHS), key=lambda pair: -len(pair[0]))


def stage_of_node(name: str) -> str:
    """The stage of a node of an exported file by its name; "" for a name that tells nothing."""
    return next((stage for prefix, stage in _PREFIXES if name.startswith(prefix)), "")


def first_output(node: NodeProto) -> str:
    """The first output that a node really has, as an optional one may be left out; "" for a node without any."""
    return next(filter(None, node.output), "")


class _Stages(dict[str, str]):
    """Tensor → stage; an output that a node leaves out has the name "", and the stage `REST`."""

    def __missing__(self, name: str) -> str:
        if name:
            raise KeyError(name)
        return REST


def stages_of(graph: GraphProto) -> Mapping[str, str]:
    """The stage of every tensor of a main graph by its name, inputs and weights left out; of "" it is `REST`.

    A node whose name tells nothing belongs where its first input with a stage comes from, else where it is read first, else to `REST`.
    """
    found: dict[str, str] = {}
    for node in graph.node:
        known = next((found[name] for name in node.input if found.get(name)), "")
        found.update(dict.fromkeys(filter(None, node.output), stage_of_node(node.name) or known))
    for node in reversed(graph.node):
        stage = found.get(first_output(node), "")
        for name in node.input:
            if found.get(name) == "":
                found[name] = stage
    return _Stages({name: stage or REST for name, stage in found.items()})
