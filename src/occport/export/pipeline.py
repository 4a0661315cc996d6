"""One export from start to end: weights, frame, budgets, trace, dialect, staged file, verification, manifest, into place.

Nothing appears in the output folder unless every check has passed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VerificationFailed
from ..graph.dialect import Dialect
from ..graph.precision.types import EXACT
from ..memory import give_back
from ..model.surroundocc import SurroundOcc
from ..progress import Progress
from ..staging import Staging
from .agreement import precision_agreement
from .device import Setting, hint
from .float_twin import float_twin, scratch_of
from .follow import (
    check_following,
    check_hits,
    check_other_image,
    check_samples,
    check_sensitivity,
    following_samples,
    is_small,
    micro_model,
    micro_spec,
)
from .graph_files import write_graphs
from .low_precision import check_low, check_reference, following_allowances, with_places
from .manifest import manifest, write_json
from .report import Report
from .request import Loaded, Request, file_name, load_input, make_spec
from .save_io import save_io
from .spec import Spec
from .subject import Subject
from .verify import LEEWAY, Allowance, Sample, allowances, check_file, check_sample, sample_of
from .weights import Weights, load_model

EXACTLY = Setting()


@dataclass(frozen=True)
class Result:
    """What an export made."""

    files: list[Path]
    manifest: dict[str, Any]
    report: Report
    dialect: Dialect


def export(request: Request, progress: Progress) -> Result:
    """Makes and verifies one export.

    Args:
        request: what the user asks for.
        progress: told of each stage and every line for the user, check by check.

    Raises:
        UserError: bad input; nothing was written.
        VerificationFailed: the file is not what it should be; nothing was written.
    """
    place = request.reference.check()
    with progress.stage("reading the frame"):
        loaded = load_input(request.config, request.frame, request.seed)
        spec = make_spec(request, loaded)
        check_reference(spec, request.reference)
    _say_choices(spec, loaded, progress.say)
    with Staging(request.output_dir) as staging:
        with progress.stage("loading the weights"):
            model, weights, loading = load_model(spec.config, request.checkpoint, request.seed)
            slow = hint(place)
        if slow:
            progress.note(slow)
        for line in loading.describe() if loading else [weights.described]:
            progress.say(line)
        stem = file_name(spec, weights.checkpoint is not None)
        with progress.stage("tracing and rewriting the graph"):
            files = write_graphs(model, spec, loaded.lidar2img, staging.path, stem, weights, request.external_data)
        subject = Subject(spec, files["model"], files.get("geometry"))
        report = Report(progress.say)
        sample = verify(subject, model, loaded, report, progress, request.reference)
        if report.failures:
            raise VerificationFailed(report.failures)
        if request.save_io and sample is not None:
            with progress.stage("saving inputs and expected outputs"):
                save_io(subject, sample, staging.path / f"{stem}.io", request.save_io)
        with progress.stage("writing the manifest"):
            table = manifest(spec, weights, loaded.origin, subject.skeleton, files, report.checks)
            write_json(staging.path / f"{stem}.json", table)
        subject.close()
        return Result(staging.commit(), table, report, spec.dialect)


def verify(
    subject: Subject, model: SurroundOcc, loaded: Loaded, report: Report, progress: Progress, setting: Setting = EXACTLY
) -> Sample | None:  # fmt: skip
    """The whole ladder on written files. Failures are collected in the report.

    Args:
        model: the network in PyTorch, float32; it stays as it is.
        setting: how it runs. The given frame runs in float32 whatever the precision is, other rigs and images in that.

    Errors: UserError for a device or precision that cannot be had, and for too little memory on it.
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
        sample, allowed = _reference(model, spec, loaded, report, setting)
    give_back()  # PyTorch is done at this size, and ONNX Runtime wants as much again: 0.8 GiB of 5 at full size
    with progress.stage("running ONNX Runtime on the frame"):
        if spec.precision == EXACT:
            check_sample(subject, sample, report, loaded.frame.name)
        else:
            allowed = check_low(subject, model, sample, report, loaded, setting)
    subject.close()
    with progress.stage("other rigs and images"):
        if is_small(spec):
            _check_others(subject, model, loaded, sample, report, setting, allowed)
            return sample
        with tempfile.TemporaryDirectory(prefix=".micro-", dir=scratch_of(subject.main)) as folder:
            small = micro_spec(spec)
            sizes = f"images of {small.config.image.size}, {small.config.occ_size} voxels"
            progress.say(f"other rigs and images run on the same network, weights and settings at micro sizes: {sizes}")
            network, frame = micro_model(model, small), load_input(small.config, None)
            files = write_graphs(network, small, frame.lidar2img, Path(folder), "micro", Weights(None, None, ""))
            report.where = "micro sizes"
            if spec.precision == EXACT and allowed:  # noise is measured on the very network that is run
                _, allowed = _reference(network, small, frame, report, setting)
            exact = sample_of(setting.exact.ready(network), small, frame.img, frame.lidar2img) if spec.precision != EXACT else None
            micro = Subject(small, files["model"], files.get("geometry"))
            _check_others(micro, network, frame, exact, report, setting, allowed, own=True)
            micro.close()
    return sample


def _reference(
    model: SurroundOcc, spec: Spec, loaded: Loaded, report: Report, setting: Setting
) -> tuple[Sample, tuple[Allowance, ...]]:  # fmt: skip
    """PyTorch on the frame in float32; and where the setting has a lower precision, how far that is from it, which is reported."""
    exact = sample_of(setting.exact.ready(model), spec, loaded.img, loaded.lidar2img)
    if setting == setting.exact:
        return exact, ()
    low = sample_of(setting.ready(model), spec, loaded.img, loaded.lidar2img)
    agreement = precision_agreement(setting.precision, loaded.frame.name, low.logits, exact.logits)
    allowed = allowances(agreement)
    known = all(np.isfinite(scale.max_abs) for scale in agreement.scales)
    limits = f"other rigs and images are held against {setting.precision}, up to {LEEWAY} times its difference of this frame"
    figures = {f"agreement_scale{scale.scale}": scale.share for scale in agreement.scales}
    figures |= {f"{name}_scale{scale.scale}": getattr(scale, name) for scale in agreement.scales for name in ("max_abs", "rms")}
    name = f"reference in {setting.precision}"
    report.add(name, known, f"{agreement.describe()}; {limits if known else 'not all of its logits are numbers'}", figures)
    return exact, allowed


def _check_others(
    subject: Subject, model: SurroundOcc, loaded: Loaded, sample: Sample | None, report: Report, setting: Setting,
    allowed: Sequence[Allowance], *, own: bool = False,
) -> None:  # fmt: skip
    """Rung 3 at the size of a subject; of a 16-bit file its float32 graph first, then itself within what 16 bits lose.

    Args:
        sample: of the frame in float32; needed for 16 bits alone.
        own: the model is nobody else's, and may be changed to spare a copy.
    """
    spec, rig = subject.spec, loaded.lidar2img
    network = setting.ready(model, own=own and spec.precision == EXACT)
    if spec.precision != EXACT:
        assert sample is not None
        _check_others_low(subject, model, network, loaded, sample, report, setting)
    elif spec.calibration == "fixed":
        check_other_image(subject, network, rig, report, allowed)
    else:
        check_following(subject, network, report, allowed)


def _check_others_low(
    subject: Subject, model: SurroundOcc, network: SurroundOcc, loaded: Loaded, sample: Sample, report: Report, setting: Setting
) -> None:  # fmt: skip
    """The same of a 16-bit file. `network`: the model, ready to run in float32."""
    spec, where, name = subject.spec, report.where, loaded.frame.name
    fixed = spec.calibration == "fixed"
    samples = [] if fixed else list(following_samples(network, spec))
    report.where = f"{where}, its float32 graph"
    with float_twin(subject, model, loaded.lidar2img) as twin:
        if fixed:
            check_other_image(twin, network, loaded.lidar2img, report)
        else:
            check_samples(twin, samples, report)
            check_sensitivity(twin, report)
    report.where = where
    allowed = with_places(subject, sample, name, following_allowances(model, spec, name, sample, samples, setting))
    if fixed:
        check_other_image(subject, network, loaded.lidar2img, report, allowed)
    else:
        check_samples(subject, samples, report, allowed)


def _say_choices(spec: Spec, loaded: Loaded, say: Callable[[str], None]) -> None:
    dialect = spec.dialect
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
