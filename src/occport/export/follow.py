"""Verification, rung 3: what changes from frame to frame. Other calibrations, other images, blind and crowded cameras.

A file that was right for the traced calibration alone passes everything before this. At full size these checks run on the same
network and settings at micro sizes (small images and volumes, same weights), built by the same code; the output says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..config import Config, LevelConfig
from ..errors import ModelFileError
from ..frames.images import padded_hw, preprocess, synthetic_images
from ..frames.rig import nuscenes_like_rig, turned
from ..frames.visibility import budget_for, hits, overflow, voxel_centres
from ..model.projection import Budget, LevelTable
from ..model.surroundocc import SurroundOcc, build_model
from .build import table_feeds
from .report import Report
from .spec import Spec
from .subject import Subject
from .verify import Allowance, Sample, check_sample, different, sample_of

MICRO_HW = (126, 224)
MICRO_VOLUMES = ((20, 16, 4), (10, 8, 2), (5, 4, 1))  # h, w, z of each level
MICRO_PIXELS = 8 * 256 * 448  # images of a frame up to this are run at their own size
TURNS = (0.5, 3.0, -5.0, 20.0, 90.0)


def is_small(spec: Spec) -> bool:
    """Whether all of this can be run at the file's own size."""
    return spec.config.num_cameras * spec.image_hw[0] * spec.image_hw[1] <= MICRO_PIXELS


def micro_spec(spec: Spec) -> Spec:
    """The same export at micro sizes: images of 126 x 224, volumes of 20 x 16 x 4 and below; the budgets with room to spare."""
    config = spec.config
    levels = tuple(
        replace(level, volume_h=h, volume_w=w, volume_z=z) for level, (h, w, z) in zip(config.levels, MICRO_VOLUMES, strict=True)
    )
    small = replace(config, levels=levels, image=replace(config.image, size=MICRO_HW))
    _, rig = nuscenes_like_rig(config.num_cameras, *MICRO_HW)
    image_hw = padded_hw(*MICRO_HW, config.image.size_divisor)
    return replace(spec, config=small, image_hw=image_hw, budgets=default_budgets(small, rig, image_hw))


def default_budgets(config: Config, lidar2img: np.ndarray, image_hw: tuple[int, int]) -> tuple[Budget, ...]:
    """Room for the rig (N, 4, 4) however it is turned, and 10 % more; see `frames.visibility.budget_for`."""
    return tuple(Budget(*budget_for(lidar2img, image_hw, level_points(level, config))) for level in config.levels)


def level_points(level: LevelConfig, config: Config) -> np.ndarray:
    """Voxel centres (V, 3) float32 of a level, by the independent numpy code."""
    return voxel_centres((level.volume_h, level.volume_w, level.volume_z), config.pc_range)


def micro_model(model: SurroundOcc, spec: Spec) -> SurroundOcc:
    """The same weights at micro sizes; of the volume embeddings the first rows."""
    small = build_model(spec.config)
    with torch.no_grad():
        weights = model.state_dict()
        for name, tensor in small.state_dict().items():
            tensor.copy_(weights[name][: tensor.shape[0]] if tensor.ndim else weights[name])
    return small


def check_following(subject: Subject, model: SurroundOcc, report: Report, allowed: Sequence[Allowance] = ()) -> None:
    """Runs every calibration and image that the spec's form must follow, each against PyTorch.

    Args:
        model: the reference, on any device.
        allowed: see `check_sample`.
    """
    check_samples(subject, following_samples(model, subject.spec), report, allowed)
    check_sensitivity(subject, report)


def check_samples(
    subject: Subject, samples: Iterable[tuple[str, Sample]], report: Report, allowed: Sequence[Allowance] = ()
) -> None:  # fmt: skip
    """Runs some of `following_samples`, each against what PyTorch makes of it. `allowed`: see `check_sample`."""
    for name, sample in samples:
        check_sample(subject, sample, report, name, brief=True, allowed=allowed)
        _check_dropped(subject.spec, sample.lidar2img[0], sample.dropped, report, name)


def following_samples(model: SurroundOcc, spec: Spec) -> Iterator[tuple[str, Sample]]:
    """What `check_following` runs, by name: every rig with its images, and what PyTorch makes of them."""
    _, rig = nuscenes_like_rig(spec.config.num_cameras, *spec.config.image.size)
    images = [_images(spec.config, seed) for seed in (101, 202)]
    for number, (name, lidar2img) in enumerate(rigs(rig, spec.config.image.size)):
        yield name, sample_of(model, spec, images[number % 2], lidar2img[None].astype(np.float32))


def check_other_image(
    subject: Subject, model: SurroundOcc, rig: np.ndarray, report: Report, allowed: Sequence[Allowance] = ()
) -> None:  # fmt: skip
    """`fixed`: another image under the baked calibration. rig: (1, N, 4, 4) float32; the others as for `check_following`."""
    sample = sample_of(model, subject.spec, _images(subject.spec.config, 303), rig)
    check_sample(subject, sample, report, "another image", brief=True, allowed=allowed)


def check_hits(subject: Subject, model: SurroundOcc, rig: np.ndarray, report: Report) -> None:
    """At the file's own size: the index tables for every rig equal PyTorch's, number by number. rig: (N, 4, 4) float64."""
    spec = subject.spec
    findings, cases, place = [], list(rigs(rig, spec.image_hw)), next(model.parameters()).device
    fields = ("slots", "back") if spec.calibration == "runtime" else LevelTable._fields
    for name, lidar2img in cases:
        matrix = lidar2img[None].astype(np.float32)
        try:
            got = subject.tables(matrix) if spec.calibration == "tables" else subject.hits(matrix)
        except ModelFileError as error:
            findings.append(f"{name}: {error}")
            continue
        with torch.no_grad():
            tables, dropped = model.tables(torch.from_numpy(matrix).to(place), spec.image_hw, spec.budgets)
        want = {field: tensor.cpu().numpy() for field, tensor in table_feeds(tables).items()} | {"dropped": dropped.cpu().numpy()}
        findings += [f"{name}: {field}: not found in the file" for field in want if field not in got and field.endswith(fields)]
        for field, array in got.items():
            wanted = want[field]
            if field.endswith("ref_uv"):
                wrong = not float(np.abs(array - wanted).max()) <= 1e-6  # NaN too
            else:
                wrong = not np.array_equal(array.reshape(wanted.shape), wanted)
            if wrong:
                count = np.count_nonzero(array.reshape(wanted.shape) != wanted)
                findings.append(f"{name}: {field}: {count:,} of {wanted.size:,} numbers differ")
    report.findings("voxels of each camera", findings, f"{', '.join(fields)} and dropped equal PyTorch's for {len(cases)} rigs")


def _images(config: Config, seed: int) -> np.ndarray:
    image = config.image
    pixels = synthetic_images(config.num_cameras, *image.size, seed)
    return preprocess(pixels, image.mean, image.std, image.to_rgb, image.size_divisor)


def rigs(rig: np.ndarray, image_size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Named rigs (N, 4, 4): turned, one camera blind, all cameras facing one way, very wide lenses. The last two overflow budgets."""
    for degrees in TURNS:
        yield f"rig turned by {degrees:g} degrees", turned(rig, degrees)
    blind = rig.copy()
    blind[-1, :3] = [[800.0, 0, 0, 0], [0, 800.0, 0, 0], [0, 0, 1.0, -100.0]]  # looks up from 100 m above: every voxel is behind it
    yield "blind camera", blind
    yield "all cameras facing one way", np.repeat(rig[:1], len(rig), axis=0)
    yield "lenses four times as wide", _widened(rig, image_size)


def _widened(rig: np.ndarray, image_size: tuple[int, int], factor: float = 4.0) -> np.ndarray:
    """The rig (N, 4, 4) with focal lengths divided by the factor, about the image centre: a camera sees more than its slots hold."""
    height, width = image_size
    wide = rig.copy()
    for row, centre in ((0, width / 2), (1, height / 2)):
        wide[:, row] = (rig[:, row] - centre * rig[:, 2]) / factor + centre * rig[:, 2]
    return wide


def _check_dropped(spec: Spec, lidar2img: np.ndarray, dropped: np.ndarray, report: Report, name: str) -> None:
    """`dropped` against a brute-force count in numpy, where any voxel is dropped at all."""
    counts = []
    for level, budget in zip(spec.config.levels, spec.budgets, strict=True):
        hit = hits(lidar2img.astype(np.float32), spec.image_hw, level_points(level, spec.config))
        counts.append(overflow(hit, budget.slots, budget.cameras))
    if any(counts) or dropped.any():
        got = dropped[0].tolist()
        report.add(f"{name}: dropped against a brute-force count", counts == got, f"{got}, counted {counts}")


def check_sensitivity(subject: Subject, report: Report) -> None:
    """Each camera's image and each camera's matrix must change some logit."""
    config = subject.spec.config
    _, rig = nuscenes_like_rig(config.num_cameras, *config.image.size)
    images = [_images(config, seed) for seed in (101, 202)]
    scales = [f"logits_scale{scale}" for scale in subject.spec.outputs.scales]
    matrix = rig[None].astype(np.float32)
    silent = []
    try:
        base = subject.run(images[0], matrix)
        for camera in range(len(rig)):
            other, moved = images[0].copy(), matrix.copy()
            other[:, camera] = images[1][:, camera]
            moved[0, camera] = turned(rig, 2.0)[camera]
            if not different(base, subject.run(other, matrix), scales):
                silent.append(f"image of camera {camera}")
            if not different(base, subject.run(images[0], moved), scales):
                silent.append(f"lidar2img of camera {camera}")
    except ModelFileError as error:
        silent.append(str(error))
    report.findings("each camera's image and matrix change the logits", silent, f"{len(rig)} cameras")
