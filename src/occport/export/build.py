"""A spec and a network in, the finished graphs out: trace, names, dialect, opset, ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir
import torch
from torch import Tensor

from ..graph.names import name_everything, rename_ports
from ..graph.passes.input_rank import drop_batch_axis
from ..graph.precision.convert import to_precision
from ..graph.precision.types import EXACT
from ..graph.rewrite import to_dialect
from ..model.projection import LevelTable
from ..model.surroundocc import SurroundOcc
from .spec import Spec
from .trace import FixedEntry, GeometryEntry, RuntimeEntry, TablesEntry, flatten, table_names, trace

LAYOUT = {
    "img": "(batch, camera, channel, row, column) float32: BGR 0..255 minus mean, zero-padded at the bottom and right",
    "lidar2img": "(batch, camera, 4, 4) float32: homogeneous lidar metres → pixels of the padded image, times depth",
    "labels": "(batch, X, Y, Z): class index of each voxel, 0 = empty; X right, Y forward, Z up in the lidar frame",
    "logits": "(batch, class, X, Y, Z): before softmax (17 classes) or sigmoid (1 class)",
    "probabilities": "(batch, class, X, Y, Z) softmax over classes; (batch, X, Y, Z) sigmoid where there is one class",
    "dropped": "(batch, level): (camera, voxel) hits that found no room in the budget; 0 = the result is exact",
    "slots": "(batch, camera, slot): voxel in each slot, 0 where empty",
    "ref_uv": "(batch, camera, slot, 2): (u, v) of the slot's voxel in units of the padded image, 0 where empty",
    "back": "(batch, row, voxel): slot camera*K + k of each camera that sees the voxel; cameras*K = none",
    "weight": "(batch, voxel): 1 / max(number of cameras that see the voxel, 1)",
}


def meaning(name: str) -> str:
    """What an input or output holds: axes, dtype, unit. Names as the spec has them, before renaming."""
    return LAYOUT[name.split("_", 1)[1] if name.startswith("level") else name.split("_scale")[0]]


def build_main(model: SurroundOcc, spec: Spec, tables: Sequence[LevelTable] | None) -> ir.Model:
    """The main graph. `tables` of one sample are needed for `fixed` alone: they become constants."""
    N, (H, W) = spec.config.num_cameras, spec.image_hw
    inputs: list[Tensor] = [torch.zeros(1, N, 3, H, W)]
    entry: torch.nn.Module
    if spec.calibration == "runtime":
        entry = RuntimeEntry(model, spec.image_hw, spec.budgets, spec.outputs)
        inputs.append(torch.eye(4).repeat(1, N, 1, 1))
    elif spec.calibration == "tables":
        entry = TablesEntry(model, spec.outputs)
        with torch.no_grad():
            inputs += flatten(model.tables(torch.eye(4).repeat(1, N, 1, 1), spec.image_hw, spec.budgets)[0])
    else:
        assert tables is not None
        entry = FixedEntry(model, tables, spec.outputs)
    traced_outputs = [name for name in spec.output_names if name != "dropped"] + (["dropped"] if spec.calibration == "runtime" else [])
    graph = trace(entry, inputs, spec.input_names, traced_outputs)
    if "dropped" not in spec.output_names:
        _without_output(graph, "dropped")
    return _finish(graph, spec)


def build_geometry(model: SurroundOcc, spec: Spec) -> ir.Model:
    """The companion of a `tables` export: lidar2img → tables, dropped. Standard operators only, at the spec's opset."""
    entry = GeometryEntry(model, spec.image_hw, spec.budgets)
    graph = trace(entry, [torch.eye(4).repeat(1, spec.config.num_cameras, 1, 1)], ["lidar2img"], spec.geometry_output_names)
    return _finish(graph, replace(spec, precision=EXACT))  # what the calibration says stays exact


def _finish(graph: ir.Model, spec: Spec) -> ir.Model:
    name_everything(graph)
    to_dialect(graph, spec.dialect, spec.opset, functions=spec.functions, arithmetics=spec.arithmetics)
    names = {value.name for value in graph.graph.inputs}
    if spec.img_rank == 4 and "img" in names:
        drop_batch_axis(graph, "img")
    if spec.lidar2img_rank == 3 and "lidar2img" in names:
        drop_batch_axis(graph, "lidar2img")
    conversion = to_precision(graph, spec.precision, spec.dialect)  # behind all that adds nodes: see graph.precision.same_graph
    if conversion is not None:
        graph.metadata_props["occport.precision"] = f"{spec.precision}: {conversion.described}"
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        value.doc_string = meaning(str(value.name))
    ports = names | {value.name for value in graph.graph.outputs}
    rename_ports(graph, {old: new for old, new in spec.renames if old in ports})
    return graph


def _without_output(graph: ir.Model, name: str) -> None:
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph.graph.outputs[:] = [value for value in graph.graph.outputs if value.name != name]
    RemoveUnusedNodesPass()(graph)


def table_feeds(tables: Sequence[LevelTable]) -> dict[str, Tensor]:
    """Tables by the names of their inputs."""
    return dict(zip(table_names(len(tables)), flatten(tables), strict=True))
