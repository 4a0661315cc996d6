"""The custom operators of a file: their contracts in words, each of their nodes with its shapes, and the vectors that test a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.attributes import ATTRIBUTE_FORMS
from ...graph.contract import TWIN_DOMAIN, Contract, Port
from ...graph.forms import PORT_FORMS
from ...graph.stages import first_output, stages_of
from ...graph.submodel import value_types
from ...kit.cases.record import Index, Record, read_index
from .about import dtype_of, shape_of
from .section import Told

_KINDS = {"msda": "multi-scale deformable attention", "dcn": "modulated deformable convolution"}
_UNKNOWN: dict[str, Any] = {"shape": [], "dtype": "", "origin": "unknown"}


def operators(file: NetworkFile, vectors: Path | None) -> Told:
    """Reads contracts, nodes and, where a folder is given, its vectors.

    Errors: ModelFileError for a file of standard operators alone, and for a folder that `occport vectors` has not written.
    """
    contracts = {key: one for key, one in (("msda", file.dialect.msda), ("dcn", file.dialect.dcn)) if one is not None}
    if not contracts:
        got = f"none: {file.dialect.name} uses standard operators only"
        raise ModelFileError(f"custom operators of {file.path.name}", got=got, fix="a stock runtime has all that it needs")
    index = read_index(vectors) if vectors is not None else None
    found = [_operator(file, key, contract, index) for key, contract in contracts.items()]
    made = f"occport vectors {file.path.name} -o VECTORS" + ("" if file.manifest is not None else f" --dialect {file.dialect.name}")
    told = {"operators": found, "vectors": _folder(file, vectors, index), "vectors_command": made}
    return Told(told)


def _operator(file: NetworkFile, key: str, contract: Contract, index: Index | None) -> dict[str, Any]:
    nodes = _nodes(file, contract)
    return {
        "key": key, "kind": _KINDS[key], "title": contract.title, "domain": contract.domain, "version": contract.version,
        "other_names": list(contract.other_names), "kernel_dtypes": list(contract.dtypes),
        "bias": {"batchnorm": "none; a BatchNormalization follows", "add": "none; an Add follows", "input": "an input"}[contract.bias]
        if key == "dcn" else "",
        "inputs": [_port(port) for port in contract.inputs], "output": _port(contract.output),
        "attributes": [
            {"name": one.name, "type": one.type, "holds": ATTRIBUTE_FORMS[one.form].what if one.form else f"always {one.default!r}"}
            for one in contract.attributes
        ],
        "limits": [
            {"size": limit.size, "bound": limit.describe(), "dtype": limit.dtype, "why": limit.why} for limit in contract.limits
        ],
        "count": len(nodes), "nodes": nodes,
        "vectors": None if index is None else [_case(record) for record in index.records if record.operator == key],
    }  # fmt: skip


def _port(port: Port) -> dict[str, Any]:
    form = PORT_FORMS[port.form]
    return {
        "name": port.name, "form": port.form, "holds": form.what, "axes": form.shape.split(), "dtype": port.dtype, "rank": port.rank,
        "optional": port.optional, "place": port.place, "stays_float32": port.wide,
    }  # fmt: skip


def _nodes(file: NetworkFile, contract: Contract) -> list[dict[str, Any]]:
    """Every node of a contract, in graph order."""
    graph, stages = file.model.graph, stages_of(file.model.graph)
    kind, values = (contract.domain or TWIN_DOMAIN, contract.op_type), _values(graph)
    return [
        {
            "name": node.name, "stage": stages[first_output(node)],
            "inputs": [values.get(name, _UNKNOWN) if name else None for name in node.input],
            "output": values.get(first_output(node), _UNKNOWN),
            "attributes": {one.name: _attribute(one) for one in sorted(node.attribute, key=lambda one: one.name)},
        }
        for node in graph.node if (node.domain, node.op_type) == kind
    ]  # fmt: skip


def _values(graph: onnx.GraphProto) -> dict[str, dict[str, Any]]:
    """Tensor → shape, dtype, and where it comes from: "weight", "input", "constant" (a Constant node) or "graph"."""
    given = {info.name for info in graph.input}
    constants = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    found = {
        tensor.name: {
            "shape": list(tensor.dims), "dtype": str(helper.tensor_dtype_to_np_dtype(tensor.data_type)), "origin": "weight",
        }
        for tensor in graph.initializer
    }  # fmt: skip
    for name, info in value_types(graph).items():
        origin = "input" if name in given else "constant" if name in constants else "graph"
        found[name] = {"shape": shape_of(info), "dtype": dtype_of(info), "origin": origin}
    return found


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return f"tensor {list(value.dims)}"
    return float(np.float32(value)) if isinstance(value, float) else value if isinstance(value, int | str) else list(value)


def _case(record: Record) -> dict[str, Any]:
    return {
        "name": record.name, "source": record.source, "what": record.what, "dtype": record.dtype, "output": list(record.shape),
        "inputs": {port.name: list(port.shape) for port in record.inputs},
        "tolerance": {dtype: {"atol": pair.atol, "rtol": pair.rtol} for dtype, pair in record.tolerance.items()},
    }  # fmt: skip


def _folder(file: NetworkFile, folder: Path | None, index: Index | None) -> dict[str, Any] | None:
    if folder is None or index is None:
        return None
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    edges = sum(record.source == "edge" for record in index.records)
    note = ""
    if index.dialect != file.dialect.name:
        note = f"these vectors are of dialect {index.dialect}, the file is of {file.dialect.name}: write them again from this file"
    return {
        "folder": folder.name, "dialect": index.dialect, "cases": len(index.records), "network_cases": len(index.records) - edges,
        "edge_cases": edges, "bytes": size, "note": note,
    }  # fmt: skip
