"""What makes the values of a port: mistakes that change no shape and no dtype, seen in the nodes that stand in front.

Only what is certain is said: a value is followed upwards through nodes that move numbers and do not change them, and where another
kind of node ends the way, nothing is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import onnx

from .finding import Finding
from .scopes import STANDARD_DOMAINS, label
from .site import Site

_MOVES = (
    "Cast", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip
_ANY_NUMBER = ("Add", "BatchNormalization", "Conv", "Gemm", "MatMul")  # what they give has no bounds
_ROW_BY_ROW = (*_MOVES, "Add", "Gemm", "MatMul", "Mul")  # on the way from a map to the values of an attention

Makers = Mapping[str, onnx.NodeProto]


def makers_of(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Value → the node that makes it."""
    return {name: node for node in graph.node for name in node.output if name}


def check_makers(site: Site, makers: Makers) -> Iterator[Finding]:
    """A softmax twice or not at all, a mask without its sigmoid, h and w of a map exchanged."""
    for port, name in site.ports()[:-1]:
        what, base = f"{port.name} ({name})", port.form.removesuffix("_merged")
        if base == "attention_logits" and (node := _maker(name, makers, ("Softmax",))) is not None:
            fix = "the target takes the softmax itself: give it what stands before"
            yield Finding(site.name, what, "numbers before the softmax", f"those of the Softmax {label(node)}", fix)
        elif base in ("attention_weights", "mask") and (node := _maker(name, makers, _ANY_NUMBER)) is not None:
            function = "sigmoid" if base == "mask" else "softmax"
            fix = f"the target does not take the {function} itself: put it in front"
            yield Finding(site.name, what, f"numbers after a {function}", f"those of the {node.op_type} {label(node)}", fix)
        elif base == "spatial_shapes" and (array := site.facts.constant(name)) is not None:
            maps, declared = _flattened(site, makers), array.tolist()
            if len(maps) == 1 and declared == [[maps[0][1], maps[0][0]]] and maps[0][0] != maps[0][1]:
                fix = "h comes first: exchanged, other places of the map are read, and no size tells"
                yield Finding(site.name, what, f"{[list(maps[0])]}, (h, w) of the map that was flattened", str(declared), fix)


def _maker(name: str, makers: Makers, kinds: tuple[str, ...]) -> onnx.NodeProto | None:
    """The node of one of these kinds whose numbers the value holds, be they moved; None where it is another."""
    node = makers.get(name)
    while node is not None and node.domain in STANDARD_DOMAINS and node.op_type in _MOVES:
        node = makers.get(node.input[0])
    return node if node is not None and node.domain in STANDARD_DOMAINS and node.op_type in kinds else None


def _flattened(site: Site, makers: Makers) -> list[tuple[int, int]]:
    """(h, w) of the map whose two axes became S, seen from the values upwards; none where there is no such place, or several maps."""
    name = next((name for port, name in site.ports() if port.form == "value"), "")
    shape, node = site.facts.static_shape(name) or (), makers.get(name)
    while len(shape) == 4 and node is not None and node.domain in STANDARD_DOMAINS and node.op_type in _ROW_BY_ROW:
        sources = [source for source in node.input if site.facts.place(source) == "value"]
        if len(sources) != 1:
            break
        sizes = site.facts.static_shape(sources[0]) or ()
        pairs = [pair for pair in pairwise(sizes) if math.prod(pair) == shape[1] and 1 not in pair]
        if pairs and len(sizes) >= 4 and node.op_type in ("Flatten", "Reshape"):
            return pairs
        node = makers.get(sources[0])
    return []
