"""One tiny model with its inputs and the outputs that it should give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from ...graph.dialect import Dialect
from ...graph.functions import Arithmetics
from ...graph.opset import FIRST_IR_WITH_FUNCTIONS
from ...graph.rewrite import STANDARD, to_dialect
from ...graph.runnable import make_runnable
from ...session import open_session

Arrays = Mapping[str, np.ndarray]
SOURCE_OPSET = 18  # what the network's own graph is traced at
ROOM = 0.02  # of the largest value: float16 and bfloat16 inside the chip pass, another meaning of an input does not


class Small(NamedTuple):
    """A model of any opset, an array for each of its inputs and for each of its outputs, in graph order."""

    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Normal numbers, float32, the same for the same shape and seed."""
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(np.float32)


def tolerance(want: np.ndarray) -> float:
    """How far an output may be off: 0 for integers, 2 % of the largest value for floats."""
    return ROOM * float(np.abs(want).max()) if want.dtype.kind == "f" else 0.0


def node(
    op_type: str, inputs: Sequence[str], outputs: str, attributes: Mapping[str, Any] | None = None, domain: str = ""
) -> onnx.NodeProto:
    """A node named after its first output; `outputs` are separated by blanks."""
    names = outputs.split()
    return helper.make_node(op_type, list(inputs), names, name=f"make_{names[0]}", domain=domain, **dict(attributes or {}))


def typed(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    """An input or output that holds arrays like this one."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def standard(
    nodes: Sequence[onnx.NodeProto], inputs: Arrays, outputs: Mapping[str, str], constants: Arrays, opset: int,
    arithmetics: Arithmetics = Arithmetics(), known: Mapping[str, Sequence[int]] | None = None,  # noqa: B008 - frozen
) -> Small:
    """A model of standard operators as an export writes it at `opset`, from nodes of opset 18 and canonical ones.

    Args:
        outputs: name → dtype.
        constants: name → array of an initializer.
        arithmetics: what canonical nodes become.
        known: float32 shapes of what canonical nodes put out.
    """
    declared = [helper.make_tensor_value_info(name, 1, list(shape)) for name, shape in (known or {}).items()]
    ends = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None) for name, kind in outputs.items()]
    given = {info.name: info for info in declared}
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    starts = [typed(name, array) for name, array in inputs.items()]
    graph = helper.make_graph(
        list(nodes), "probe", starts, [given.get(end.name, end) for end in ends], tensors,
        value_info=[info for info in declared if info.name not in outputs],
    )  # fmt: skip
    domains = sorted({one.domain for one in nodes if one.domain})
    imports = [helper.make_opsetid("", SOURCE_OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
    source = helper.make_model(graph, opset_imports=imports, ir_version=FIRST_IR_WITH_FUNCTIONS)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(source, strict_mode=True, data_prop=True))
    wanted = run(ir.to_proto(model), STANDARD, inputs)
    to_dialect(model, STANDARD, opset, functions=False, arithmetics=arithmetics)
    return Small(ir.to_proto(model), dict(inputs), wanted)


def run(model: onnx.ModelProto, dialect: Dialect, inputs: Arrays) -> dict[str, np.ndarray]:
    """The outputs of a model in ONNX Runtime, with bodies for the dialect's nodes (canonical ones, for a dialect without contracts)."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    make_runnable(proto, dialect)
    return open_session(proto, threads=1).run(inputs)
