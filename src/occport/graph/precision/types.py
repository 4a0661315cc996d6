"""The 16-bit floating-point types: names, limits, and what ONNX's operators take at an opset."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

EXACT = "fp32"


class Precision(NamedTuple):
    """A precision of a file.

    Attributes:
        dtype: of its numbers in ONNX.
        numpy: the same in NumPy.
        name: the same in words, and in names of values.
        largest: finite number.
        roundoff: largest relative error of a rounding.
        first_opset: at which convolutions have it.
    """

    dtype: ir.DataType
    numpy: np.dtype
    name: str
    largest: float
    roundoff: float
    first_opset: int


PRECISIONS: dict[str, Precision] = {
    "fp16": Precision(ir.DataType.FLOAT16, np.dtype(np.float16), "float16", 65504.0, 2.0**-11, 11),
    "bf16": Precision(
        ir.DataType.BFLOAT16, np.dtype(ml_dtypes.bfloat16), "bfloat16", (2.0 - 2.0**-7) * 2.0**127, 2.0**-8, 22
    ),
}  # fmt: skip
LOW = tuple(precision.dtype for precision in PRECISIONS.values())


class Ports(NamedTuple):
    """Which float inputs and outputs of an operator take the 16-bit type; `rest` holds for those of a variable number."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]
    rest: bool

    def takes(self, place: int) -> bool:
        """Of an input."""
        return self.inputs[place] if place < len(self.inputs) else self.rest


@lru_cache(maxsize=256)
def standard_ports(op_type: str, opset: int, dtype: ir.DataType) -> Ports | None:
    """The ports of ONNX's own operator that have the type of its first input or output; None where that cannot be the 16-bit one.

    Others, of a type of their own (`scales` of Resize, `grid` of GridSample, mean and variance of BatchNormalization), stay as they are.
    """
    schema = onnx.defs.get_schema(op_type, opset, "")
    allowed = {one.type_param_str: set(one.allowed_type_strs) for one in schema.type_constraints}
    wanted = f"tensor({dtype.name.lower()})"
    main = [port.type_str for port in (*schema.outputs, *schema.inputs) if wanted in allowed.get(port.type_str, set())]
    floats = [port.type_str for port in (*schema.outputs, *schema.inputs) if "tensor(float)" in allowed.get(port.type_str, {port.type_str})]
    if not main or main[0] != floats[0]:
        return None
    letter = main[0]
    variadic = bool(schema.inputs) and schema.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    return Ports(
        tuple(port.type_str == letter for port in schema.inputs), tuple(port.type_str == letter for port in schema.outputs),
        variadic and schema.inputs[-1].type_str == letter,
    )  # fmt: skip
