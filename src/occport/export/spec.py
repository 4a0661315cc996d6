"""What a file is to be: everything that decides how it is built and how it is checked, and nothing else. JSON-ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..config import Config, from_resolved, resolved
from ..errors import ExportError, ModelFileError
from ..graph import dialect as dialects
from ..graph.dialect import Dialect
from ..graph.functions import BEST, Arithmetics
from ..graph.precision.target import check_precision
from ..graph.precision.types import EXACT
from ..graph.rewrite import check_target
from ..model.projection import Budget
from .trace import Outputs, table_names

CALIBRATIONS = ("runtime", "tables", "fixed")
Ports = dict[str, tuple[str, tuple[int, ...]]]  # name before renaming → dtype, shape


@dataclass(frozen=True)
class Spec:
    """One export. `image_hw` is the padded image; budgets are fine to coarse; the dialect has the user's settings in it, in float32."""

    config: Config
    image_hw: tuple[int, int]
    budgets: tuple[Budget, ...]
    calibration: str
    dialect: Dialect
    opset: int
    functions: bool
    outputs: Outputs
    with_dropped: bool = True
    img_rank: int = 5
    lidar2img_rank: int = 4
    renames: tuple[tuple[str, str], ...] = ()
    arithmetics: Arithmetics = BEST
    precision: str = EXACT

    def renamed(self, name: str) -> str:
        """The name that an input or output has in the file."""
        return dict(self.renames).get(name, name)

    @property
    def rounding(self) -> str:
        """What to say of a run of a 16-bit file; "" for float32."""
        return "" if self.precision == EXACT else f", float32 arithmetic with every result rounded to {self.precision}"

    @property
    def input_names(self) -> list[str]:
        """Inputs of the main file, before renaming."""
        extra = {"runtime": ["lidar2img"], "tables": table_names(len(self.config.levels)), "fixed": []}
        return ["img", *extra[self.calibration]]

    @property
    def output_names(self) -> list[str]:
        """Outputs of the main file, before renaming."""
        names = [f"{self.outputs.kind}_scale{scale}" for scale in self.outputs.scales]
        return [*names, "dropped"] if self.calibration == "runtime" and self.with_dropped else names

    @property
    def geometry_output_names(self) -> list[str]:
        """Outputs of the geometry file beside a `tables` export."""
        return [*table_names(len(self.config.levels)), "dropped"]

    def input_shapes(self) -> Ports:
        """Dtype and shape of each input of the main file, before renaming."""
        N = self.config.num_cameras
        img = (1, N, 3, *self.image_hw)
        shapes: Ports = {"img": ("float32", img[5 - self.img_rank :])}
        if self.calibration == "runtime":
            shapes.update(self.geometry_input_shapes())
        if self.calibration == "tables":
            shapes.update(self.table_shapes())
        return shapes

    def geometry_input_shapes(self) -> Ports:
        """Dtype and shape of the calibration, an input of a `runtime` file or of a geometry file."""
        return {"lidar2img": ("float32", (1, self.config.num_cameras, 4, 4)[4 - self.lidar2img_rank :])}

    def geometry_output_shapes(self) -> Ports:
        """Dtype and shape of each output of a geometry file, before renaming."""
        return {**self.table_shapes(), "dropped": ("int64", (1, len(self.config.levels)))}

    def table_shapes(self) -> Ports:
        """Dtype and shape of each table."""
        N = self.config.num_cameras
        shapes: Ports = {}
        for i, (level, budget) in enumerate(zip(self.config.levels, self.budgets, strict=True)):
            V = level.num_voxels
            shapes[f"level{i}_slots"] = ("int64", (1, N, budget.slots))
            shapes[f"level{i}_ref_uv"] = ("float32", (1, N, budget.slots, 2))
            shapes[f"level{i}_back"] = ("int64", (1, budget.cameras, V))
            shapes[f"level{i}_weight"] = ("float32", (1, V))
        return shapes

    def output_shapes(self) -> Ports:
        """Dtype and shape of each output of the main file, before renaming."""
        shapes: Ports = {}
        classes = self.config.num_classes
        for name, scale in zip(self.output_names, self.outputs.scales, strict=False):
            size = self.config.output_sizes[scale]
            if self.outputs.kind == "labels":
                shapes[name] = (self.outputs.label_dtype, (1, *size))
            elif self.outputs.kind == "probabilities" and classes == 1:
                shapes[name] = ("float32", (1, *size))
            else:
                shapes[name] = ("float32", (1, classes, *size))
        if "dropped" in self.output_names:
            shapes["dropped"] = ("int64", (1, len(self.config.levels)))
        return shapes


def check_renames(spec: Spec) -> None:
    """ExportError for a new name of something that the file does not have, or a second one. `graph.names` refuses bad new names."""
    olds = [old for old, _ in spec.renames]
    ports = list(dict.fromkeys([*spec.input_names, *spec.output_names]))
    if spec.calibration == "tables":
        ports += ["lidar2img", "dropped"]  # of the geometry file
    for old in olds:
        if old not in ports:
            raise ExportError(f"--rename {old}", expected=f"one of {', '.join(ports)}", got="an unknown name")
        if olds.count(old) > 1:
            raise ExportError(f"--rename {old}", expected="one new name", got=", ".join(new for name, new in spec.renames if name == old))


def to_json(spec: Spec) -> dict[str, Any]:
    """The spec as JSON values."""
    table = {name: value for name, value in vars(spec).items() if name not in ("config", "dialect", "outputs", "budgets")}
    return {
        "config": resolved(spec.config),
        **table,
        "image_hw": list(spec.image_hw),
        "budgets": [budget._asdict() for budget in spec.budgets],
        "dialect": dialects.to_table(spec.dialect),
        "outputs": asdict(spec.outputs),
        "renames": [list(pair) for pair in spec.renames],
        "arithmetics": spec.arithmetics._asdict(),
    }


def from_json(table: Mapping[str, Any]) -> Spec:
    """The reverse of `to_json`. ModelFileError when a field is missing or of another kind, or the combination cannot be."""
    try:
        if table["calibration"] not in CALIBRATIONS:
            raise ValueError(f"calibration {table['calibration']!r}")
        dialect = dialects.from_table(table["dialect"], "the manifest's dialect")
        arithmetics = Arithmetics(**table["arithmetics"])
        check_target(dialect, table["opset"], table["functions"], arithmetics)
        precision = table.get("precision", EXACT)  # manifests of older versions
        check_precision(precision, dialect, table["opset"], table["functions"], arithmetics)
        outputs = Outputs(**table["outputs"])
        return Spec(
            config=from_resolved(table["config"]),
            image_hw=(int(table["image_hw"][0]), int(table["image_hw"][1])),
            budgets=tuple(Budget(**budget) for budget in table["budgets"]),
            calibration=table["calibration"],
            dialect=dialect,
            opset=table["opset"],
            functions=table["functions"],
            outputs=replace(outputs, scales=tuple(outputs.scales)),
            with_dropped=table["with_dropped"],
            img_rank=table["img_rank"],
            lidar2img_rank=table["lidar2img_rank"],
            renames=tuple((str(old), str(new)) for old, new in table["renames"]),
            arithmetics=arithmetics,
            precision=precision,
        )
    except (KeyError, TypeError, ValueError, IndexError, ExportError) as error:
        raise ModelFileError(
            "the manifest's spec", expected="what occport export writes", got=f"{type(error).__name__}: {error}", fix="export again"
        ) from error
