"""The cost of every node of a file: parameters, arithmetic, and the bytes that it reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.contract import TWIN_DOMAIN
from ...graph.stages import first_output, stages_of
from ...graph.submodel import value_types
from ...kit.vectors.activations import CustomNode, custom_nodes
from .layer import layer_of
from .work import Work, attention, deformable_convolution, work_of

GEOMETRY = "tables"  # the stage of the projection: its numbers are no weights, and keep float32 whatever the precision
_PARTIAL = ("Gather", "GatherElements", "GatherND", "Slice")  # read only as much as they hand on


@dataclass(frozen=True)
class NodeCost:
    """One node.

    Attributes:
        name: of the node, or of its first output where it has none.
        op_type: "DOMAIN::NAME" for a custom operator.
        stage, layer: of the network.
        dtype: that it computes in, the one of its first floating-point input (or output), else of its output.
        work: its arithmetic.
        parameters: numbers of the weights that it is the first to read; the geometry has none.
        weight_bytes, float_weight_bytes: of all weights that it reads, and of the floating-point ones among them.
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
    float_weight_bytes: int
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
    stages, custom = stages_of(graph), _custom_by_index(file)
    seen: set[str] = set()
    found = []
    for i, node in enumerate(graph.node):
        if node.op_type == "Constant":
            continue
        name = node.name or first_output(node)
        stage = stages[first_output(node)]
        weights = {one: kept[one] for one in node.input if one in kept}
        floats = [one for one, tensor in weights.items() if floating(tensor.dtype)]
        new = [one for one in floats if one not in seen and stage != GEOMETRY]
        seen.update(new)
        into = [known.get(one) or kept.get(one) for one in node.input]
        out = [_typed(known, one, node) for one in node.output if one]
        twin = custom.get(i)
        work = _custom_work(twin) if twin else work_of(node.op_type, *_shapes(into, out), _window(node))
        domain = "" if node.domain == TWIN_DOMAIN else node.domain
        whole, real = (sum(kept[one].nbytes for one in names) if work.kind != "view" else 0 for names in (weights, floats))
        found.append(
            NodeCost(
                name, f"{domain}::{node.op_type}" if domain else node.op_type, stage, layer_of(name), _dtype(into, out), work,
                sum(prod(kept[one].shape) for one in new), whole, real, *_moved(node, known, out, work), bool(twin),
            )
        )  # fmt: skip
    return tuple(found)


def dtypes_of(graph: GraphProto) -> dict[str, str]:
    """NumPy's name of the type of every tensor that nodes hand to each other, and of the inputs."""
    return {name: tensor.dtype for name, tensor in _activations(graph).items()}


def activation_bytes(graph: GraphProto) -> dict[str, int]:
    """Bytes of every tensor that nodes hand to each other, and of the inputs; constants left out."""
    constant = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return {name: tensor.nbytes for name, tensor in _activations(graph).items() if name not in constant}


def weights_of(graph: GraphProto) -> dict[str, _Tensor]:
    """The weights of a graph, Constant nodes among them."""
    found = {tensor.name: _Tensor(_numpy(tensor.data_type), tuple(tensor.dims)) for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            found[first_output(node)] = _constant(attribute)
    return found


def _constant(attribute: AttributeProto) -> _Tensor:
    """What a Constant node gives, by the one attribute that it has."""
    if attribute.name == "value":
        return _Tensor(_numpy(attribute.t.data_type), tuple(attribute.t.dims))
    if attribute.name == "sparse_value":
        return _Tensor(_numpy(attribute.sparse_tensor.values.data_type), tuple(attribute.sparse_tensor.dims))
    kind = attribute.name.removeprefix("value_")
    dtype = {"float": "float32", "int": "int64"}.get(kind.removesuffix("s"), "object")
    return _Tensor(dtype, (len(helper.get_attribute_value(attribute)),) if kind.endswith("s") else ())


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


def floating(dtype: str) -> bool:
    """Whether a dtype's name is one of floating-point numbers."""
    return "float" in dtype


def _dtype(into: list[_Tensor | None], out: list[_Tensor]) -> str:
    kinds = [tensor.dtype for tensor in (*into, *out) if tensor is not None]
    return next(filter(floating, kinds), out[0].dtype if out else "")


def _custom_by_index(file: NetworkFile) -> dict[int, CustomNode]:
    """The dialect's nodes by their number in the graph."""
    kinds = {(one.domain or TWIN_DOMAIN, one.op_type) for one in (file.dialect.msda, file.dialect.dcn) if one is not None}
    numbers = [i for i, node in enumerate(file.model.graph.node) if (node.domain, node.op_type) in kinds]
    return dict(zip(numbers, custom_nodes(file.model, file.dialect) if numbers else (), strict=True))


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
