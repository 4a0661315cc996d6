"""Simulated compilers of different tastes: each says what it dislikes about a file, and takes it where there is nothing.

    python tests/compilers.py TASTE MODEL.onnx INPUTS OUTPUTS      as a command for run.sh: copies the expected outputs, or exits with 1
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

MSDA, DCN = ("DL", "MultiScaleDeformableAttnFunction"), ("DL", "ModulatedDeformConv2d")
BEVFORMER = ("", "MultiScaleDeformableAttnTRT")
# what torch 1.10 wrote at opset 11 and this network needs, spelled out once more
OLD = frozenset({
    "Add", "And", "ArgMax", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "CumSum", "Div",
    "Expand", "Gather", "Gemm", "Greater", "InstanceNormalization", "MatMul", "Max", "MaxPool", "Mul", "Not", "ReduceMean",
    "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize", "ScatterElements", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt",
    "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where", "Xor",
})  # fmt: skip
FLOAT, INT32, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64


@dataclass(frozen=True)
class Taste:
    """What a compiler takes. None and the widest ranges: everything."""

    custom: frozenset[tuple[str, str]] = frozenset({MSDA, DCN})
    operators: frozenset[str] | None = None  # of ONNX itself; None = all
    opsets: tuple[int, int] = (1, 99)
    irs: tuple[int, int] = (3, 99)
    max_rank: int = 99
    int64_values: bool = True  # computed or fed in; constants in the file are always read
    number_dtypes: tuple[int, ...] = (INT32, INT64)  # of what a custom node reads as sizes and scalars
    scalar_ranks: tuple[int, ...] = (0, 1)
    constant_nodes: bool = True
    functions: bool = True
    needs_functions: bool = False  # a runtime that knows no custom node and looks for its body
    needs_value_info: bool = False
    batchnorm_behind_custom: bool = True
    writes_outputs: bool = True
    takes_anything: bool = False


TASTES = {
    "easy": Taste(),
    "allow_list": Taste(operators=OLD, opsets=(11, 11)),
    "old_ir": Taste(irs=(3, 5)),
    "low_opset": Taste(opsets=(7, 13)),
    "high_opset": Taste(opsets=(17, 22)),
    "no_int64": Taste(int64_values=False, number_dtypes=(INT32,)),
    "rank1_scalars": Taste(scalar_ranks=(1,)),
    "no_constant_nodes": Taste(constant_nodes=False, scalar_ranks=(1,), number_dtypes=(INT32,)),
    "no_functions": Taste(functions=False, opsets=(7, 18)),
    "wants_functions": Taste(needs_functions=True, opsets=(16, 22)),
    "wants_value_info": Taste(needs_value_info=True),
    "no_rank6": Taste(max_rank=5, custom=frozenset({MSDA, DCN, BEVFORMER})),
    "nothing_without_rank6": Taste(max_rank=5),
    "standard_only": Taste(custom=frozenset()),
    "standard_without_int64": Taste(custom=frozenset(), opsets=(11, 11), int64_values=False),
    "old_standard_only": Taste(custom=frozenset(), opsets=(7, 13)),
    "no_batchnorm_behind": Taste(batchnorm_behind_custom=False),
    "empty_domain": Taste(custom=frozenset({("", MSDA[1]), ("", DCN[1])})),
    "mmdeploy": Taste(
        custom=frozenset({("mmdeploy", "MMCVMultiScaleDeformableAttention"), ("mmdeploy", "MMCVModulatedDeformConv2d")}),
        number_dtypes=(INT32,),
    ),
    "no_argmax": Taste(operators=OLD - {"ArgMax"}, opsets=(11, 11)),
    "no_cum_sum": Taste(operators=OLD - {"CumSum"}, opsets=(11, 11)),
    "no_conv_transpose": Taste(operators=OLD - {"ConvTranspose"}, opsets=(11, 11)),
    "compiler_only": Taste(writes_outputs=False),
    "takes_anything": Taste(writes_outputs=False, takes_anything=True),
    "refuses_everything": Taste(opsets=(1, 6)),
}  # fmt: skip


def complaints(model: onnx.ModelProto, taste: Taste) -> list[str]:
    """What a compiler of this taste dislikes about a model."""
    return [] if taste.takes_anything else [*_of_file(model, taste), *_of_values(model, taste), *_of_nodes(model, taste)]


def _of_file(model: onnx.ModelProto, taste: Taste) -> Iterator[str]:
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    if not taste.opsets[0] <= opset <= taste.opsets[1]:
        yield f"opset {opset}"
    if not taste.irs[0] <= model.ir_version <= taste.irs[1]:
        yield f"IR version {model.ir_version}"
    if model.functions and not taste.functions:
        yield "functions in the file"


def _of_values(model: onnx.ModelProto, taste: Taste) -> Iterator[str]:
    graph = model.graph
    infos = {info.name: info.type.tensor_type for info in (*graph.value_info, *graph.input, *graph.output)}
    computed = {name for node in graph.node if node.op_type != "Constant" for name in node.output if name}
    computed |= {info.name for info in graph.input}
    for name in sorted(computed):
        if name not in infos:
            if taste.needs_value_info:
                yield f"no type for {name}"
            continue
        if len(infos[name].shape.dim) > taste.max_rank:
            yield f"rank {len(infos[name].shape.dim)} of {name}"
        if infos[name].elem_type == INT64 and not taste.int64_values:
            yield f"int64 {name}"


def _of_nodes(model: onnx.ModelProto, taste: Taste) -> Iterator[str]:
    constants = _constants(model)
    bodies = {(function.domain, function.name) for function in model.functions}
    made_by_custom = set()
    for node in model.graph.node:
        name = (node.domain, node.op_type)
        is_onnx = not node.domain and onnx.defs.has(node.op_type)
        if is_onnx:
            if taste.operators is not None and node.op_type not in taste.operators:
                yield f"operator {node.op_type}"
            if node.op_type == "Constant" and not taste.constant_nodes:
                yield "a Constant node"
            if node.op_type == "BatchNormalization" and node.input[0] in made_by_custom and not taste.batchnorm_behind_custom:
                yield "BatchNormalization behind a custom node"
            continue
        made_by_custom |= set(node.output)
        if name not in (bodies if taste.needs_functions else taste.custom):
            yield f"operator {node.domain}::{node.op_type}"
            continue
        for port in (port for port in node.input if port in constants and constants[port][0] != FLOAT):
            dtype, rank = constants[port]
            if dtype not in taste.number_dtypes:
                yield f"dtype of {port}"
            if node.op_type == MSDA[1] and port in node.input[5:] and rank not in taste.scalar_ranks:
                yield f"rank {rank} of {port}"


def _constants(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Name → dtype and rank of what is constant in the file."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    return {name: (tensor.data_type, len(tensor.dims)) for name, tensor in tensors.items()}


def compile_probe(folder: Path, taste: Taste) -> tuple[int, str]:
    """What a compiler of this taste does with one probe: exit status and log. Outputs are the expected ones, a little off."""
    found = complaints(onnx.load(folder / "model.onnx", load_external_data=False), taste)
    if found:
        return 1, "\n".join(["errors:", *found]) + "\n"
    if taste.writes_outputs:
        for path in folder.glob("expected_*.npy"):
            array = np.load(path)
            number = path.name.split("_")[1]
            np.save(folder / "result" / f"output_{number}.npy", array * np.float32(1.001) if array.dtype.kind == "f" else array)
    return 0, "compiled\n"


def compile_all(folder: Path, taste: Taste) -> None:
    """What `run.sh` leaves behind with a compiler of this taste, without its shell."""
    for entry in json.loads((folder / "index.json").read_text())["probes"]:
        probe = folder / entry["name"]
        shutil.rmtree(probe / "result", ignore_errors=True)
        (probe / "result").mkdir()
        status, log = compile_probe(probe, taste)
        (probe / "result/log.txt").write_text(log)
        (probe / "result/status").write_text(f"{status}\n")


if __name__ == "__main__":
    STATUS, LOG = compile_probe(Path(sys.argv[3]), TASTES[sys.argv[1]])
    print(LOG, end="")
    sys.exit(STATUS)
