"""The folder of conformance vectors, as `occport vectors` writes it and `occport grade` reads it.

    DIR/index.json                    format, dialect, contracts, the records of all cases
    DIR/CASE/case.json                the record
    DIR/CASE/model.onnx               the one custom node in the dialect's form
    DIR/CASE/test_data_set_0/         input_0.pb … in the order of the model's inputs, output_0.pb: as ONNX's own backend tests
    DIR/CASE/npy/                     each port of the node by name, output (float32), golden (float64)
    DIR/CASE/raw/                     the same as bare numbers: little-endian, C order
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from ...errors import ModelFileError
from .case import Case, check, output_shape
from .precision import PRECISIONS
from .raised_ports import RaisePorts, raised_ports
from .record import AGAIN, INDEX, Index, Port, Record, check_name
from .tolerance import pair

CASE = "case.json"
_RESERVED = ("output", "golden")


@dataclass(frozen=True)
class Held:
    """What one port of the node holds, in the dialect's dtype and shape; `graph_input`: fed to the model, not a constant inside it."""

    name: str
    form: str
    array: np.ndarray
    graph_input: bool = True


@dataclass(frozen=True)
class Stored:
    """A case read back: its golden output is in the operator's own shape, `record.shape` is the dialect's."""

    record: Record
    case: Case
    golden: np.ndarray


def write_case(
    folder: Path, case: Case, ports: Sequence[Held], golden: np.ndarray, shape: tuple[int, ...], model: bytes, facts: Mapping[str, Any]
) -> Record:
    """Writes `folder/case.name`, which must not exist.

    Args:
        folder: the folder of all cases.
        case: its quantities give the tolerances.
        ports: what each input of the node holds, in the node's order; those that are graph inputs in the order of the model's inputs.
        golden: float64 output of the operator (`golden.golden`).
        shape: of the output in the dialect's form; same numbers in the same order as `golden`.
        model: the serialised one-node model.
        facts: what else the record shall say (seed, sampling); JSON.

    Returns:
        The record.

    Raises:
        ModelFileError: the quantities do not fit together, the golden values are not finite, a name cannot be a file's.
    """
    check(case)
    check_name(f"case {case.name}", case.name)
    for port in ports:
        check_name(f"case {case.name}, input {port.name}", port.name)
        if port.name in _RESERVED:
            raise ModelFileError(f"case {case.name}", expected=f"inputs not named {' or '.join(_RESERVED)}", got=port.name)
    assert golden.shape == output_shape(case) and golden.dtype == np.float64, (golden.shape, golden.dtype)
    if not np.isfinite(golden).all():
        raise ModelFileError(f"case {case.name}", expected="finite golden values", got="inf or nan", fix="give the network finite inputs")
    place = folder / case.name
    for part in ("test_data_set_0", "npy", "raw"):
        (place / part).mkdir(parents=True)
    (place / "model.onnx").write_bytes(model)
    output = golden.reshape(shape).astype(np.float32)
    for number, port in enumerate(port for port in ports if port.graph_input):
        _write_pb(place / "test_data_set_0" / f"input_{number}.pb", port.array, port.name)
    _write_pb(place / "test_data_set_0" / "output_0.pb", output, "output")
    named = {port.name: port.array for port in ports} | {"output": output, "golden": golden.reshape(shape)}
    for name, array in named.items():
        np.save(place / "npy" / f"{name}.npy", np.ascontiguousarray(array).reshape(array.shape))
        (place / "raw" / f"{name}.bin").write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    record = Record(
        case.name, case.operator, case.source, case.what, _plain(case.attributes),
        tuple(Port(port.name, port.form, port.array.dtype.name, port.array.shape, port.graph_input) for port in ports),
        tuple(shape), "float32", {dtype: pair(case, dtype, golden) for dtype in PRECISIONS}, facts,
    )  # fmt: skip
    _write_json(place / CASE, record.to_json())
    return record


def write_index(folder: Path, index: Index, more: Mapping[str, Any] | None = None) -> None:
    """Writes `folder/index.json`; `more`: fields beyond the index's own, JSON."""
    _write_json(folder / INDEX, {**index.to_json(), **(more or {})})


def read_case(folder: Path, record: Record, raise_ports: RaisePorts = raised_ports) -> Stored:
    """Reads a case's inputs and golden output.

    Args:
        folder: the folder of all cases.
        record: of the index (`read_index`).
        raise_ports: (record, port name → array) → quantity → array.

    Raises:
        ModelFileError: a file is absent, damaged, or not as the record says.
    """
    place = folder / record.name / "npy"
    ports = {port.name: _load(place / f"{port.name}.npy", port.dtype, port.shape) for port in record.inputs}
    golden = _load(place / "golden.npy", "float64", record.shape)
    case = Case(record.name, record.operator, raise_ports(record, ports), record.attributes, record.what, record.source)
    check(case)
    wanted = output_shape(case)
    if golden.size != np.prod(wanted):
        got = f"shape {list(golden.shape)}"
        raise ModelFileError(f"{place / 'golden.npy'}", expected=f"the values of {list(wanted)}", got=got, fix=AGAIN)
    return Stored(record, case, golden.reshape(wanted))


def _load(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelFileError(f"{path}", expected="an npy file", got=getattr(error, "strerror", None) or str(error), fix=AGAIN) from error
    if not isinstance(array, np.ndarray) or array.dtype.name != dtype or array.shape != shape:
        got = f"{array.dtype.name} {list(array.shape)}" if isinstance(array, np.ndarray) else "an npz archive"
        raise ModelFileError(f"{path}", expected=f"{dtype} {list(shape)} as the record says", got=got, fix=AGAIN)
    return array


def _write_pb(path: Path, array: np.ndarray, name: str) -> None:
    path.write_bytes(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name).SerializeToString())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}
