"""What a file is: by its manifest, and by its graph as far as that tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx
from onnx import helper

from ...export.network_file import NetworkFile
from ...graph.lint.census import census
from .section import Content, Told

_SHOWN = ("image_hw", "functions", "precision", "with_dropped", "arithmetics", "outputs")  # of the spec, beside what the manifest says


def about(file: NetworkFile) -> Told:
    """Reads the manifest and the graph. Errors: ModelFileError for a manifest that has been changed."""
    graph = file.model.graph
    told: dict[str, Any] = {
        "file": file.path.name,
        "bytes": file.path.stat().st_size,
        "opset": file.opset,
        "ir_version": file.model.ir_version,
        "producer": f"{file.model.producer_name} {file.model.producer_version}".strip(),
        "dialect": {"name": file.dialect.name, "title": file.dialect.title, "checked_against": file.dialect.checked_against},
        "nodes": len(graph.node),
        "operators": census(file.model) if file.manifest is None else dict(file.manifest.get("census", {})),
        "weights_by_dtype": _weights(graph),
        "inputs": _ports(graph, file.input_names),
        "outputs": _ports(graph, [info.name for info in graph.output]),
    }
    return Told({**told, "export": None if file.manifest is None else _export(file, file.manifest, told)})


def _export(file: NetworkFile, manifest: Mapping[str, Any], told: dict[str, Any]) -> Content:
    """What only the manifest knows; puts the meaning of inputs and outputs into `told`."""
    spec = file.spec
    assert spec is not None
    meant = {port["name"]: port.get("meaning", "") for port in (*manifest.get("inputs", []), *manifest.get("outputs", []))}
    for port in (*told["inputs"], *told["outputs"]):
        port["meaning"] = meant.get(port["name"], "")
    config, frame = spec.config, manifest["frame"]
    axes = manifest.get("grid", {}).get("axes", "")
    return {
        "name": manifest.get("name", file.path.stem),
        "occport": manifest.get("occport", ""),
        "trained": manifest["weights"]["checkpoint"] is not None,
        "weights": dict(manifest["weights"]),
        "frame": {key: frame.get(key) for key in ("spec", "seed", "name", "cameras", "size", "described")},
        "files": [{"role": role, **entry} for role, entry in manifest["files"].items()],
        "guesses": list(manifest.get("dialect", {}).get("guesses", [])),
        "calibration": spec.calibration,
        "budgets": [budget._asdict() for budget in spec.budgets],
        "settings": {key: manifest["spec"][key] for key in _SHOWN if key in manifest["spec"]},
        "classes": list(manifest.get("classes", [])),
        "grid": {"size_xyz": list(config.occ_size), "range_metres": list(config.pc_range), "axes": axes},
        "config_notes": list(config.notes),
        "versions": dict(manifest.get("versions", {})),
    }


def _ports(graph: onnx.GraphProto, names: list[str]) -> list[dict[str, Any]]:
    types = {info.name: info for info in (*graph.input, *graph.output)}  # an output can be a weight
    return [{"name": name, "dtype": dtype_of(types[name]), "shape": shape_of(types[name]), "meaning": ""} for name in names]


def dtype_of(info: onnx.ValueInfoProto) -> str:
    """NumPy's name of a tensor's type; "" where the graph does not tell."""
    kind = info.type.tensor_type.elem_type
    return str(helper.tensor_dtype_to_np_dtype(kind)) if kind else ""


def shape_of(info: onnx.ValueInfoProto) -> list[int | str]:
    """Its sizes; a name where the file leaves one open."""
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in info.type.tensor_type.shape.dim]


def _weights(graph: onnx.GraphProto) -> list[dict[str, Any]]:
    """Numbers and bytes of the weights and tables of each dtype, the largest first."""
    found: dict[str, list[int]] = {}
    for tensor in graph.initializer:
        dtype, numbers = helper.tensor_dtype_to_np_dtype(tensor.data_type), math.prod(tensor.dims)
        entry = found.setdefault(str(dtype), [0, 0])
        entry[0], entry[1] = entry[0] + numbers, entry[1] + numbers * dtype.itemsize
    rows = [{"dtype": dtype, "numbers": numbers, "bytes": size} for dtype, (numbers, size) in found.items()]
    return sorted(rows, key=lambda row: (-int(str(row["bytes"])), str(row["dtype"])))
