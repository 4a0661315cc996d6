"""Tracing the network into the canonical graph: one model code, three small entry modules that own budget, labels and `dropped`.

The graph that comes out has static shapes, typed values and opset 18; see `graph/canonical.py` for its two custom nodes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from ..graph import canonical
from ..model.projection import Budget, LevelTable
from ..model.surroundocc import SurroundOcc

TRACE_OPSET = 18  # the exporter's own
TABLE_FIELDS = LevelTable._fields


@dataclass(frozen=True)
class Outputs:
    """What the file gives out."""

    kind: str  # "labels", "logits" or "probabilities"
    scales: tuple[int, ...]  # of 0..3, coarse to fine
    label_dtype: str = "int64"  # or "int32"
    softmax: bool = False  # keep upstream's softmax in front of the argmax

    def of(self, logits: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Logits (B, classes, X, Y, Z) of all scales → the chosen outputs of the chosen scales.

        labels: (B, X, Y, Z) class index, or 1 where the one channel's probability is over 1/2; probabilities: softmax over
        classes (B, classes, X, Y, Z), or the sigmoid of the one channel (B, X, Y, Z).
        """
        return tuple(self._one(logits[scale]) for scale in self.scales)

    def _one(self, logits: Tensor) -> Tensor:
        single = logits.shape[1] == 1
        if self.kind == "logits":
            return logits
        if self.kind == "probabilities":
            return logits.squeeze(1).sigmoid() if single else logits.softmax(1)
        labels = (logits.squeeze(1) > 0).long() if single else (logits.softmax(1) if self.softmax else logits).argmax(1)
        return labels.int() if self.label_dtype == "int32" else labels


class RuntimeEntry(nn.Module):
    """img, lidar2img → outputs, dropped: the calibration may change with every frame."""

    def __init__(self, model: SurroundOcc, image_hw: tuple[int, int], budgets: Sequence[Budget], outputs: Outputs) -> None:
        super().__init__()
        self.model, self.image_hw, self.budgets, self.outputs = model, image_hw, list(budgets), outputs

    def forward(self, img: Tensor, lidar2img: Tensor) -> tuple[Tensor, ...]:
        """(B, N, 3, H, W), (B, N, 4, 4) → the outputs of each scale, dropped (B, levels) int64."""
        tables, dropped = self.model.tables(lidar2img, self.image_hw, self.budgets)
        return (*self.outputs.of(self.model.logits(img, tables)), dropped)


class TablesEntry(nn.Module):
    """img, tables → outputs: nothing data-dependent in the graph."""

    def __init__(self, model: SurroundOcc, outputs: Outputs) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, img: Tensor, *fields: Tensor) -> tuple[Tensor, ...]:
        """(B, N, 3, H, W), then slots, ref_uv, back, weight of each level → the outputs of each scale."""
        return self.outputs.of(self.model.logits(img, unflatten(fields)))


class GeometryEntry(nn.Module):
    """lidar2img → tables, dropped: the small companion of `TablesEntry`."""

    def __init__(self, model: SurroundOcc, image_hw: tuple[int, int], budgets: Sequence[Budget]) -> None:
        super().__init__()
        self.projection, self.image_hw, self.budgets = model.projection, image_hw, list(budgets)

    def forward(self, lidar2img: Tensor) -> tuple[Tensor, ...]:
        """(B, N, 4, 4) → slots, ref_uv, back, weight of each level, dropped (B, levels) int64."""
        tables, dropped = self.projection(lidar2img, self.image_hw, self.budgets)
        return (*flatten(tables), dropped)


class FixedEntry(nn.Module):
    """img → outputs: one rig for ever, its tables are constants."""

    def __init__(self, model: SurroundOcc, tables: Sequence[LevelTable], outputs: Outputs) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs
        for name, field in zip(table_names(len(tables)), flatten(tables), strict=True):
            self.register_buffer(name, field, persistent=False)

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        """(B, N, 3, H, W) → the outputs of each scale."""
        fields = [getattr(self, name) for name in table_names(len(self.model.config.levels))]
        return self.outputs.of(self.model.logits(img, unflatten(fields)))


def table_names(levels: int) -> list[str]:
    """Names of the tables as inputs and outputs: level0_slots, level0_ref_uv, …"""
    return [f"level{level}_{field}" for level in range(levels) for field in TABLE_FIELDS]


def flatten(tables: Sequence[LevelTable]) -> tuple[Tensor, ...]:
    """Tables → their fields, level by level, in the order of `table_names`."""
    return tuple(field for table in tables for field in table)


def unflatten(fields: Sequence[Tensor]) -> tuple[LevelTable, ...]:
    """The reverse of `flatten`."""
    count = len(TABLE_FIELDS)
    return tuple(LevelTable(*fields[i : i + count]) for i in range(0, len(fields), count))


def trace(entry: nn.Module, inputs: Sequence[Tensor], input_names: Sequence[str], output_names: Sequence[str]) -> ir.Model:
    """Exports an entry module with example inputs (their values do not matter, only shapes and dtypes).

    Returns:
        The canonical graph at opset 18: initializers refer to the module's own memory.
    """
    with torch.no_grad(), _quiet():
        program = torch.export.export(entry, tuple(inputs), strict=False)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=TRACE_OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            custom_translation_table=_translations(),
            verbose=False,
        )
    if exported is None or exported.model.opset_imports.get("") != TRACE_OPSET:
        raise AssertionError("the exporter did not keep the opset it was asked for")
    return exported.model


def _translations() -> dict[Any, Any]:
    """Our torch operators → bare canonical nodes."""
    from onnxscript import opset18, values

    schemas = canonical.schemas()
    domain = values.Opset(canonical.DOMAIN, canonical.VERSION)
    dcn = values.Op(domain, canonical.DCN, schemas[canonical.DCN])
    msda = values.Op(domain, canonical.MSDA, schemas[canonical.MSDA])

    def deform_conv2d(
        input: Any,
        offset: Any,
        mask: Any,
        weight: Any,
        bias: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        deform_groups: int,
    ) -> Any:
        tensors = (input, offset, mask, weight) if bias is None else (input, offset, mask, weight, bias)
        sizes = {"stride": list(stride), "padding": list(padding), "dilation": list(dilation)}
        return dcn(*tensors, **sizes, groups=groups, deform_groups=deform_groups)

    def attention(value: Any, spatial_shapes: Sequence[int], reference_points: Any, sampling_offsets: Any, attention_logits: Any) -> Any:
        shapes = np.array(spatial_shapes, np.int64).reshape(-1, 2)
        starts = np.concatenate([[0], shapes.prod(1).cumsum()[:-1]]).astype(np.int64)
        sizes = (opset18.Constant(value=onnx.numpy_helper.from_array(array)) for array in (shapes, starts))
        return msda(value, *sizes, reference_points, sampling_offsets, attention_logits)

    operators = torch.ops.occport
    return {
        operators.deform_conv2d.default: deform_conv2d,
        operators.multi_scale_deformable_attention.default: attention,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of torchvision that is not installed and of its own deprecations: nothing a user could mend."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
