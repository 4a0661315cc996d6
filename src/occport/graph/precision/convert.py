"""A finished float32 graph in 16 bits: weights, activations and custom nodes, wherever nothing speaks against it (`plan.py`).

Inputs and outputs of the file keep their types. A value is cast once, however many nodes read it in the other type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...errors import ExportError
from ..dialect import Dialect
from ..names import all_names
from .plan import is_constant, is_float, narrow_ports, wide_nodes
from .types import EXACT, PRECISIONS, Ports, Precision


@dataclass(frozen=True)
class Conversion:
    """What became of a graph.

    Attributes:
        narrow, wide: numbers of nodes with floating-point numbers that compute in 16 bits, and that keep float32.
        flushed: weights other than 0 that became 0.
        weights: numbers of all weights in 16 bits.
    """

    narrow: int
    wide: int
    flushed: int
    weights: int

    @property
    def described(self) -> str:
        """One line."""
        kept = f"{self.narrow} nodes in 16 bits, {self.wide} in float32"
        return f"{kept}; {self.flushed:,} of {self.weights:,} weights became 0"


def to_precision(model: ir.Model, precision: str, dialect: Dialect) -> Conversion | None:
    """Rewrites a graph of the dialect in place; None for "fp32", which changes nothing.

    Raises:
        ExportError: a weight that the type cannot hold.
    """
    if precision == EXACT:
        return None
    return _Converter(model, PRECISIONS[precision], dialect).run()


class _Converter:
    def __init__(self, model: ir.Model, precision: Precision, dialect: Dialect) -> None:
        self._graph, self._precision, self._dialect = model.graph, precision, dialect
        self._opset = model.opset_imports[""]
        self._wide_nodes = wide_nodes(model, dialect, precision)
        self._taken = all_names(model)
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._weights: dict[ir.Value, ir.Value] = {}
        self._flushed = self._numbers = 0

    def run(self) -> Conversion:
        counts = {True: 0, False: 0}
        outputs = {value for value in self._graph.outputs if is_float(value)}
        for node in list(self._graph):
            if node.op_type == "Constant" or not any(map(is_float, (*node.inputs, *node.outputs))):
                if any(value is not None and value.dtype == self._precision.dtype for value in node.inputs):
                    self._read(node, None)  # reads what has become narrow: only of an operator without the type
                continue
            ports = None if node in self._wide_nodes else narrow_ports(node, self._dialect, self._opset, self._precision)
            counts[ports is not None] += 1
            self._read(node, ports)
            if ports is not None:
                self._make(node, ports)
        for value in outputs:
            if value.dtype == self._precision.dtype:
                self._keep_output(value)
        for old in self._weights:
            if not old.uses() and not old.is_graph_output() and old.name is not None and old.name in self._graph.initializers:
                self._graph.initializers.pop(old.name)
        return Conversion(counts[True], counts[False], self._flushed, self._numbers)

    def _read(self, node: ir.Node, ports: Ports | None) -> None:
        """Gives each input of a node the type that it takes."""
        for place, value in enumerate(node.inputs):
            if value is None or value.dtype not in (ir.DataType.FLOAT, self._precision.dtype):
                continue
            narrow = ports is not None and ports.takes(place)
            if narrow and value.dtype == ir.DataType.FLOAT:
                new = self._weight(value) if is_constant(value) else self._cast(value, self._precision.dtype)
                node.replace_input_with(place, new)
            elif not narrow and value.dtype != ir.DataType.FLOAT:
                node.replace_input_with(place, self._cast(value, ir.DataType.FLOAT))

    def _make(self, node: ir.Node, ports: Ports) -> None:
        """Gives the outputs of a node the 16-bit type."""
        for place, value in enumerate(node.outputs):
            if is_float(value) and ports.outputs[min(place, len(ports.outputs) - 1)]:
                value.type = ir.TensorType(self._precision.dtype)  # a new one: clones of a graph share theirs
        if node.op_type == "ConstantOfShape" and "value" in node.attributes:
            filled = node.attributes["value"].as_tensor().numpy().astype(self._precision.numpy)
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(filled, dtype=self._precision.dtype))

    def _weight(self, value: ir.Value) -> ir.Value:
        """A weight in 16 bits."""
        if value not in self._weights:
            tensor = ir.convenience.get_const_tensor(value)
            assert tensor is not None and value.name is not None
            name, array = value.name, self._rounded(tensor.numpy(), value.name)
            value.name = self._unique(f"{name}_float32")  # should anything still read it
            new = ir.Tensor(array, dtype=self._precision.dtype, name=name)
            self._weights[value] = ir.Value(name=new.name, type=ir.TensorType(self._precision.dtype), shape=value.shape, const_value=new)
            self._graph.register_initializer(self._weights[value])
        return self._weights[value]

    def _rounded(self, array: np.ndarray, name: str) -> np.ndarray:
        largest = float(np.abs(array).max()) if array.size else 0.0
        with np.errstate(over="ignore"):
            rounded: np.ndarray = array.astype(self._precision.numpy)
        if np.isfinite(largest) and not np.isfinite(rounded.astype(np.float32)).all():
            fix = "bf16 has the range of float32" if self._precision.name == "float16" else "export in fp32"
            limit = f"at most {self._precision.largest:,.0f}, the largest {self._precision.name}"
            raise ExportError(f"weight {name}", expected=limit, got=f"{largest:,.6g}", fix=fix)
        self._flushed += int(np.count_nonzero(array) - np.count_nonzero(rounded))
        self._numbers += array.size
        return rounded

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A value in the other type, by a Cast right behind where it is made."""
        if (value, dtype) not in self._casts:
            name = self._unique(f"{value.name}_{'float32' if dtype == ir.DataType.FLOAT else self._precision.name}")
            node = ir.node("Cast", [value], {"to": dtype.value}, name=name)
            node.outputs[0].name, node.outputs[0].shape = name, value.shape
            node.outputs[0].type = ir.TensorType(dtype)
            producer = value.producer()
            if producer is not None:
                self._graph.insert_after(producer, node)
            else:
                self._graph.insert_before(self._graph[0], node)
            self._casts[value, dtype] = node.outputs[0]
        return self._casts[value, dtype]

    def _keep_output(self, value: ir.Value) -> None:
        """An output of the file keeps name and type; what is inside gets another name."""
        name = value.name
        assert name is not None
        value.name = self._unique(f"{name}_{self._precision.name}")
        cast = self._cast(value, ir.DataType.FLOAT)
        cast.name = name
        producer = cast.producer()
        assert producer is not None
        producer.name = f"{name}_Cast"
        self._graph.outputs[self._graph.outputs.index(value)] = cast

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name


