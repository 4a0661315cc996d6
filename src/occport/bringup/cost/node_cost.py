"""The cost of every node of a file: parameters, arithmetic, and the bytes that it reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.contract import TWIN_DOMAIN
from ...graph.stages import stages_of
from ...graph.submodel import value_types
from ...kit.vectors.activations import CustomNode, custom_nodes
from .layer import layer_of
from .work import Work, attention, deformable_convolution, work_of

_PARTIAL = ("Gather", "GatherElements", "GatherND", "Slice")  # read only as much as they hand on


@dataclass(frozen=True)
class NodeCost:
    """One node.

    Attributes:
        name, op_type: of the node; "DOMAIN::NAME" for a custom operator.
        stage, layer: of the network.
        dtype: that it computes in, the one of its first floating-point input (or output), else of its output.
        work: its arithmetic.
        parameters: numbers of the weights that it is the first to read.
        weight_bytes: of all weights that it reads.
        reads, writes: tensor → bytes of the activations; () for a view, which moves nothing.
        custom: whether it is a node of the dialect.
    """

    name: str
    op_type: str
    stage: str
    layer: str
    dtype: str
    work: Work
    parameters: int
    weight_bytes: int
    reads: tuple[tuple[str, int], ...]
    writes: tuple[tuple[str, int], ...]
    custom: bool

    @property
    def read_bytes(self) -> int:
        """Of activations and weights."""
        return self.weight_bytes + sum(size for _, size in self.reads)

    @property
    def write_bytes(self) -> int:
        """Of activations."""
        return sum(size for _, size in self.writes)

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read_bytes + self.write_bytes


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        width = 2 if self.dtype in ("bfloat16", "float16") else np.dtype(self.dtype).itemsize
        return prod(self.shape) * width


def node_costs(file: NetworkFile) -> tuple[NodeCost, ...]:
    """Every node of the main graph, in its order; Constant nodes are weights.

    Raises:
        ModelFileError: a custom node is not as its contract says, or sizes are missing.
    """
    graph = file.model.graph
    kept = weights_of(graph)
    known = {name: tensor for name, tensor in _activations(graph).items() if name not in kept}
    stages = stages_of(graph)
    custom = {node.name: node for node in custom_nodes(file.model, file.dialect)} if _has_custom(file) else {}
    seen: set[str] = set()
    found = []
    for node in graph.node:
        if node.op_type == "Constant":
            continue
        weights = [name for name in node.input if name in kept]
        new = [name for name in dict.fromkeys(weights) if name not in seen and _floating(kept[name].dtype)]
        seen.update(new)
        into = [known.get(name) or kept.get(name) for name in node.input]
        out = [_typed(known, name, node) for name in node.output if name]
        twin = custom.get(node.name)
        work = _custom_work(twin) if twin else work_of(node.op_type, *_shapes(into, out), _window(node))
        domain = "" if node.domain == TWIN_DOMAIN else node.domain
        found.append(
            NodeCost(
                node.name, f"{domain}::{node.op_type}" if domain else node.op_type, stages[node.output[0]],
                layer_of(node.name or node.output[0]), _dtype(into, out), work, sum(prod(kept[name].shape) for name in new),
                0 if work.kind == "view" else sum(kept[name].nbytes for name in dict.fromkeys(weights)),
                *_moved(node, known, out, work), bool(twin),
            )
        )  # fmt: skip
    return tuple(found)


def activation_bytes(graph: GraphProto) -> dict[str, int]:
    """Bytes of every tensor that nodes hand to each other, and of the inputs; constants left out."""
    constant = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return {name: tensor.nbytes for name, tensor in _activations(graph).items() if name not in constant}


def weights_of(graph: GraphProto) -> dict[str, _Tensor]:
    """The weights of a graph, Constant nodes among them."""
    found = {tensor.name: _Tensor(_numpy(tensor.data_type), tuple(tensor.dims)) for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = _Tensor(_numpy(attribute.t.data_type), tuple(attribute.t.dims))
    return found


def _activations(graph: GraphProto) -> dict[str, _Tensor]:
    found = {}
    for name, info in value_types(graph).items():
        tensor = info.type.tensor_type
        if tensor.elem_type and tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            found[name] = _Tensor(_numpy(tensor.elem_type), tuple(dim.dim_value for dim in tensor.shape.dim))
    return found


def _numpy(elem_type: int) -> str:
    return "bfloat16" if elem_type == TensorProto.BFLOAT16 else np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).name


def _typed(known: Mapping[str, _Tensor], name: str, node: NodeProto) -> _Tensor:
    if name not in known:
        fix = "run ONNX's shape inference on the file, with fixed sizes"
        raise ModelFileError(f"output {name} of {node.name or node.op_type}", expected="a shape in numbers", got="none", fix=fix)
    return known[name]


def _shapes(into: list[_Tensor | None], out: list[_Tensor]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    return [tensor.shape if tensor else () for tensor in into], [tensor.shape for tensor in out]


def _floating(dtype: str) -> bool:
    return "float" in dtype


def _dtype(into: list[_Tensor | None], out: list[_Tensor]) -> str:
    kinds = [tensor.dtype for tensor in (*into, *out) if tensor is not None]
    return next(filter(_floating, kinds), out[0].dtype)


def _has_custom(file: NetworkFile) -> bool:
    kinds = {(one.domain or TWIN_DOMAIN, one.op_type) for one in (file.dialect.msda, file.dialect.dcn) if one is not None}
    return any((node.domain, node.op_type) in kinds for node in file.model.graph.node)


def _custom_work(node: CustomNode) -> Work:
    sizes = node.letters
    if node.operator == "msda":
        return attention(sizes)
    weight = node.taps["weight"].shape if "weight" in node.taps else ()
    maps = (sizes["A"], sizes["C"], sizes["H"], sizes["W"])
    return deformable_convolution((maps, weight), ((sizes["A"], sizes["O"], sizes["Ho"], sizes["Wo"]),))


def _window(node: NodeProto) -> int:
    return next((prod(attribute.ints) for attribute in node.attribute if attribute.name == "kernel_shape"), 1)


def _moved(
    node: NodeProto, known: Mapping[str, _Tensor], out: list[_Tensor], work: Work
) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:  # fmt: skip
    """Bytes read and written, by tensor."""
    if work.kind == "view":
        return (), ()
    writes = tuple(zip(filter(None, node.output), (tensor.nbytes for tensor in out), strict=True))
    reads = dict.fromkeys(name for name in node.input if name in known)
    sizes = {name: known[name].nbytes for name in reads}
    if node.op_type in _PARTIAL and node.input[0] in sizes:
        sizes[node.input[0]] = min(sizes[node.input[0]], sum(size for _, size in writes))
    return tuple(sizes.items()), writes


def kinds_without_rule(costs: tuple[NodeCost, ...]) -> Iterator[str]:
    """Names of operators that no rule knows, each once."""
    yield from dict.fromkeys(cost.op_type for cost in costs if cost.work.kind == "unknown")
