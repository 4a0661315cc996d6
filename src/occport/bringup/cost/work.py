"""How much arithmetic a node takes, from its shapes: products, numbers that are sampled, and single operations, counted apart.

    product        a multiplication and its addition (MAC), of convolutions and matrix products
    sampled        a number taken between four neighbours of a map: four multiplications and four additions, counted as 4 MAC
    operation      one addition, comparison, exponential ... of anything else; what only moves or renames numbers has none

Sums of products and samples are those of `measure.flops`, which counts the network as PyTorch runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple

CORNERS = 4  # MAC of one sampled number
Shapes = Sequence[Sequence[int]]


class Work(NamedTuple):
    """What one node computes; `kind` is the class of operators that a chip has a rate for."""

    kind: str  # of KINDS
    products: int = 0
    sampled: int = 0
    operations: int = 0

    @property
    def macs(self) -> int:
        """Products, and four for each sampled number."""
        return self.products + CORNERS * self.sampled

    @property
    def flops(self) -> int:
        """Two for each MAC, and the single operations."""
        return 2 * self.macs + self.operations


KINDS = ("products", "sampling", "elementwise", "reduction", "movement", "view", "unknown")
VIEWS = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Constant"))
MOVEMENTS = frozenset(
    ("Transpose", "Gather", "GatherElements", "GatherND", "Concat", "Split", "Slice", "Expand", "Tile", "Pad", "ScatterElements",
     "ScatterND", "DepthToSpace", "SpaceToDepth", "ConstantOfShape", "Shape", "Range", "EyeLike", "NonZero")
)  # fmt: skip
# operations for each number that comes out; a conventional count of additions, multiplications, comparisons and exponentials
ELEMENTWISE: Mapping[str, int] = {
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Relu", "Max", "Min", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or",
         "Xor", "Where", "Cast", "Sqrt", "Reciprocal", "Neg", "Abs", "Floor", "Ceil", "Round", "Exp", "Log", "Mod", "Pow", "Sign", "CumSum",
         "QuantizeLinear", "DequantizeLinear"),
        1,
    ),
    "Clip": 2, "LeakyRelu": 2, "BatchNormalization": 2, "HardSigmoid": 4, "Sigmoid": 4, "Softplus": 3, "Tanh": 4, "Erf": 8, "Gelu": 10,
    "Softmax": 5, "LogSoftmax": 6, "InstanceNormalization": 7, "GroupNormalization": 8, "LayerNormalization": 8,
}  # fmt: skip
# operations for each number that goes in
REDUCTIONS: Mapping[str, int] = {
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ArgMax", "ArgMin", "GlobalAveragePool"), 1),
    "ReduceL2": 2, "ReduceSumSquare": 2,
}  # fmt: skip


def convolution(into: Shapes, out: Shapes) -> Work:
    """Conv: weight (O, C/groups, ...)."""
    return Work("products", prod(out[0]) * prod(into[1][1:]))


def transposed_convolution(into: Shapes, out: Shapes) -> Work:
    """ConvTranspose: weight (C, O/groups, ...)."""
    return Work("products", prod(into[0]) * prod(into[1][1:]))


def matrix_product(into: Shapes, out: Shapes) -> Work:
    """MatMul: numbers that come out times what each is the sum of, the last axis of the first input; either may be a vector."""
    return Work("products", prod(out[0]) * prod(into[0][-1:]))


def _gemm(into: Shapes, out: Shapes) -> Work:
    """Gemm: (M, K) or transposed (K, M) first, out (M, N)."""
    return Work("products", prod(out[0]) * (prod(into[0]) // max(out[0][0], 1)))


def deformable_convolution(into: Shapes, out: Shapes) -> Work:
    """DCNv2: input (A, C, H, W) first, weight (O, C/groups, kh, kw) second; the products of a convolution, and every tap of every channel.

    Out: (A, O, Ho, Wo).
    """
    (_, channels, *_), weight = into[0], into[1]
    positions = out[0][0] * out[0][2] * out[0][3]
    return Work("products", positions * prod(weight), positions * channels * weight[2] * weight[3])


def attention(sizes: Mapping[str, int]) -> Work:
    """MSDA, by the letters of `graph.forms`: a number for each image, query, head, level, point and channel of a head."""
    return Work("sampling", 0, prod(sizes[letter] for letter in "AQMLPD"))


def _grid_sample(into: Shapes, out: Shapes) -> Work:
    return Work("sampling", 0, prod(out[0]))


def _resize(into: Shapes, out: Shapes) -> Work:
    """Nearest or linear: as it is called in this network, numbers that are copied."""
    return Work("movement")


def _pool(into: Shapes, out: Shapes, window: int) -> Work:
    return Work("reduction", operations=prod(out[0]) * window)


RULES: Mapping[str, Callable[[Shapes, Shapes], Work]] = {
    "Conv": convolution, "ConvTranspose": transposed_convolution, "Gemm": _gemm, "MatMul": matrix_product,
    "DeformConv": deformable_convolution, "GridSample": _grid_sample, "Resize": _resize,
}  # fmt: skip


def work_of(op_type: str, into: Shapes, out: Shapes, window: int = 1) -> Work:
    """The work of a node of ONNX's own domain.

    Args:
        into, out: shapes of inputs and outputs; () for an absent one.
        window: numbers under the window of a pooling.

    A kind of node that no rule knows has kind "unknown" and one operation for each number that comes out.
    """
    if op_type in VIEWS:
        return Work("view")
    if op_type in MOVEMENTS:
        return Work("movement")
    if op_type in RULES:
        return RULES[op_type](into, out)
    if op_type in ("MaxPool", "AveragePool"):
        return _pool(into, out, window)
    if op_type in REDUCTIONS:
        return Work("reduction", operations=REDUCTIONS[op_type] * prod(into[0]))
    total = sum(prod(shape) for shape in out)
    if op_type in ELEMENTWISE:
        return Work("elementwise", operations=ELEMENTWISE[op_type] * total)
    return Work("unknown", operations=total)
