"""Small ONNX models for the tests of `graph/lowering`: built at one opset, brought to others, run, compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from occport.graph.opset import OPSETS, convert_opset, ir_version_for

Arrays = Mapping[str, np.ndarray]


def build(
    nodes: Sequence[onnx.NodeProto], feeds: Arrays, outputs: Sequence[str], constants: Arrays | None = None, *,
    declared: Arrays | None = None, opset: int = 18, constant_nodes: bool = False,
) -> onnx.ModelProto:
    """A model with every value typed by ONNX's shape inference. Constants become initializers or Constant nodes.

    Nodes without a name are called `node_<operator>`, and `node_<operator>_<first output>` where that is taken.
    `declared` gives type and shape of outputs that shape inference does not find.
    """
    for one in nodes:
        plain = f"node_{one.op_type}"
        one.name = one.name or (plain if all(other.name != plain for other in nodes) else f"{plain}_{one.output[0]}")
    constants = constants or {}
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    spelled = [helper.make_node("Constant", [], [tensor.name], name=f"node_{tensor.name}", value=tensor) for tensor in tensors]
    declared = declared or {}
    graph = helper.make_graph(
        [*(spelled if constant_nodes else []), *nodes], "small",
        [_typed(name, array) for name, array in feeds.items()],
        [_typed(name, declared[name]) if name in declared else helper.make_empty_tensor_value_info(name) for name in outputs],
        [] if constant_nodes else tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version_for(opset))
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def _typed(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def convert(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model at another opset, checked in full, every value with type and shape; the given one stays as it was."""
    inside = ir.from_proto(model)
    convert_opset(inside, opset)
    inside.ir_version = ir_version_for(opset)
    proto = ir.to_proto(inside)
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == opset
    onnx.checker.check_model(proto, full_check=True)
    assert untyped(proto) == []
    assert unread(proto) == []
    return proto


def untyped(model: onnx.ModelProto) -> list[str]:
    """Names of node outputs of the main graph without element type or static shape."""
    infos = {info.name: info.type.tensor_type for info in (*model.graph.value_info, *model.graph.output)}
    missing = []
    for name in (name for node in model.graph.node for name in node.output if name):
        info = infos.get(name)
        if info is None or not info.elem_type or not info.HasField("shape") or not all(dim.HasField("dim_value") for dim in info.shape.dim):
            missing.append(name)
    return missing


def unread(model: onnx.ModelProto) -> list[str]:
    """Names of initializers that nothing reads."""
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    return [tensor.name for tensor in model.graph.initializer if tensor.name not in read]


def ops(model: onnx.ModelProto) -> dict[str, int]:
    """Operator → number of nodes, without Constant."""
    return dict(Counter(node.op_type for node in model.graph.node if node.op_type != "Constant"))


def run(model: onnx.ModelProto, feeds: Arrays, *, reference: bool = False) -> list[np.ndarray]:
    """Outputs, by ONNX Runtime without its graph optimisations, or by ONNX's reference evaluator."""
    if reference:
        return ReferenceEvaluator(model).run(None, dict(feeds))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, dict(feeds))


def assert_same(
    model: onnx.ModelProto, feeds: Arrays, want: Sequence[np.ndarray], *, tolerance: float, reference: bool, label: str,
) -> None:
    """Names, element types, shapes and values of the outputs."""
    got = run(model, feeds, reference=reference)
    assert len(got) == len(want), label
    for one, other in zip(got, want, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), label
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=label)


def assert_every_opset(
    model: onnx.ModelProto, feeds: Arrays, *, first: int = OPSETS[0], tolerance: float = 0, reference: bool = False,
) -> dict[int, onnx.ModelProto]:
    """Converts to each opset from `first` on and compares with the model as it stands. Returns the converted models."""
    want = run(model, feeds, reference=reference)
    made = {}
    for opset in OPSETS:
        if opset >= first:
            made[opset] = convert(model, opset)
            assert_same(made[opset], feeds, want, tolerance=tolerance, reference=reference, label=f"opset {opset}")
    return made
