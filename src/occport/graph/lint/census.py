"""What a file holds: its operators and how many of each, to be held against what a chip supports."""

from __future__ import annotations

from collections import Counter

import onnx

from .facts import NO_TYPE, Facts
from .scopes import operator_of


def census(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each operator, as `domain::OpType`; most frequent first."""
    counts = Counter(operator_of(node) for node in model.graph.node)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def signatures(model: onnx.ModelProto) -> list[dict[str, object]]:
    """The different kinds of nodes: operator, attributes, dtype and rank of each input and output, and how many there are.

    This is what one holds against the list of operators that a chip supports.
    """
    facts = Facts(model)

    def port(name: str) -> str:
        if not name:
            return "-"
        dtype, shape = facts.type(name)
        dtype = "?" if dtype == NO_TYPE else dtype
        constant = facts.place(name) != "value"
        return f"{dtype}[{len(shape) if shape is not None else '?'}]{' const' if constant else ''}"

    counts: Counter[tuple[str, str, str, str]] = Counter()
    for node in model.graph.node:
        attributes = ", ".join(f"{item.name}={_short(item)}" for item in sorted(node.attribute, key=lambda item: item.name))
        counts[operator_of(node), attributes, ", ".join(map(port, node.input)), ", ".join(map(port, node.output))] += 1
    return [
        {"operator": operator, "attributes": attributes, "inputs": inputs, "outputs": outputs, "count": count}
        for (operator, attributes, inputs, outputs), count in sorted(counts.items())
    ]


def _short(attribute: onnx.AttributeProto) -> str:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return f"tensor {list(attribute.t.dims)}"
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else str(value)
