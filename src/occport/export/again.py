"""`occport verify`: everything that is needed comes from the manifest; the file's hash is the first rung."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, FrameError, ModelFileError, VerificationFailed
from ..graph.model_file import sha256_of
from ..progress import Progress
from .manifest import read_manifest
from .pipeline import verify
from .report import Report
from .request import load_input
from .spec import from_json
from .subject import Subject
from .weights import load_model


def verify_again(path: Path, checkpoint: Path | None, frame: str | None, progress: Progress) -> Report:
    """Verifies a file by its manifest.

    Raises:
        UserError: file, manifest, checkpoint or frame cannot be used.
        VerificationFailed: a check failed.
    """
    if not path.is_file():
        raise ModelFileError(f"model file {path}", expected="an ONNX file", got="no such file", fix="check the path")
    table = read_manifest(path)
    spec = from_json(table["spec"])
    if spec.calibration == "tables" and "geometry" not in table["files"]:
        raise ModelFileError(f"manifest of {path}", expected="a geometry file, as calibration is tables", got="none", fix="export again")
    report = Report(progress.say)
    with progress.stage("hashing the files"):
        files = {role: path.parent / entry["file"] for role, entry in table["files"].items()} | {"model": path}
        wrong = []
        for role, file in files.items():
            if not file.is_file():
                raise ModelFileError(
                    f"{role} file {file}", expected="the file that the manifest names", got="none", fix="keep the files together"
                )
            if sha256_of(file) != table["files"][role]["sha256"]:
                wrong.append(f"{file.name} is not the file that was exported")
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
    with progress.stage("loading the weights"):
        weights = table["weights"]
        place = checkpoint or (Path(weights["checkpoint"]) if weights["checkpoint"] else None)
        model, found, _ = load_model(spec.config, place, weights["seed"] or 0)
        if found.fingerprint != weights["fingerprint"]:
            raise CheckpointError(
                "fingerprint of the weights",
                expected=weights["fingerprint"],
                got=found.fingerprint,
                fix="give the checkpoint of the export with --checkpoint",
            )
    subject = Subject(spec, path, files.get("geometry"))
    verify(subject, model, loaded, report, progress)
    if report.failures:
        raise VerificationFailed(report.failures)
    return report
