"""The index of a folder of tensors: what each is, where in the network, in which file. `index.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError

NAME = "index.json"
FORMAT = 1
ROLES = ("input", "inner", "output")


@dataclass(frozen=True)
class Entry:
    """One tensor.

    Attributes:
        name: in the model file.
        node, op_type: that makes it, "DOMAIN::NAME" for custom operators; "" for an input of the model.
        stage: of the network, one of `graph.stages`.
        role: one of ROLES.
        dtype: NumPy's name, or "bfloat16".
        shape: of the tensor.
        axes: what each axis is, as far as known ("A", "K", "M", "D", ...); () where nothing is known.
        file: in the folder.
        sha256: of the array's bytes, little-endian, in C order; the same for every format.
    """

    name: str
    node: str
    op_type: str
    stage: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    file: str
    sha256: str


@dataclass(frozen=True)
class Index:
    """A folder of tensors.

    Attributes:
        model: file name of the model.
        model_sha256: of its bytes.
        place: of the model file, relative to the folder, when the tensors were made.
        dialect: of its custom nodes.
        source: where the inputs are from, in words ("frame synthetic").
        format: of the arrays' files, one of `formats.FORMATS`.
        tensors: in graph order.
        slots: tensor that says which voxel stands in each slot, for each level in order, as far as the file holds it: (A, K).
        grids: voxels of each level, (Z, Y, X); a voxel's number counts them in this order.
        cameras: names, in the order of axis A.
    """

    model: str
    model_sha256: str
    dialect: str
    source: str
    format: str
    tensors: tuple[Entry, ...]
    slots: tuple[str, ...] = ()
    grids: tuple[tuple[int, int, int], ...] = ()
    cameras: tuple[str, ...] = ()
    place: str = ""

    def entry(self, name: str) -> Entry | None:
        """The entry of a tensor."""
        return next((entry for entry in self.tensors if entry.name == name), None)


def index_text(index: Index) -> str:
    """The content of `index.json`."""
    return json.dumps({"format_version": FORMAT, **asdict(index)}, indent=1, ensure_ascii=False) + "\n"


def read_index(folder: Path) -> Index:
    """Reads a folder's index.

    Errors: UserError where there is none, or one that `occport golden` or `occport split` did not write.
    """
    path = folder / NAME
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else "no JSON"
        fix = "make one with `occport golden MODEL.onnx -o FOLDER`"
        raise UserError(f"golden folder {folder}", expected=f"a folder with {NAME}", got=got, fix=fix) from error
    try:
        return _index(table)
    except (KeyError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        raise UserError(f"index {path}", expected="what this occport writes", got=got, fix="make the folder anew") from error


def _index(table: Mapping[str, Any]) -> Index:
    if table["format_version"] != FORMAT:
        raise ValueError(f"format_version {table['format_version']}")
    fields = {name: value for name, value in table.items() if name != "format_version"}
    tensors = tuple(_entry(entry) for entry in table["tensors"])
    plain = {name: tuple(table[name]) for name in ("slots", "cameras")}
    return Index(**{**fields, **plain, "tensors": tensors, "grids": tuple((int(z), int(y), int(x)) for z, y, x in table["grids"])})


def _entry(table: Mapping[str, Any]) -> Entry:
    entry = Entry(**{**table, "shape": tuple(table["shape"]), "axes": tuple(table["axes"])})
    if entry.dtype != "bfloat16":
        np.dtype(entry.dtype)
    if entry.axes and len(entry.axes) != len(entry.shape):
        raise ValueError(f"{entry.name} has {len(entry.shape)} sizes and {len(entry.axes)} axes")
    if entry.stage.startswith("level ") and not entry.stage.removeprefix("level ").isdecimal():
        raise ValueError(f"{entry.name} belongs to stage {entry.stage!r}")
    return entry
