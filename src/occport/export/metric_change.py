"""What a lower precision does to the metrics of a frame that has ground truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from ..frames.listing import list_frames
from ..voxels.grid import Grid
from ..voxels.ground_truth import read_ground_truth
from ..voxels.semantic import ious, mean_iou, semantic_counts
from .agreement import labels_of
from .report import Report
from .spec import Spec


def say_metric_change(
    spec: Spec, frame: str | None, want: NDArray[np.float32], got: NDArray[np.float32], report: Report
) -> None:  # fmt: skip
    """Reports IoU and mIoU of the finest scale in float32 and in the file, where the frame names ground truth that is there.

    Args:
        frame: as `load_frame` takes it; None for a made-up one.
        want, got: (1, classes, X, Y, Z) logits of PyTorch in float32, and of the file.

    Ground truth of another form or size, as of a frame of another network, is told and ends nothing.
    """
    truth = list_frames(frame)[0].ground_truth if frame is not None else None
    if truth is None or not truth.is_file():
        return
    config = spec.config
    semantic = config.num_classes > 1
    try:
        volume = read_ground_truth(truth, Grid(config.occ_size, config.pc_range), semantic)
    except FrameError as error:
        report.add(f"metrics in {spec.precision}", True, f"not told: {error}")
        return
    rows = max(config.num_classes, 2)
    scores = [ious(semantic_counts(labels_of(logits)[0].astype(np.uint8), volume, rows)) for logits in (want, got)]
    figures: dict[str, float] = {}
    words = []
    for name, values in (("IoU", [one[0] for one in scores]), ("mIoU", [mean_iou(one) for one in scores] if semantic else [None, None])):
        before, after = values
        if before is not None and after is not None:
            figures |= {f"{name}_fp32": before, name: after}
            words.append(f"{name} {before:.5f} in fp32, {after:.5f} in {spec.precision}: {after - before:+.5f}")
    report.add(f"metrics in {spec.precision}", True, f"{'; '.join(words) or 'not defined'} (ground truth {truth.name})", figures)
