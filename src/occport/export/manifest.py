"""The manifest `<name>.json`: what a file is, where it comes from, how it was checked."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from .. import __version__
from ..errors import ModelFileError
from ..graph.lint.census import census, signatures
from ..graph.model_file import sha256_of
from .build import meaning
from .report import Check
from .spec import Spec, to_json
from .weights import Weights

FORMAT = 1
_NEEDED: dict[str, set[str]] = {
    "spec": set(),
    "weights": {"checkpoint", "seed", "fingerprint"},
    "frame": {"spec", "seed"},
    "files": {"model"},
}
PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


def manifest(
    spec: Spec, weights: Weights, frame: Mapping[str, Any], skeleton: onnx.ModelProto, files: Mapping[str, Path], checks: list[Check]
) -> dict[str, Any]:
    """Everything about an export as JSON values.

    Args:
        frame: "spec" (as the user gave it, or None), "seed", "name", "cameras", "size", "lidar2img", "described".
        files: role ("model", "geometry", …) → staged path.
    """
    dialect = spec.dialect
    return {
        "format": FORMAT,
        "occport": __version__,
        "name": files["model"].stem,
        "trained": weights.checkpoint is not None,
        "weights": asdict(weights),
        "frame": dict(frame),
        "files": {role: {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for role, path in files.items()},
        "dialect": {
            "name": dialect.name,
            "title": dialect.title,
            "checked_against": dialect.checked_against,
            "guesses": [asdict(guess) for guess in dialect.guesses],
        },
        "opset": spec.opset,
        "ir_version": skeleton.ir_version,
        "calibration": spec.calibration,
        "budgets": [budget._asdict() for budget in spec.budgets],
        "inputs": _ports(spec, spec.input_shapes()),
        "outputs": _ports(spec, spec.output_shapes()),
        "classes": ["empty", *spec.config.class_names] if spec.config.use_semantic else ["occupied"],
        "grid": {
            "range_metres": list(spec.config.pc_range),
            "size_xyz": list(spec.config.occ_size),
            "axes": "X right, Y forward, Z up; lidar frame",
        },
        "nodes": sum(census(skeleton).values()),
        "census": census(skeleton),
        "signatures": signatures(skeleton),
        "config_notes": list(spec.config.notes),
        "verification": [asdict(check) for check in checks],
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "spec": to_json(spec),
    }


def read_manifest(model: Path) -> dict[str, Any]:
    """The manifest beside a model file. ModelFileError when it is missing or not ours."""
    path = model.with_suffix(".json")
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(
            f"manifest {path}", expected="the file that occport export wrote beside the model", got="none", fix="keep the two together"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"manifest {path}", expected="JSON", got=str(error), fix="export again") from error
    if not _complete(table):
        raise ModelFileError(f"manifest {path}", expected=f"a manifest of format {FORMAT}", got="something else", fix="export again")
    found: dict[str, Any] = table
    return found


def files_of(model: Path, table: Mapping[str, Any]) -> dict[str, Path]:
    """Where the files of an export are now, by role; "model" is the file that is named, whatever its manifest calls it.

    Errors: ModelFileError for one that is not there.
    """
    if table["spec"].get("calibration") == "tables" and "geometry" not in table["files"]:
        raise ModelFileError(f"manifest of {model}", expected="a geometry file, as calibration is tables", got="none", fix="export again")
    files = {role: model.parent / str(entry["file"]) for role, entry in table["files"].items()} | {"model": model}
    for role, file in files.items():
        if not file.is_file():
            raise ModelFileError(
                f"{role} file {file}", expected="the file that the manifest names", got="none", fix="keep the files together"
            )
    return files


def altered(files: Mapping[str, Path], table: Mapping[str, Any]) -> list[Path]:
    """Which of the files have another SHA-256 than their manifest says. All bytes are read: 0.5 s for a network of full size."""
    return [file for role, file in files.items() if sha256_of(file) != table["files"][role]["sha256"]]


def _complete(table: object) -> bool:
    """Whether everything is there that verification reads, apart from the spec's own fields."""
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        return False
    if not all(isinstance(table.get(part), dict) and keys <= table[part].keys() for part, keys in _NEEDED.items()):
        return False
    return all(isinstance(entry, dict) and {"file", "sha256"} <= entry.keys() for entry in table["files"].values())


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Writes a manifest, or any JSON, with a final newline."""
    path.write_text(json.dumps(table, indent=1, ensure_ascii=False, allow_nan=True) + "\n", encoding="utf-8")


def _ports(spec: Spec, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[dict[str, Any]]:
    ports = []
    for name, (dtype, shape) in shapes.items():
        flat = (len(shape) < 5 and name == "img") or (len(shape) < 4 and name == "lidar2img")
        words = meaning(name) + ("; without the batch axis" if flat else "")
        ports.append({"name": spec.renamed(name), "dtype": dtype, "shape": list(shape), "meaning": words})
    return ports
