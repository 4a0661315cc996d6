"""What a user tells about their tensors: which is which of ours, dtype, shape, layout, and the scale of quantised numbers."""

from __future__ import annotations

import csv
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError

LAYOUTS = ("same", "channels_last")
_DTYPES = (
    "float64", "float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool",
)  # fmt: skip


@dataclass(frozen=True)
class Hint:
    """What is told about one tensor; "", () and nan where nothing is.

    Attributes:
        theirs: their name of it, or a file.
        dtype: NumPy's name, or "bfloat16".
        shape: of theirs.
        layout: one of LAYOUTS.
        scale, zero: number = scale * (stored - zero).
    """

    theirs: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    layout: str = ""
    scale: float = math.nan
    zero: float = 0.0


_KEYS = tuple(field.name for field in fields(Hint))
_FIX = 'one entry for each tensor: "ours": "theirs", or "ours": {"theirs": ..., "dtype": ..., "shape": [...], "scale": ..., "zero": ...}'


def read_map(path: Path) -> dict[str, Hint]:
    """Reads a map file: JSON or TOML with our name → theirs, or → a table; or CSV with columns ours, theirs and any of the others.

    Errors: UserError that names the file and the entry.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
        if path.suffix == ".toml":
            table: Any = tomllib.loads(text)
        elif path.suffix == ".csv":
            table = _rows(text)
        else:
            table = json.loads(text, object_pairs_hook=_once)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise UserError(f"--map {path}", expected="JSON, TOML, or CSV with a column `ours`", got=got, fix=_FIX) from error
    if not isinstance(table, dict):
        raise UserError(f"--map {path}", expected="a table", got=type(table).__name__, fix=_FIX)
    return {str(name): _hint(path, str(name), value) for name, value in table.items()}


def _rows(text: str) -> dict[str, Any]:
    """A CSV with commas or semicolons."""
    head = text.splitlines()[0] if text.strip() else ""
    rows = list(csv.DictReader(text.splitlines(), delimiter=";" if head.count(";") > head.count(",") else ","))
    if not rows:
        raise ValueError("no rows")
    return _once([(row.pop("ours"), {key: value for key, value in row.items() if value}) for row in rows])


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A table whose names are all different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _hint(path: Path, name: str, value: object) -> Hint:
    table = {"theirs": value} if isinstance(value, str) else value
    try:
        if not isinstance(table, dict):
            raise TypeError(f"a {type(value).__name__}")
        unknown = [key for key in table if key not in _KEYS]
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}")
        shape = table.get("shape", ())
        sizes = tuple(int(size) for size in (shape.replace("x", " ").replace(",", " ").split() if isinstance(shape, str) else shape))
        hint = Hint(
            str(table.get("theirs", "")), str(table.get("dtype", "")), sizes, str(table.get("layout", "")),
            float(table.get("scale", math.nan)), float(table.get("zero", 0.0)),
        )  # fmt: skip
        if hint.layout and hint.layout not in LAYOUTS:
            raise ValueError(f"layout {hint.layout!r}, not one of {', '.join(LAYOUTS)}")
        if hint.dtype and (hint.dtype not in _DTYPES):
            raise ValueError(f"dtype {hint.dtype!r}, not one of {', '.join(_DTYPES)}")
        if (not math.isnan(hint.scale) and not (0 < abs(hint.scale) < math.inf)) or not math.isfinite(hint.zero):
            raise ValueError(f"scale {hint.scale:g}, zero {hint.zero:g}: expected numbers, the scale other than 0")
    except (TypeError, ValueError) as error:
        raise UserError(f"--map {path}, entry {name!r}", expected="what is told below", got=str(error), fix=_FIX) from error
    return hint


def with_scales(hints: Mapping[str, Hint], scales: Sequence[str]) -> dict[str, Hint]:
    """Adds what `--scale NAME=S[,ZERO]` tells. Errors: UserError for another form."""
    found = dict(hints)
    for text in scales:
        name, _, numbers = text.rpartition("=")
        try:
            scale, zero, *more = (float(number) for number in [*numbers.split(","), *["0"] * ("," not in numbers)])
            if more or not name or not np.isfinite([scale, zero]).all() or scale == 0:
                raise ValueError(text)
        except ValueError as error:
            expected, fix = "NAME=SCALE or NAME=SCALE,ZERO", "number = SCALE x (stored - ZERO)"
            raise UserError(f"--scale {text}", expected=expected, got=text, fix=fix) from error
        found[name] = replace(found.get(name, Hint()), scale=scale, zero=zero)
    return found
