"""Semantic metrics as upstream's `evaluation_semantic`: counts for each class, summed over all frames before they are divided.

Letters: C rows of counts; row 0 is geometry (occupied or empty, whatever the class), row i is class i.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .classes import IGNORE


def semantic_counts(labels: NDArray[np.uint8], truth: NDArray[np.uint8], num_rows: int) -> NDArray[np.int64]:
    """Counts of one frame.

    Args:
        labels: (X, Y, Z) uint8, what is judged.
        truth: (X, Y, Z) uint8; voxels of 255 do not count.
        num_rows: C, the classes with empty.
    Returns:
        (C, 3) int64: true positives, voxels of that class in the truth, voxels of that class in `labels`.
    """
    assert labels.shape == truth.shape, (labels.shape, truth.shape)
    pair = (truth.astype(np.uint16) << 8) | labels
    joint = np.bincount(pair.reshape(-1), minlength=256 * 256).reshape(256, 256)  # [truth, label]
    joint = joint[:IGNORE]
    counts = np.stack([joint.diagonal()[:num_rows], joint.sum(axis=1)[:num_rows], joint.sum(axis=0)[:num_rows]], axis=1)
    counts[0] = joint[1:, 1:].sum(), joint[1:].sum(), joint[:, 1:].sum()
    return counts.astype(np.int64)


def ious(counts: NDArray[np.int64]) -> list[float | None]:
    """(C, 3) counts → the IoU of each row, tp / (truth + predicted - tp); None where neither has a voxel of it.

    Upstream divides 0 by 0 there, and its mean becomes NaN.
    """
    union = counts[:, 1] + counts[:, 2] - counts[:, 0]
    return [float(tp / total) if total else None for tp, total in zip(counts[:, 0], union, strict=True)]


def mean_iou(values: list[float | None]) -> float | None:
    """The mean over the classes, row 0 aside, that occur in truth or prediction; None where none does."""
    known = [value for value in values[1:] if value is not None]
    return float(np.mean(known)) if known else None
