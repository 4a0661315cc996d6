"""The operators that torch 1.10 could write at opset 11, for compilers that were built on its files.

Read off `symbolic_opset7.py` to `symbolic_opset11.py` of its time: what its symbolic functions emit, without operators that
ONNX had deprecated by opset 11 (Scatter, Upsample). Notable by their absence: Reciprocal (1.10 wrote Div(1, x); the operator came with
torch 1.11), GreaterOrEqual and LessOrEqual (opset 12), Sum, Einsum, LayerNormalization.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from .site import bodies, body_nodes, sites

TORCH_1_10_OPSET_11_OPS: frozenset[str] = frozenset({
    "Abs", "Acos", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "AveragePool", "BatchNormalization", "BitShift", "Cast", "Ceil",
    "Clip", "Concat", "ConcatFromSequence", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace",
    "DequantizeLinear", "Det", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather",
    "GatherElements", "GatherND", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "HardSigmoid", "Identity", "If",
    "InstanceNormalization", "IsInf", "IsNaN", "LSTM", "LeakyRelu", "Less", "Log", "LogSoftmax", "Loop", "MatMul", "Max", "MaxPool",
    "Min", "Mod", "Mul", "Multinomial", "Neg", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "RNN",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "ReduceL1", "ReduceL2", "ReduceLogSumExp",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Resize", "Round", "ScatterElements",
    "ScatterND", "Selu", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "Shape",
    "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus", "Split", "SplitToSequence", "Sqrt", "Squeeze", "Sub", "Tan", "Tanh",
    "Tile", "TopK", "Transpose", "Unique", "Unsqueeze", "Where", "Xor",
})


def ops_unknown_to_old_exporter(model: ir.Model) -> dict[str, int]:
    """Operators of the default domain that torch 1.10 could not have written at opset 11 → how many nodes, over graph and functions."""
    counts = Counter(node.op_type for body in bodies(model) for node in body_nodes(body) if node.domain == "")
    return {op: count for op, count in sorted(counts.items()) if op not in TORCH_1_10_OPSET_11_OPS}


def reciprocal_as_division(model: ir.Model) -> int:
    """Reciprocal(x) → Div(1, x), as torch 1.10 wrote it, in place. The same number: both are the IEEE quotient.

    Not part of `convert_opset`, since Reciprocal is valid at opset 11. Returns the number of nodes rewritten; a node of unknown
    type (in a function body) is left alone.
    """
    count = 0
    for site in sites(model, "Reciprocal"):
        x = site.required(0)
        if x.dtype is not None:
            site.become("Div", [site.scalar("one", 1, x.dtype), x])
            count += 1
    return count
