"""The C kernels on every case of a vectors folder, as their author would run them: CASE.npy of each.

As a program, for runs under a sanitizer that Python has to be started with:

    python vector_kernels.py VECTORS OUTPUTS KERNELS FLAG...
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np

import kernels
from occport.kit.cases.case import Case, level_starts, window
from occport.kit.cases.folder import read_case
from occport.kit.cases.record import read_index

WIDE = ("reference_points", "sampling_offsets", "attention_logits")
NARROW = ("sampling_locations", "attention_weights")


def run_case(case: Case, loaded: ctypes.CDLL) -> np.ndarray:
    """What the kernels make of one case: (A, Q, M*D) or (A, O, Ho, Wo) float32."""
    q = case.quantities
    if case.operator == "dcn":
        arrays = [q[name] for name in ("input", "offset", "mask", "weight")]
        return kernels.run_dcn(*arrays, q.get("bias"), *window(case), kernels=loaded)
    shapes = q["spatial_shapes"]
    starts = q.get("level_start_index", level_starts(shapes))
    if "attention_logits" in q:
        return kernels.run_msda_wide(q["value"], shapes, starts, *(q[name] for name in WIDE), kernels=loaded)
    return kernels.run_msda(q["value"], shapes, starts, *(q[name] for name in NARROW), kernels=loaded)


def run_all(vectors: Path, outputs: Path, loaded: ctypes.CDLL) -> int:
    """Runs every case and writes `outputs/CASE.npy` in the shape that its record wants. Returns how many."""
    records = read_index(vectors).records
    outputs.mkdir()
    for record in records:
        found = run_case(read_case(vectors, record).case, loaded)
        np.save(outputs / f"{record.name}.npy", found.reshape(record.shape))
    return len(records)


if __name__ == "__main__":
    VECTORS, OUTPUTS, SOURCES = (Path(argument) for argument in sys.argv[1:4])
    print(run_all(VECTORS, OUTPUTS, kernels.library(tuple(sys.argv[4:]), SOURCES)), "cases")
