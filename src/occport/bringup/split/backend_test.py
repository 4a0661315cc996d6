"""Inputs and outputs of a part as the ONNX backend tests have them: `test_data_set_0/input_0.pb`, `output_0.pb`, and their tolerance."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..dumps.formats import sha256_of_array, write_array
from .parts import Part
from .place import DATA, TOLERANCE, folder_of

RELATIVE = 1e-3  # ONNX's own for backend tests
OF_RMS = 1e-4  # float32 sums in another order, through the hundred layers of a backbone
EPSILONS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # from 1 to the next number
ROUNDINGS = 16  # of a 16-bit type that add up over the layers of a part


class Stored(NamedTuple):
    """An array on disk: its file in the folder of parts, and what it is."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class DataWriter:
    """Writes the test data of each part that has run.

    Args:
        folder: of the parts.
        wanted: names of the parts that are to have data.
        arrays: write each tensor as NAME.npy into the folder, too.

    Attributes:
        stored: tensor → its array, as the part that makes it has it, else the first that reads it.
    """

    def __init__(self, folder: Path, wanted: Collection[str], arrays: bool) -> None:
        self._folder, self._wanted, self._arrays = folder, wanted, arrays
        self.stored: dict[str, Stored] = {}

    def write(self, part: Part, values: Mapping[str, np.ndarray]) -> None:
        """Writes the data of a part, if it is to have any. `values`: its inputs and outputs by name."""
        if part.name not in self._wanted:
            return
        place = Path(folder_of(part.name))
        (self._folder / place / DATA).mkdir()
        for kind, names in (("input", part.inputs), ("output", part.outputs)):
            for i, name in enumerate(names):
                self._write(place / DATA / f"{kind}_{i}.pb", name, values[name])
        table = tolerance(values[name] for name in part.outputs)
        (self._folder / place / TOLERANCE).write_text(json.dumps(table) + "\n", encoding="utf-8")

    def _write(self, file: Path, name: str, array: np.ndarray) -> None:
        write_array(self._folder / file, array, name, "pb")
        if name not in self.stored:
            self.stored[name] = Stored(file.as_posix(), array.dtype.name, array.shape, sha256_of_array(array))
            if self._arrays:
                write_array(self._folder / f"{name}.npy", array, name, "npy")


def tolerance(outputs: Iterable[np.ndarray]) -> dict[str, float]:
    """What ONNX's test runner shall allow a part on another machine: {"rtol": …, "atol": …}, one for all of its outputs.

    Floating-point outputs may be off by ONNX's own relative tolerance, and near zero by a share of the smallest root mean square among
    them; those of 16 bits by ROUNDINGS of their type in both. Whole numbers must be right: beside them there is no relative tolerance.
    """
    relative, share, sizes, whole = RELATIVE, OF_RMS, [], False
    for array in outputs:
        if np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_:
            whole = True
            continue
        if array.dtype.name in EPSILONS:
            roundings = ROUNDINGS * EPSILONS[array.dtype.name]
            relative, share = max(relative, roundings), max(share, roundings)
        wide = array.astype(np.float64)
        finite = wide[np.isfinite(wide)]
        sizes.append(float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0)
    return {"rtol": 0.0 if whole else relative, "atol": min(0.5, share * min(filter(None, sizes), default=0.0))}
