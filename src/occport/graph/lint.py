"""Holding a written file against what it must be, field by field: a wrong number in a scalar passes every numeric check.

What is expected comes from the config, the budgets and the dialect alone, never from the code that wrote the nodes. Works on a
model whose weights stay on disk (`model_file.read_skeleton`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..config import Config
from .contract import Contract, Port
from .dialect import Dialect
from .lowering.old_exporter import TORCH_1_10_OPSET_11_OPS

FORBIDDEN = ("If", "Loop", "NonZero", "Scan", "ScatterND")  # data-dependent, or racing in ONNX Runtime
OLD_OPSET = 11
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@dataclass(frozen=True)
class ExpectedAttention:
    """Sizes of one attention node, from the config."""

    images: int
    slots: int
    heads: int
    head_width: int
    points: int
    feat_hw: tuple[int, int]


@dataclass(frozen=True)
class Expected:
    """The custom nodes that a network must have, in graph order."""

    attention: tuple[ExpectedAttention, ...]
    deform_convs: int
    deform_groups: int


def expected_nodes(config: Config, image_hw: tuple[int, int], slots: Sequence[int], batch: int = 1) -> Expected:
    """What the config says about the custom nodes. `slots`: K of each level, fine to coarse."""
    attention = [
        ExpectedAttention(
            batch * config.num_cameras, slots[i], level.num_heads, level.width // level.num_heads, level.num_points,
            (image_hw[0] // (8 << i), image_hw[1] // (8 << i)),
        )
        for i, level in enumerate(config.levels)
        for _ in range(level.num_layers)
    ]  # fmt: skip
    stages = zip(BLOCKS[config.backbone.depth], config.backbone.stage_with_dcn, strict=True)
    return Expected(tuple(attention), sum(blocks for blocks, deformable in stages if deformable), config.backbone.deform_groups)


class Facts:
    """Names → types and constant values of a model's main graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.types: dict[str, tuple[str, tuple[int, ...] | None]] = {}
        for info in (*graph.input, *graph.value_info, *graph.output):
            tensor = info.type.tensor_type
            dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
            self.types[info.name] = (_dtype(tensor.elem_type), dims if tensor.HasField("shape") else None)
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        for tensor in graph.initializer:
            self.types[tensor.name] = (_dtype(tensor.data_type), tuple(tensor.dims))
        self.constant_nodes = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a small constant, or None."""
        if name in self.constant_nodes:
            value = onnx.helper.get_attribute_value(self.constant_nodes[name].attribute[0])
            return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
        tensor = self.initializers.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return numpy_helper.to_array(tensor)


def check_contract(model: onnx.ModelProto, dialect: Dialect, expected: Expected) -> list[str]:
    """Every way in which the custom nodes are not what the dialect and the config say; empty when all is right."""
    custom = [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]
    if dialect.msda is None or dialect.dcn is None:
        return [f"{node.name}: expected standard operators only, got {node.domain}::{node.op_type}" for node in custom]
    facts = Facts(model)
    attention = [node for node in custom if (node.domain, node.op_type) == (dialect.msda.domain, dialect.msda.op_type)]
    convs = [node for node in custom if (node.domain, node.op_type) == (dialect.dcn.domain, dialect.dcn.op_type)]
    operators = " or ".join(f"{contract.domain}::{contract.op_type}" for contract in (dialect.msda, dialect.dcn))
    findings = [
        f"{node.name}: expected {operators}, got {node.domain}::{node.op_type}"
        for node in custom
        if node not in attention and node not in convs
    ]
    if len(attention) != len(expected.attention):
        findings.append(f"attention nodes: expected {len(expected.attention)}, got {len(attention)}")
    if len(convs) != expected.deform_convs:
        findings.append(f"deformable convolutions: expected {expected.deform_convs}, got {len(convs)}")
    for node, sizes in zip(attention, expected.attention, strict=False):
        findings += _check_node(node, dialect.msda, facts, {})
        findings += _check_attention(node, dialect.msda, facts, sizes)
    wanted = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "deform_groups": expected.deform_groups}
    for node in convs:
        findings += _check_node(node, dialect.dcn, facts, wanted)
        inputs = 5 if dialect.dcn.bias == "input" else 4
        if len(node.input) != inputs:
            findings.append(f"{node.name}: expected {inputs} inputs, got {len(node.input)}")
    return findings


def _check_node(node: onnx.NodeProto, contract: Contract, facts: Facts, wanted: Mapping[str, object]) -> Iterator[str]:
    """Ports' dtypes and ranks; attributes' names, types and values."""
    needed = [port for port in contract.inputs if not port.optional]
    if not len(needed) <= len(node.input) <= len(contract.inputs):
        yield f"{node.name}: expected {len(needed)} to {len(contract.inputs)} inputs, got {len(node.input)}"
        return
    for port, name in [*zip(contract.inputs, node.input, strict=False), (contract.output, node.output[0])]:
        yield from _check_port(node, port, name, facts)
    got = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    kinds = {attribute.name: onnx.AttributeProto.AttributeType.Name(attribute.type).lower() for attribute in node.attribute}
    for attribute in contract.attributes:
        value = wanted[attribute.form] if attribute.form else attribute.default
        if attribute.name not in got:
            yield f"{node.name}: attribute {attribute.name}: expected {value}, got none"
        elif kinds[attribute.name] != attribute.type or got[attribute.name] != value:
            seen = f"{kinds[attribute.name]} {got[attribute.name]}"
            yield f"{node.name}: attribute {attribute.name}: expected {attribute.type} {value}, got {seen}"
    for name in got.keys() - {attribute.name for attribute in contract.attributes}:
        yield f"{node.name}: attribute {name}: expected none of this name, got {got[name]}"


def _check_port(node: onnx.NodeProto, port: Port, name: str, facts: Facts) -> Iterator[str]:
    dtype, shape = facts.types.get(name, ("no type", None))
    if name in facts.constant_nodes:
        array = facts.constant(name)
        assert array is not None
        dtype, shape = str(array.dtype), array.shape
    if dtype != port.dtype or shape is None or len(shape) != port.rank:
        yield f"{node.name}: {port.name} ({name}): expected {port.dtype} of rank {port.rank}, got {dtype} of shape {shape}"
    if port.place != "value":
        place = "constant" if name in facts.constant_nodes else "initializer" if name in facts.initializers else "value"
        if place != port.place:
            yield f"{node.name}: {port.name} ({name}): expected in place {port.place!r}, got {place!r}"


def _check_attention(node: onnx.NodeProto, contract: Contract, facts: Facts, sizes: ExpectedAttention) -> Iterator[str]:
    """Shapes of the ports, and the numbers in the constant ones."""
    A, K, M, D, P = sizes.images, sizes.slots, sizes.heads, sizes.head_width, sizes.points
    h, w = sizes.feat_hw
    shapes: dict[str, tuple[int, ...]] = {
        "value": (A, h * w, M, D), "sampling_locations": (A, K, M, 1, P, 2), "attention_weights": (A, K, M, 1, P),
        "reference_points": (A, K, 1, 2), "sampling_offsets": (A, K, M, 1, P, 2), "attention_logits": (A, K, M, 1, P),
        "heads_merged": (A, K, M * D),
    }  # fmt: skip
    numbers: dict[str, int | list[int] | list[list[int]]] = {
        "spatial_shapes": [[h, w]], "level_start_index": [0], "num_images": A, "num_queries": K,
        "num_embed": M * D if contract.num_embed == "all" else D,
    }  # fmt: skip
    for port, name in [*zip(contract.inputs, node.input, strict=False), (contract.output, node.output[0])]:
        if port.form in shapes and facts.types.get(name, ("", None))[1] != shapes[port.form]:
            yield f"{node.name}: {port.name} ({name}): expected shape {shapes[port.form]}, got {facts.types.get(name, ('', None))[1]}"
        if port.form in numbers:
            value, number = facts.constant(name), np.array(numbers[port.form])
            if value is None or (value if number.ndim else value.ravel()).tolist() != (number if number.ndim else number.ravel()).tolist():
                got = "no constant" if value is None else value.tolist()
                yield f"{node.name}: {port.name} ({name}): expected {number.tolist()}, got {got}"


def check_structure(model: onnx.ModelProto, opset: int, ir_version: int, functions: bool) -> list[str]:
    """Opset, IR, functions, static types everywhere, no data-dependent operator, no scatter with a reduction."""
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
        if node.op_type in FORBIDDEN and not node.domain:
            findings.append(f"{node.name}: {node.op_type}: expected no data-dependent operator")
        reductions = {attribute.s for attribute in node.attribute if attribute.name == "reduction"}
        if node.op_type.startswith("Scatter") and reductions - {b"", b"none"}:
            findings.append(f"{node.name}: {node.op_type}: expected no reduction; it races in ONNX Runtime")
        for name in filter(None, node.output):
            dtype, shape = facts.types.get(name, ("no type", None))
            if name not in facts.constant_nodes and (shape is None or any(size <= 0 for size in shape)):
                findings.append(f"{name}: expected a static shape, got {dtype} {shape}")
    return findings


def check_old_operators(model: onnx.ModelProto, opset: int) -> list[str]:
    """At opset 11: operators that torch 1.10's exporter did not have, and that a compiler of its time may not know."""
    if opset > OLD_OPSET:
        return []
    new = sorted({node.op_type for node in model.graph.node if not node.domain} - TORCH_1_10_OPSET_11_OPS)
    return [f"{name}: torch 1.10's opset-11 exporter does not write it" for name in new]


def unreachable_inputs(model: onnx.ModelProto, besides: str = "dropped") -> list[str]:
    """Graph inputs from which no output can be reached; `besides` is the file's name of an output that does not count."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output} - {besides}
    lost = []
    for value in model.graph.input:
        seen, waiting = {value.name}, [value.name]
        while waiting:
            for node in readers.get(waiting.pop(), []):
                fresh = [name for name in node.output if name not in seen]
                seen.update(fresh)
                waiting += fresh
        if not outputs & seen:
            lost.append(value.name)
    return lost


def census(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each operator, as `domain::OpType`; most frequent first."""
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def signatures(model: onnx.ModelProto) -> list[dict[str, object]]:
    """The different kinds of nodes: operator, attributes, dtype and rank of each input and output, and how many there are.

    This is what one holds against the list of operators that a chip supports.
    """
    facts = Facts(model)

    def port(name: str) -> str:
        if not name:
            return "-"
        dtype, shape = facts.types.get(name, ("?", None))
        array = facts.constant(name) if name in facts.constant_nodes else None
        if array is not None:
            dtype, shape = str(array.dtype), array.shape
        constant = name in facts.initializers or name in facts.constant_nodes
        return f"{dtype}[{len(shape) if shape is not None else '?'}]{' const' if constant else ''}"

    counts: Counter[tuple[str, str, str, str]] = Counter()
    for node in model.graph.node:
        attributes = ", ".join(f"{item.name}={_short(item)}" for item in sorted(node.attribute, key=lambda item: item.name))
        operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        counts[operator, attributes, ", ".join(map(port, node.input)), ", ".join(map(port, node.output))] += 1
    return [
        {"operator": operator, "attributes": attributes, "inputs": inputs, "outputs": outputs, "count": count}
        for (operator, attributes, inputs, outputs), count in sorted(counts.items())
    ]


def _short(attribute: onnx.AttributeProto) -> str:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return f"tensor {list(attribute.t.dims)}"
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else str(value)


def _dtype(code: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(code)) if code else "no type"
