"""Writing the probes into a folder that can be carried to the compiler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ... import __version__
from ...errors import ExportError
from ...graph.dialect import Dialect, load, names, to_table
from ...staging import Staging
from .questions import QUESTIONS, Probe, probes_of
from .run_script import RUN_SCRIPT
from .small import tolerance

FORMAT = 1
INDEX, SCRIPT = "index.json", "run.sh"


def write_probes(folder: Path, dialect: Dialect) -> list[Probe]:
    """Writes `index.json`, `run.sh` and, for each probe, `NAME/model.onnx` with `input_<i>_<port>` and `expected_<i>_<port>`.

    Arrays are there twice, as .npy and as .bin (little-endian, row by row). `index.json` holds the probed dialect in full and, for
    each probe, its question, what it asks, the answer that it stands for, and its ports with dtype, shape, files and, for outputs,
    `atol`: |got - expected| <= atol passes.

    Raises:
        ExportError: the folder is not empty, or cannot be written to.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ExportError(f"folder {folder}", expected="a new or empty one", got="one with files in it", fix="choose another with -o")
    probes = probes_of(dialect)
    with Staging(folder) as stage:
        entries = [_write(probe, stage.path / probe.name) for probe in probes]
        index = {
            "format": FORMAT, "occport": __version__, "dialect": dialect.name, "built_in": is_built_in(dialect),
            "table": to_table(dialect), "probes": entries,
        }  # fmt: skip
        (stage.path / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        script = stage.path / SCRIPT
        script.write_text(RUN_SCRIPT, encoding="utf-8", newline="\n")
        script.chmod(0o755)
        stage.commit()
    return probes


def is_built_in(dialect: Dialect) -> bool:
    """Whether a dialect is one of our own, word for word."""
    return dialect.name in names() and load(dialect.name) == dialect


def _write(probe: Probe, folder: Path) -> dict[str, Any]:
    """One probe's folder. Returns its entry in the index."""
    small = probe.small()
    folder.mkdir()
    if probe.external_data:
        onnx.save_model(small.model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    else:
        onnx.save_model(small.model, folder / "model.onnx")
    inputs = [_write_array(folder, "input", i, name, array) for i, (name, array) in enumerate(small.inputs.items())]
    outputs = [
        {**_write_array(folder, "expected", i, name, array), "atol": tolerance(array)}
        for i, (name, array) in enumerate(small.outputs.items())
    ]
    return {
        "name": probe.name, "question": probe.question, "title": QUESTIONS[probe.question].title, "asks": probe.asks, "value": probe.value,
        "opset": probe.opset, "ir": probe.ir, "inputs": inputs, "outputs": outputs,
    }  # fmt: skip


def _write_array(folder: Path, kind: str, number: int, name: str, array: np.ndarray) -> dict[str, Any]:
    path = folder / f"{kind}_{number}_{name}.npy"
    np.save(path, np.ascontiguousarray(array))
    path.with_suffix(".bin").write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return {"name": name, "file": path.name, "dtype": array.dtype.name, "shape": list(array.shape)}
