"""Files to take vectors from, and running the cases that were written in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from occport.graph import dialect as dialects
from occport.graph.contract import Contract
from occport.graph.dialect import Dialect
from occport.graph.functions import Arithmetics, functions_for
from occport.graph.rewrite import to_dialect
from occport.graph.twin import proto_to_twin
from occport.kit.cases.record import Record
from occport.kit.vectors.write import Request, Written, write_vectors
from occport.progress import NullProgress
from occport.session import open_session
from small_graphs import network

WITH_NODES = [name for name in dialects.names() if name != "standard"]


def small_file(folder: Path, name: str) -> tuple[Path, Path]:
    """A file of the small network in a dialect, without a manifest, and a folder with its inputs: one convolution, two attentions."""
    model, feeds = network()
    dialect = dialects.load(name)
    to_dialect(model, dialect, dialect.opset, functions=False)
    path, inputs = folder / f"{name}.onnx", folder / f"{name}_inputs"
    onnx.save(ir.to_proto(model), path)
    inputs.mkdir()
    for port, array in feeds.items():
        np.save(inputs / f"{port}.npy", array)
    return path, inputs


def write(model: Path, folder: Path, **changes: Any) -> Written:
    """Writes vectors in silence."""
    return write_vectors(Request(model, folder, **changes), NullProgress())


def contract_of(dialect: Dialect, record: Record) -> Contract:
    contract = dialect.msda if record.operator == "msda" else dialect.dcn
    assert contract is not None
    return contract


def backend_test(case: Path) -> tuple[onnx.ModelProto, dict[str, np.ndarray], np.ndarray]:
    """Model, inputs by name and output of a case, read as ONNX's backend tests are: by number, in the order of the model's inputs."""
    model = onnx.load(case / "model.onnx")
    data = case / "test_data_set_0"
    assert len(list(data.iterdir())) == len(model.graph.input) + 1
    tensors = [onnx.load_tensor(data / f"input_{i}.pb") for i in range(len(model.graph.input))]
    assert [tensor.name for tensor in tensors] == [info.name for info in model.graph.input]
    output = onnx.load_tensor(data / "output_0.pb")
    return model, {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}, numpy_helper.to_array(output)


def run_case(case: Path, dialect: Dialect | None) -> np.ndarray:
    """What ONNX Runtime makes of a case; with a dialect, bodies are attached in memory first."""
    model, feeds, _ = backend_test(case)
    if dialect is not None:
        proto_to_twin(model, dialect)
        gather = Arithmetics("gather", "gather")  # GridSample of ONNX Runtime 1.32 is wrong for places of 1e30
        for function in functions_for(ir.from_proto(model), dialect, model.opset_import[0].version, gather):
            model.functions.append(ir.to_proto(function))
        model.ir_version = max(model.ir_version, 8)
    (output,) = open_session(model).run(feeds).values()
    return output


def assert_right(folder: Path, record: Record, dialect: Dialect | None) -> None:
    """ONNX Runtime's output of a case is within its float32 tolerance."""
    got, want = run_case(folder / record.name, dialect), np.load(folder / record.name / "npy/golden.npy")
    assert got.shape == want.shape == record.shape
    atol, rtol = record.tolerance["float32"]
    assert (np.abs(got - want) <= atol + rtol * np.abs(want)).all(), record.name


def ports_on_disk(folder: Path, record: Record) -> dict[str, np.ndarray]:
    """Port name → array of npy/."""
    return {port.name: np.load(folder / record.name / f"npy/{port.name}.npy") for port in record.inputs}
