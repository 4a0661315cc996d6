"""`occport verify`: everything that is needed comes from the manifest; the file's hash is the first rung."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import CheckpointError, FrameError, ModelFileError, VerificationFailed
from ..model.surroundocc import SurroundOcc
from ..progress import Progress
from .baked_rig import baked_rig, check_baked
from .device import Setting, hint
from .low_precision import check_reference
from .manifest import altered, files_of, read_manifest
from .pipeline import EXACTLY, verify
from .report import Report
from .request import load_input
from .spec import from_json
from .subject import Subject
from .weights import Weights, load_model


def verify_again(
    path: Path, checkpoint: Path | None, frame: str | None, progress: Progress, setting: Setting = EXACTLY
) -> Report:  # fmt: skip
    """Verifies a file by its manifest.

    Args:
        path: the main file.
        checkpoint, frame: where they are now, or another frame; None leaves it to the manifest.
        progress: told of each stage and check.
        setting: how PyTorch runs, see `pipeline.verify`.

    Raises:
        UserError: file, manifest, checkpoint, frame, device or precision cannot be used.
        VerificationFailed: a check failed.
    """
    place = setting.check()
    if not path.is_file():
        raise ModelFileError(f"model file {path}", expected="an ONNX file", got="no such file", fix="check the path")
    table = read_manifest(path)
    spec = from_json(table["spec"])
    check_reference(spec, setting)
    report = Report(progress.say)
    with progress.stage("hashing the files"):
        files = files_of(path, table)
        wrong = [f"{file.name} is not the file that was exported" for file in altered(files, table)]
        report.findings("SHA-256 of the manifest", wrong, "unchanged since the export")
    with progress.stage("reading the frame"):
        origin = table["frame"]
        wanted = frame if frame is not None else origin["spec"]
        if frame is None and wanted is not None and not Path(wanted.split(":")[0]).exists():
            raise FrameError(f"frame {wanted}", expected="the frame of the export", got="none", fix="give --frame")
        loaded = load_input(spec.config, wanted, origin["seed"])
        if loaded.img.shape[-2:] != spec.image_hw:
            raise FrameError(
                "the frame's padded image size",
                expected=str(spec.image_hw),
                got=str(loaded.img.shape[-2:]),
                fix="the file is made for one size",
            )
        # A manifest of an older version does not tell the rig. Its own frame is then taken at its word, another one is not.
        rig = baked_rig(table, spec, path) if frame is not None or "lidar2img" in origin else None
        if rig is not None:
            check_baked(loaded.frame, rig, path)
    with progress.stage("loading the weights"):
        model, _ = network_again(table, spec.config, checkpoint)
        slow = hint(place)
    if slow:
        progress.note(slow)
    subject = Subject(spec, path, files.get("geometry"))
    verify(subject, model, loaded, report, progress, setting)
    if report.failures:
        raise VerificationFailed(report.failures)
    return report


def network_again(table: Mapping[str, Any], config: Config, checkpoint: Path | None) -> tuple[SurroundOcc, Weights]:
    """The network of a manifest in PyTorch, with the weights that the export had.

    Args:
        table: the manifest.
        config: of the manifest's spec.
        checkpoint: where the weights are now; None: where the manifest says, or seeded ones where it says so.

    Errors: CheckpointError for a file that cannot be loaded, and for other weights than those of the export.
    """
    weights = table["weights"]
    place = checkpoint or (Path(weights["checkpoint"]) if weights["checkpoint"] else None)
    model, found, _ = load_model(config, place, weights["seed"] or 0)
    if found.fingerprint != weights["fingerprint"]:
        raise CheckpointError(
            "fingerprint of the weights",
            expected=weights["fingerprint"],
            got=found.fingerprint,
            fix="give the checkpoint of the export with --checkpoint",
        )
    return model, found
