"""What a file says about its values: types, shapes, and the numbers of constants. Weights stay on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ...errors import ModelFileError
from ..model_file import tensor_of

Shape = tuple[int, ...]  # -1 for an axis without a number
NO_TYPE = "no type"


class Facts:
    """Names → types and constant values of a graph.

    Args:
        model: the file, or its skeleton.
        folder: where external data lie; None: their numbers count as unknown.
        graph: a subgraph; None for the main graph.
        outer: the facts of the graph around it.
    """

    def __init__(
        self, model: onnx.ModelProto, folder: Path | None = None, graph: onnx.GraphProto | None = None, outer: Facts | None = None
    ) -> None:
        graph = model.graph if graph is None else graph
        self._model, self._folder = model, folder
        self.types: dict[str, tuple[str, Shape | None]] = dict(outer.types) if outer else {}
        self.initializers: dict[str, TensorProto] = dict(outer.initializers) if outer else {}
        self.constant_nodes: dict[str, onnx.NodeProto] = dict(outer.constant_nodes) if outer else {}
        for info in (*graph.input, *graph.value_info, *graph.output):
            self.types[info.name] = type_of(info)
        for tensor in graph.initializer:
            self.initializers[tensor.name] = tensor
            self.types[tensor.name] = (dtype_name(tensor.data_type), tuple(tensor.dims))
        for node in graph.node:
            if node.op_type == "Constant" and node.output and len(node.attribute) == 1:
                self.constant_nodes[node.output[0]] = node
                self.types[node.output[0]] = _type_of_constant(node.attribute[0])

    def type(self, name: str) -> tuple[str, Shape | None]:
        """dtype and shape of a value; "no type" and None where the file does not say."""
        return self.types.get(name, (NO_TYPE, None))

    def static_shape(self, name: str) -> Shape | None:
        """The shape, where every axis has a number."""
        shape = self.type(name)[1]
        return None if shape is None or any(size < 0 for size in shape) else shape

    def place(self, name: str) -> str:
        """Where a value comes from: "constant", "initializer" or "value"."""
        return "constant" if name in self.constant_nodes else "initializer" if name in self.initializers else "value"

    def constant(self, name: str) -> np.ndarray | None:
        """The numbers of a constant; None for a value that is computed, is text, or is external where no folder is known.

        Errors: ModelFileError for external data that are missing, and for data that do not fill their shape.
        """
        if name in self.constant_nodes:
            value = self.constant_nodes[name].attribute[0]
            if value.type == onnx.AttributeProto.TENSOR:
                return _numbers(value.t)
            numeric = (onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS)
            return np.asarray(onnx.helper.get_attribute_value(value)) if value.type in numeric else None
        tensor = self.initializers.get(name)
        if tensor is None:
            return None
        if tensor.data_location == TensorProto.EXTERNAL:
            own = any(each is tensor for each in self._model.graph.initializer) if self._folder is not None else False
            return tensor_of(self._model, name, self._folder) if own and self._folder is not None else None
        return _numbers(tensor)


def type_of(info: onnx.ValueInfoProto) -> tuple[str, Shape | None]:
    """dtype and shape of a declared value; an axis without a number is -1."""
    tensor = info.type.tensor_type
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return dtype_name(tensor.elem_type), dims if tensor.HasField("shape") else None


def dtype_name(code: int) -> str:
    """The name of an ONNX element type, as NumPy and the dialects have it."""
    if not code:
        return NO_TYPE
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(code)) if code != TensorProto.STRING else "string"
    except KeyError:
        return f"type {code}"


def _numbers(tensor: TensorProto) -> np.ndarray | None:
    if tensor.data_type == TensorProto.STRING or tensor.data_location == TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        expected = f"data of {dtype_name(tensor.data_type)} for shape {list(tensor.dims)}"
        raise ModelFileError(f"constant {tensor.name!r}", expected=expected, got=str(error), fix="export the file again") from error


def _type_of_constant(attribute: onnx.AttributeProto) -> tuple[str, Shape | None]:
    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return dtype_name(attribute.t.data_type), tuple(attribute.t.dims)
    if attribute.type == kinds.SPARSE_TENSOR:
        return dtype_name(attribute.sparse_tensor.values.data_type), tuple(attribute.sparse_tensor.dims)
    names = {
        kinds.INT: "int64", kinds.INTS: "int64", kinds.FLOAT: "float32", kinds.FLOATS: "float32",
        kinds.STRING: "string", kinds.STRINGS: "string",
    }  # fmt: skip
    many = {kinds.INTS: len(attribute.ints), kinds.FLOATS: len(attribute.floats), kinds.STRINGS: len(attribute.strings)}
    return names.get(attribute.type, NO_TYPE), (many[attribute.type],) if attribute.type in many else ()
