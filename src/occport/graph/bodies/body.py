"""A function body under construction, and the forms that the two operators' bodies can have.

| form | attention | deformable convolution |
|---|---|---|
| `deformconv` | - | DeformConv, opset 19 |
| `gridsample` | GridSample | GridSample over the stacked taps + Conv 1x1; opset 16 |
| `gather` | Gather and arithmetic | Gather, arithmetic and MatMul; any opset |

A body that never leaves memory can have GridSample below opset 16 too: ONNX Runtime's own, `com.microsoft::GridSample`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from ...errors import ExportError
from ..build import AttributeValue
from ..contract import Contract

FIRST_OPSET = 11
FIRST_GRID_SAMPLE = 16  # opset
FIRST_DEFORM_CONV = 19  # opset

FORMS: Mapping[str, Mapping[str, int]] = MappingProxyType({  # operator → form → first opset, best form first
    "msda": MappingProxyType({"gridsample": FIRST_GRID_SAMPLE, "gather": FIRST_OPSET}),
    "dcn": MappingProxyType({"deformconv": FIRST_DEFORM_CONV, "gridsample": FIRST_GRID_SAMPLE, "gather": FIRST_OPSET}),
})  # fmt: skip
_NODES = {"gridsample": "GridSample", "deformconv": "DeformConv"}


def default_form(operator: str, opset: int, *, in_file: bool = True) -> str:
    """The fastest form that an opset allows.

    Args:
        operator: "msda" or "dcn".
        in_file: False for a body that only our own ONNX Runtime sees.
    """
    return next(form for form in FORMS[operator] if opset >= _first_opset(operator, form, in_file))


def check_form(operator: str, form: str, opset: int, *, what: str, in_file: bool = True) -> None:
    """Refuses a form that is none, or that an opset does not allow.

    Args:
        operator, in_file: as in `default_form`.
        what: the flag that asked for the form, for the error.

    Raises:
        ExportError: with the opset that the form needs and the forms that this opset allows.
    """
    if form not in FORMS[operator]:
        raise ExportError(what, expected=f"one of {', '.join(FORMS[operator])}", got=form or "nothing")
    first = _first_opset(operator, form, in_file)
    if opset < first:
        allowed = [other for other in FORMS[operator] if opset >= _first_opset(operator, other, in_file)]
        raise ExportError(
            f"{what} {form}", expected=f"an opset from {first} on, where {_NODES[form]} is standard", got=f"opset {opset}",
            fix=f"raise --opset, or give {what} {' or '.join(allowed)}",
        )  # fmt: skip


def _first_opset(operator: str, form: str, in_file: bool) -> int:
    return FIRST_OPSET if form == "gridsample" and not in_file else FORMS[operator][form]


class Body:
    """The nodes of one function body, in order. A constant and the size of a value are written once."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], ir.Value] = {}
        self._sizes: dict[tuple[ir.Value, int], ir.Value] = {}

    def op(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", attributes: Mapping[str, AttributeValue] | None = None
    ) -> ir.Value:
        """A node with one output."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        node = ir.Node(domain, op_type, list(inputs), ir.convenience.convert_attributes(dict(attributes or {})), name=name)
        return self._append(node)

    def constant(self, values: object, dtype: str = "int64") -> ir.Value:
        """A Constant node."""
        array = np.array(values, dtype)
        key = (array.tobytes(), dtype, array.shape)
        if key not in self._constants:
            name = f"constant_{len(self.nodes)}"
            self._constants[key] = self._append(ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(array))], name=name))
        return self._constants[key]

    def _append(self, node: ir.Node) -> ir.Value:
        node.outputs[0].name = node.name
        self.nodes.append(node)
        return node.outputs[0]

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """(1) int64: the size along an axis."""
        if (value, axis) not in self._sizes:
            self._sizes[value, axis] = self.op("Gather", self.op("Shape", value), self.constant([axis]), attributes={"axis": 0})
        return self._sizes[value, axis]

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in another dtype."""
        return self.op("Cast", value, attributes={"to": int(dtype)})

    def reshape(self, value: ir.Value, *parts: int | ir.Value) -> ir.Value:
        """Reshape to sizes that are numbers (0 copies, -1 is the rest) or (n) int64 values."""
        if all(isinstance(part, int) for part in parts):
            return self.op("Reshape", value, self.constant(list(parts)))
        joined = [self.constant([part]) if isinstance(part, int) else part for part in parts]
        return self.op("Reshape", value, self.op("Concat", *joined, attributes={"axis": 0}))

    def transpose(self, value: ir.Value, *perm: int) -> ir.Value:
        """Permutes the axes."""
        return self.op("Transpose", value, attributes={"perm": list(perm)})

    def pick(self, value: ir.Value, index: int, axis: int = 0) -> ir.Value:
        """The slice of one index along an axis; the axis is gone."""
        return self.op("Gather", value, self.constant(index), attributes={"axis": axis})

    def count(self, size: ir.Value) -> ir.Value:
        """(n) int64: 0, 1, ... n - 1 for a size of shape (1)."""
        return self.op("Range", self.constant(0), self.on_axes("Squeeze", size, [0]), self.constant(1))

    def on_axes(
        self, op_type: str, value: ir.Value, axes: Sequence[int], attributes: Mapping[str, AttributeValue] | None = None
    ) -> ir.Value:
        """Unsqueeze, Squeeze or ReduceSum, whose axes became an input at opset 13."""
        if self.opset >= 13:
            return self.op(op_type, value, self.constant(list(axes)), attributes=attributes)
        return self.op(op_type, value, attributes={**(attributes or {}), "axes": list(axes)})

    def grid_sample(self, image: ir.Value, grid: ir.Value) -> ir.Value:
        """Bilinear, zeros outside, align_corners 0. (X, C, H, W), (X, h, w, 2) → (X, C, h, w)."""
        domain = "com.microsoft" if self.opset < FIRST_GRID_SAMPLE else ""
        mode = "bilinear" if self.opset < 20 else "linear"
        return self.op("GridSample", image, grid, domain=domain, attributes={"mode": mode, "padding_mode": "zeros", "align_corners": 0})

    def gather_bilinear(
        self, table: ir.Value, position: ir.Value, sizes: ir.Value, strides: ir.Value, first: ir.Value, share: ir.Value
    ) -> ir.Value:
        """Reads maps bilinearly by Gather and arithmetic; every corner outside its map counts as zero.

        A pixel i weighs max(0, 1 - |p - i|) at position p, 0 for all but two neighbours. With the left one held inside 0..n-2 both
        are always inside, and outside of the map the formula still gives the right weights: a pixel that is not there is never the
        near one. A map of one pixel has no right neighbour: `pair` makes it the left one again, of weight 0.

        Positions of any size, infinite ones too, read a pixel inside, of weight 0 where they are outside. A NaN counts as outside:
        its weight is 0, as for CUDA kernels that begin with `p > -1`. The four corners are read one after the other, so that only one
        of them is in memory beside the sum.

        Args:
            table: (rows, C) float32, the pixels of all maps; finite, as a corner of weight 0 is multiplied too.
            position: (2, …) float32 in pixels, 0 is the first pixel's centre; its axes are in the order of `sizes` and `strides`.
            sizes: (2, …) int64, pixels along each axis; broadcast to `position`.
            strides: (2, …) int64, table rows from a pixel to the next along each axis; broadcast to `position`.
            first: (…) int64, table row of the map's first pixel; broadcast to `position` without its first axis.
            share: (…) float32, factor of each reading.

        Returns:
            (…, C) float32.
        """
        one = self.constant(1)
        pair = self.op("Sub", one, self.op("Div", one, sizes))  # 1, and 0 for a single pixel; integers, as nothing rounds then
        last_left = self.op("Sub", self.op("Sub", sizes, one), pair)
        lowest = self.constant(-1, "float32")
        position = self.op("Where", self.op("Greater", position, lowest), position, lowest)  # false for NaN, unlike Max and Clip
        left = self.op("Min", self.op("Relu", self.op("Floor", position)), self.cast(last_left, ir.DataType.FLOAT))
        beyond = self.op("Sub", position, left)
        pair_float = self.cast(pair, ir.DataType.FLOAT)
        near = self.op("Relu", self.op("Sub", self.constant(1, "float32"), self.op("Abs", beyond)))
        far = self.op("Relu", self.op("Sub", pair_float, self.op("Abs", self.op("Sub", beyond, pair_float))))
        # Only coordinates go through floats, which half precision holds exactly up to 2048; a row number it would round.
        rows = self.op("Mul", self.cast(left, ir.DataType.INT64), strides)
        row = self.op("Add", self.op("Add", self.pick(rows, 0), self.pick(rows, 1)), first)
        steps = self.op("Mul", pair, strides)
        corners = []
        for is_far in (False, True):
            share_0 = self.op("Mul", share, self.pick(far if is_far else near, 0))
            row_0 = self.op("Add", row, self.pick(steps, 0)) if is_far else row
            for is_far_too in (False, True):
                weight = self.op("Mul", share_0, self.pick(far if is_far_too else near, 1))
                corners.append((self.op("Add", row_0, self.pick(steps, 1)) if is_far_too else row_0, weight))
        return self._weighted_rows(table, corners)

    def _weighted_rows(self, table: ir.Value, corners: Sequence[tuple[ir.Value, ir.Value]]) -> ir.Value:
        """The sum over corners (rows (…), weight (…)) of table[rows] * weight → (…, C).

        ONNX Runtime computes that input of an Add first whose node stands later in the file. Each corner is therefore written before
        the sum that it is added to; in the natural order all four would be held until the first addition.
        """

        def weighted(corner: tuple[ir.Value, ir.Value]) -> ir.Value:
            return self.op("Mul", self.op("Gather", table, corner[0], attributes={"axis": 0}), self.on_axes("Unsqueeze", corner[1], [-1]))

        total, upcoming = weighted(corners[0]), weighted(corners[1])
        for corner in corners[2:]:
            current, upcoming = upcoming, weighted(corner)
            total = self.op("Add", total, current)
        return self.op("Add", total, upcoming)

    def function(self, contract: Contract, inputs: Sequence[ir.Value], output: ir.Value) -> ir.Function:
        """The finished function under the contract's name."""
        output.name = "output"
        imports = {"": self.opset}
        if any(node.domain for node in self.nodes):
            imports["com.microsoft"] = 1
        graph = ir.Graph(list(inputs), [output], nodes=self.nodes, opset_imports=imports)
        parameters = [ir.Attr(attribute.name, ir.AttributeType.UNDEFINED, None) for attribute in contract.attributes]
        return ir.Function(contract.domain, contract.op_type, "", graph=graph, attributes=parameters)
