"""One export from start to end: weights, frame, budgets, trace, dialect, staged file, verification, manifest, into place.

Nothing appears in the output folder unless every check has passed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..config import Config
from ..errors import ExportError, VerificationFailed
from ..frames.frame import Frame
from ..frames.images import padded_hw, preprocess
from ..frames.source import load_frame, seen_or_refuse
from ..frames.visibility import hits, needs
from ..graph import dialect as dialects
from ..graph.dialect import Settings
from ..graph.model_file import write_model
from ..graph.rewrite import check_target
from ..model.projection import Budget
from ..model.surroundocc import SurroundOcc
from ..progress import Progress
from ..staging import Staging
from .build import build_geometry, build_main
from .follow import check_following, check_hits, check_other_image, default_budgets, is_small, level_points, micro_model, micro_spec
from .manifest import manifest, write_json
from .report import Report
from .save_io import save_io
from .spec import CALIBRATIONS, Spec, check_renames
from .subject import Subject
from .trace import Outputs
from .verify import Sample, check_file, check_sample, sample_of
from .weights import UNTRAINED, Weights, load_model


@dataclass(frozen=True)
class Request:
    """What the user asks for. None leaves a choice to the dialect, the config or the frame."""

    config: Config
    checkpoint: Path | None = None
    seed: int = 0
    frame: str | None = None
    calibration: str = "runtime"
    budgets: tuple[tuple[int, int | None], ...] | None = None  # slots, cameras of each level
    dialect: str = "dl"
    settings: Settings = Settings()  # noqa: RUF009 - frozen
    opset: int | None = None
    functions: bool = False
    outputs: str | None = None
    levels: str = "all"
    label_dtype: str = "int64"
    softmax: bool = False
    with_dropped: bool = True
    img_rank: int = 5
    lidar2img_rank: int = 4
    renames: tuple[tuple[str, str], ...] = ()
    external_data: bool = False
    output_dir: Path = Path("out")
    save_io: str | None = None


@dataclass(frozen=True)
class Loaded:
    """A frame as the network takes it."""

    frame: Frame
    img: np.ndarray  # (1, N, 3, H, W) float32
    lidar2img: np.ndarray  # (1, N, 4, 4) float32
    blind: tuple[str, ...]
    origin: dict[str, Any]  # for the manifest


@dataclass(frozen=True)
class Result:
    """What an export made."""

    files: list[Path]
    manifest: dict[str, Any]
    report: Report


def load_input(config: Config, frame_spec: str | None, seed: int = 0) -> Loaded:
    """Reads or makes the frame and preprocesses it as upstream's test pipeline. FrameError as the readers say."""
    frame = load_frame(frame_spec, num_cameras=config.num_cameras, image_size=config.image.size, seed=seed)
    image = config.image
    size = (frame.images.shape[1], frame.images.shape[2])
    points = [level_points(level, config) for level in config.levels]
    blind = seen_or_refuse(frame, points, padded_hw(*size, image.size_divisor))
    img = preprocess(frame.images, image.mean, image.std, image.to_rgb, image.size_divisor)
    where = None if frame_spec is None else str(Path(frame_spec).absolute())
    origin = {
        "spec": where,
        "seed": seed,
        "name": frame.name,
        "cameras": list(frame.camera_names),
        "size": list(size),
        "described": frame.described,
    }
    return Loaded(frame, img, frame.lidar2img[None].astype(np.float32), blind, origin)


def make_spec(request: Request, loaded: Loaded) -> Spec:
    """Everything that decides the file. ExportError for what cannot be."""
    config = request.config
    dialect = dialects.with_settings(dialects.load(request.dialect), request.settings)
    if request.calibration not in CALIBRATIONS:
        raise ExportError("--calibration", expected="one of " + ", ".join(CALIBRATIONS), got=request.calibration)
    functions = request.functions or dialect.functions
    opset = request.opset if request.opset is not None else (max(dialect.opset, 17) if functions else dialect.opset)
    check_target(dialect, opset, functions)
    kind = request.outputs or ("labels" if config.num_classes > 1 else "probabilities")
    scales = tuple(range(len(config.output_sizes)))
    outputs = Outputs(kind, scales if request.levels == "all" else scales[-1:], request.label_dtype, request.softmax)
    image_hw = (loaded.img.shape[-2], loaded.img.shape[-1])
    # the default frame's size becomes the config's, so that made-up images of later checks have it too
    config = replace(config, image=replace(config.image, size=(loaded.frame.images.shape[1], loaded.frame.images.shape[2])))
    spec = Spec(
        config=config,
        image_hw=image_hw,
        budgets=_budgets(request, config, loaded, image_hw),
        calibration=request.calibration,
        dialect=dialect.name,
        settings=request.settings,
        opset=opset,
        functions=functions,
        outputs=outputs,
        with_dropped=request.with_dropped,
        img_rank=request.img_rank,
        lidar2img_rank=request.lidar2img_rank,
        renames=request.renames,
    )
    check_renames(spec)
    return spec


def _budgets(request: Request, config: Config, loaded: Loaded, image_hw: tuple[int, int]) -> tuple[Budget, ...]:
    """The user's budgets, or room for the frame's rig however it is turned. ExportError where this very frame does not fit."""
    defaults = default_budgets(config, loaded.frame.lidar2img, image_hw)
    if request.budgets is None:
        return defaults
    if len(request.budgets) != len(config.levels):
        raise ExportError("--budget", expected=f"{len(config.levels)} values, fine to coarse", got=str(len(request.budgets)))
    chosen = []
    for i, (level, (slots, cameras)) in enumerate(zip(config.levels, request.budgets, strict=True)):
        budget = Budget(slots, cameras or defaults[i].cameras)
        what, got = f"--budget of level {i}", f"{budget.slots}:{budget.cameras}"
        if not (1 <= budget.slots <= level.num_voxels and 1 <= budget.cameras <= config.num_cameras):
            raise ExportError(what, expected=f"1 to {level.num_voxels} slots and 1 to {config.num_cameras} cameras", got=got)
        least = needs(hits(loaded.frame.lidar2img, image_hw, level_points(level, config)))
        if budget.slots < least[0] or budget.cameras < least[1]:
            fix = f"leave --budget out for {defaults[i].slots}:{defaults[i].cameras}"
            raise ExportError(what, expected=f"at least {least[0]}:{least[1]}, what the given frame needs", got=got, fix=fix)
        chosen.append(budget)
    return tuple(chosen)


def file_name(spec: Spec, trained: bool) -> str:
    """surroundocc_dl_opset11_runtime, with UNTRAINED where it is."""
    parts = [
        spec.config.name,
        "" if trained else UNTRAINED,
        spec.dialect,
        f"opset{spec.opset}",
        "functions" * spec.functions,
        spec.calibration,
    ]
    return "_".join(part for part in parts if part)


def export(request: Request, progress: Progress) -> Result:
    """Makes and verifies one export.

    Args:
        request: what the user asks for.
        progress: told of each stage and every line for the user, check by check.

    Raises:
        UserError: bad input; nothing was written.
        VerificationFailed: the file is not what it should be; nothing was written.
    """
    with progress.stage("reading the frame"):
        loaded = load_input(request.config, request.frame, request.seed)
        spec = make_spec(request, loaded)
    _say_choices(spec, loaded, progress.say)
    with Staging(request.output_dir) as staging:
        with progress.stage("loading the weights"):
            model, weights, loading = load_model(spec.config, request.checkpoint, request.seed)
        for line in loading.describe() if loading else [weights.described]:
            progress.say(line)
        stem = file_name(spec, weights.checkpoint is not None)
        with progress.stage("tracing and rewriting the graph"):
            files = write_graphs(model, spec, loaded.lidar2img, staging.path, stem, weights, request.external_data)
        subject = Subject(spec, files["model"], files.get("geometry"))
        report = Report(progress.say)
        sample = verify(subject, model, loaded, report, progress)
        if report.failures:
            raise VerificationFailed(report.failures)
        if request.save_io and sample is not None:
            with progress.stage("saving inputs and expected outputs"):
                save_io(subject, sample, staging.path / f"{stem}.io", request.save_io)
        with progress.stage("writing the manifest"):
            table = manifest(spec, weights, loaded.origin, subject.skeleton, files, report.checks)
            write_json(staging.path / f"{stem}.json", table)
        subject.close()
        return Result(staging.commit(), table, report)


def write_graphs(
    model: SurroundOcc, spec: Spec, lidar2img: np.ndarray, folder: Path, stem: str, weights: Weights, external_data: bool = False
) -> dict[str, Path]:
    """Builds the main graph (and the geometry graph of `tables`) and writes them. Returns role → path."""
    import torch

    tables = None
    if spec.calibration == "fixed":
        with torch.no_grad():
            tables, _ = model.tables(torch.from_numpy(lidar2img), spec.image_hw, spec.budgets)
    notes = {"weights": weights.described, "config": spec.config.name, "calibration": spec.calibration, "dialect": spec.dialect}
    graphs = {"model": build_main(model, spec, tables)}
    if spec.calibration == "tables":
        graphs["geometry"] = build_geometry(model, spec)
    paths = {}
    for role, graph in graphs.items():
        graph.producer_name, graph.producer_version = "occport", __version__
        graph.graph.name = stem if role == "model" else f"{stem}_{role}"
        graph.metadata_props.update({f"occport.{key}": text for key, text in notes.items()})
        paths[role] = folder / (f"{stem}.onnx" if role == "model" else f"{stem}.{role}.onnx")
        write_model(graph, paths[role], external_data=external_data)
    data = {"data": folder / f"{stem}.onnx.data", "geometry data": folder / f"{stem}.geometry.onnx.data"}
    return paths | {role: path for role, path in data.items() if path.exists()}


def verify(subject: Subject, model: SurroundOcc, loaded: Loaded, report: Report, progress: Progress) -> Sample | None:
    """The whole ladder on written files. Failures are collected in the report.

    Returns:
        The frame's sample; None where the form of the file is wrong already, so that running it would tell nothing, or fail.
    """
    spec = subject.spec
    with progress.stage("checking the file"):
        sound = check_file(subject, report)
    if not sound:
        progress.say("a file of the wrong form is not run")
        return None
    report.where = "this file"
    if spec.calibration == "runtime" or subject.geometry is not None:
        with progress.stage("checking which voxels each camera sees"):
            check_hits(subject, model, loaded.frame.lidar2img, report)
    with progress.stage("running PyTorch on the frame"):
        sample = sample_of(model, spec, loaded.img, loaded.lidar2img)
    with progress.stage("running ONNX Runtime on the frame"):
        check_sample(subject, sample, report, loaded.frame.name)
    subject.close()
    with progress.stage("other rigs and images"):
        if is_small(spec):
            _check_others(subject, model, loaded.lidar2img, report)
        else:
            place = subject.main.parent if os.access(subject.main.parent, os.W_OK) else None  # else the system's own
            with tempfile.TemporaryDirectory(prefix=".micro-", dir=place) as folder:
                small = micro_spec(spec)
                sizes = f"images of {small.config.image.size}, {small.config.occ_size} voxels"
                progress.say(f"other rigs and images run on the same network, weights and settings at micro sizes: {sizes}")
                network = micro_model(model, small)
                rig = load_input(small.config, None).lidar2img
                files = write_graphs(network, small, rig, Path(folder), "micro", Weights(None, None, ""))
                report.where = "micro sizes"
                micro = Subject(small, files["model"], files.get("geometry"))
                _check_others(micro, network, rig, report)
                micro.close()
    return sample


def _check_others(subject: Subject, model: SurroundOcc, rig: np.ndarray, report: Report) -> None:
    if subject.spec.calibration == "fixed":
        check_other_image(subject, model, rig, report)
    else:
        check_following(subject, model, report)


def _say_choices(spec: Spec, loaded: Loaded, say: Callable[[str], None]) -> None:
    dialect = spec.target()
    say(f"frame: {loaded.frame.described}")
    if loaded.blind:
        say(f"warning: no voxel is seen by {', '.join(loaded.blind)}")
    functions = " with function bodies" if spec.functions else ""
    say(f"dialect {dialect.name} ({dialect.title}), opset {spec.opset}{functions}, calibration {spec.calibration}")
    say("budgets (slots:cameras, fine to coarse): " + ", ".join(f"{budget.slots}:{budget.cameras}" for budget in spec.budgets))
    for guess in dialect.guesses:
        say(f"guess: {guess.what} (change with {guess.flag})")
    for note in spec.config.notes:
        say(f"config: {note}")
