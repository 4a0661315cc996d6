"""The graphs of an export on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..graph.model_file import write_model
from ..model.surroundocc import SurroundOcc
from .build import build_geometry, build_main
from .spec import Spec
from .weights import Weights


def write_graphs(
    model: SurroundOcc, spec: Spec, lidar2img: np.ndarray, folder: Path, stem: str, weights: Weights, external_data: bool = False
) -> dict[str, Path]:
    """Builds the main graph (and the geometry graph of `tables`) and writes them. Returns role → path."""
    tables = None
    if spec.calibration == "fixed":
        with torch.no_grad():
            tables, _ = model.tables(torch.from_numpy(lidar2img), spec.image_hw, spec.budgets)
    notes = {"weights": weights.described, "config": spec.config.name, "calibration": spec.calibration, "dialect": spec.dialect.name}
    graphs = {"model": build_main(model, spec, tables)}
    if spec.calibration == "tables":
        graphs["geometry"] = build_geometry(model, spec)
    paths = {}
    for role, graph in graphs.items():
        graph.producer_name, graph.producer_version = "occport", __version__
        graph.graph.name = stem if role == "model" else f"{stem}_{role}"
        graph.metadata_props.update({f"occport.{key}": text for key, text in notes.items()})
        paths[role] = folder / (f"{stem}.onnx" if role == "model" else f"{stem}.{role}.onnx")
        write_model(graph, paths[role], external_data=external_data)
    data = {"data": folder / f"{stem}.onnx.data", "geometry data": folder / f"{stem}.geometry.onnx.data"}
    return paths | {role: path for role, path in data.items() if path.exists()}
